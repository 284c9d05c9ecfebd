"""How users call isthmus, as type checkers see it; mypy and pyright both check this file in strict mode."""

from collections.abc import AsyncIterator
from typing import Any, assert_type

from pydantic import BaseModel

from isthmus import (
    AsyncDatabase,
    AsyncPostgresDatabase,
    Capabilities,
    Change,
    ChangeStream,
    Collection,
    CursorPage,
    Explanation,
    Outcomes,
    Query,
    Record,
    RecordStream,
    Stats,
    StreamReceipt,
    Transaction,
    field,
)
from isthmus._typed import TypedCollection


class Person(BaseModel):
    """A model of a typed collection."""

    name: str
    age: int


async def factory_and_verb() -> None:
    """`create` is the factory on the class and the verb on a handle."""
    db = await AsyncDatabase.create("memory", {})
    assert_type(db, AsyncDatabase)
    assert_type(await db.create(Record({"n": 1})), str)
    assert_type(await db.create({"n": 1}), str)
    assert_type(await AsyncDatabase.open("sqlite:///x.db"), AsyncDatabase)
    assert_type(await AsyncPostgresDatabase({"host": "h"}).connect(), AsyncPostgresDatabase)
    async with AsyncDatabase("memory") as other:
        assert_type(other, AsyncDatabase)


async def verbs(db: AsyncDatabase) -> None:
    """What each verb returns."""
    assert_type(await db.get("a"), Record | None)
    assert_type(await db.require("a"), Record)
    assert_type((await db.require("a"))["name"], Any)
    assert_type(await db.replace("a", {}), str)
    assert_type(await db.update("a", {"n": 1}, if_version="1"), str)
    assert_type(await db.upsert("a", {}), str)
    assert_type(await db.upsert(Record({}, id="a")), str)
    assert_type(await db.delete("a"), bool)
    assert_type(await db.exists(field("n") > 1), bool)
    assert_type(await db.create_batch([{"n": 1}, Record({})]), Outcomes[str])
    assert_type(await db.delete_batch(["a"]), Outcomes[bool])
    assert_type(await db.update_batch({"a": {"n": 1}}), Outcomes[str])
    assert_type(await db.upsert_batch([("a", {"n": 1}), Record({}, id="b")]), Outcomes[str])
    assert_type(await db.get_batch(["a"]), list[Record | None])
    assert_type(await db.search(Query().filter("n", ">=", 1).sort("n", "desc").limit(5)), list[Record])
    assert_type(await db.find_one((field("n") == 1) & ~field("m").exists()), Record | None)
    assert_type(await db.count(), int)
    assert_type(await db.page(size=5), CursorPage)
    assert_type(db.stream(field("n").between(1, 2)), RecordStream)
    async for record in db.stream():
        assert_type(record, Record)
    assert_type(await db.aggregate(by="n", total=("sum", "m"), n="count"), list[dict[str, Any]])
    assert_type(await db.explain(), Explanation)
    assert_type(await db.delete_where(field("n") == 1), int)
    assert_type(await db.modify("a", field("n").inc(1), field("t").push("x"), where=field("n") > 0), str)
    assert_type(await db.modify_batch({"a": field("n").inc(1), "b": [field("n").unset()]}), Outcomes[str])
    assert_type(
        await db.modify_batch([("a", field("n").max(1)), ("b", [field("n").set(1)], "3")]), Outcomes[str]
    )
    assert_type(await db.update_where(field("n") == 1, field("t").add("x", "y")), int)
    assert_type(await db.stream_write(source()), StreamReceipt)
    assert_type(db.stats(), Stats)
    assert_type(db.capabilities, Capabilities)
    assert_type(db.collection("users"), Collection)


async def source() -> AsyncIterator[dict[str, Any]]:
    """Yield what a streamed write takes."""
    yield {"n": 1}


async def transactions(db: AsyncDatabase) -> None:
    """Transactions are objects, and `run` returns what its function returns."""
    async with db.transaction(isolation="serializable") as tx:
        assert_type(tx, Transaction)
        assert_type(await tx.create({"n": 1}), str)

    async def work(tx: Transaction) -> int:
        return await tx.count()

    assert_type(await db.run(work), int)


async def typed(db: AsyncDatabase) -> None:
    """Models in, models out."""
    people = db.collection("people", Person)
    assert_type(people, TypedCollection[Person])
    assert_type(await people.update("a", age=2), Person)
    assert_type(await people.create_batch([Person(name="A", age=1)]), Outcomes[str])
    assert_type(await people.get_batch(["a"]), list[Person | None])
    async with people.stream() as stream:
        assert_type([person async for person in stream], list[Person])
    async with db.transaction() as tx:
        assert_type(await tx.collection("people", Person).require("a"), Person)
        assert_type(tx.collection("people"), Collection)
    assert_type(await people.create(Person(name="A", age=1)), str)
    assert_type(await people.get("a"), Person | None)
    assert_type(await people.search(field("age") >= 18), list[Person])
    assert_type((await people.page()).models, list[Person])
    async for person in people.stream():
        assert_type(person, Person)
    async for change in people.changes(lambda p: p.age >= 18, since="start"):
        assert_type(change, Change[Person])
        assert_type(change.record, Person | None)


async def changes(db: AsyncDatabase) -> None:
    """Changes are of records, or of models."""
    async with db.changes(field("age") >= 18, since="now", poll=0.5) as stream:
        assert_type(stream, ChangeStream[Record])
        assert_type(await stream.read(wait=False), list[Change[Record]])
        assert_type((await anext(stream)).record, Record | None)
