"""The verbs that faults are tried on, on three records `a`, `b` and `c`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from isthmus import AsyncDatabase, Query, Record, field

RECORDS = [Record({"n": n, "name": id}, id=id) for n, id in enumerate("abc")]


@dataclass(frozen=True)
class Verb:
    """One call, and what kind of doubt it can be in."""

    name: str
    kind: str
    """read; changes (a read that some backends have); create (an id of ours); claim (a chosen id); compare
    (if_version); write; transaction."""
    call: Callable[[AsyncDatabase, dict[str, str]], Awaitable[Any]]
    """Is given a handle and the versions of the records."""


async def _stream(db: AsyncDatabase, versions: dict[str, str]) -> Any:
    return [record.id async for record in db.stream(page_size=2)]


async def _ordered_stream(db: AsyncDatabase, versions: dict[str, str]) -> Any:
    return [record.id async for record in db.stream(Query().sort("n"), page_size=2)]


async def _pages(db: AsyncDatabase, versions: dict[str, str]) -> Any:
    first = await db.page(Query().sort("n"), size=2)
    return await db.page(Query().sort("n"), size=2, cursor=first.cursor)


async def _changes(db: AsyncDatabase, versions: dict[str, str]) -> Any:
    async with db.changes(since="start") as changes:
        found = await changes.read(wait=False)
        assert [change.id for change in found] == ["a", "b", "c"], found
        return await changes.read(wait=False)


async def _transaction(db: AsyncDatabase, versions: dict[str, str]) -> Any:
    async with db.transaction() as tx:
        await tx.update("a", {"n": 50})
        await tx.create({"n": 51})


VERBS = {
    verb.name: verb
    for verb in (
        Verb("get", "read", lambda db, v: db.get("a")),
        Verb("get_batch", "read", lambda db, v: db.get_batch(["a", "b", "zz"])),
        Verb("exists", "read", lambda db, v: db.exists("a")),
        Verb("search", "read", lambda db, v: db.search(field("n") >= 1)),
        Verb("find_one", "read", lambda db, v: db.find_one(field("n") == 2)),
        Verb("count", "read", lambda db, v: db.count(field("n") >= 1)),
        Verb("page", "read", _pages),
        Verb("stream", "read", _stream),
        Verb("stream, sorted", "read", _ordered_stream),
        Verb("changes", "changes", _changes),
        Verb("aggregate", "read", lambda db, v: db.aggregate(total=("sum", "n"))),
        Verb("create", "create", lambda db, v: db.create({"n": 10})),
        Verb("create_batch", "create", lambda db, v: db.create_batch([{"n": n} for n in range(20, 30)])),
        Verb("create_batch of 300", "create", lambda db, v: db.create_batch([{"n": n} for n in range(300)])),
        Verb("stream_write", "create", lambda db, v: db.stream_write({"n": n} for n in range(30, 40))),
        Verb("create with an id", "claim", lambda db, v: db.create(Record({"n": 11}, id="d"))),
        Verb("replace at a version", "compare", lambda db, v: db.replace("a", {"n": 12}, if_version=v["a"])),
        Verb("update at a version", "compare", lambda db, v: db.update("a", {"n": 13}, if_version=v["a"])),
        Verb("upsert at a version", "compare", lambda db, v: db.upsert("a", {"n": 14}, if_version=v["a"])),
        Verb("delete at a version", "compare", lambda db, v: db.delete("a", if_version=v["a"])),
        Verb("replace", "write", lambda db, v: db.replace("a", {"n": 15})),
        Verb("update", "write", lambda db, v: db.update("a", {"n": 16})),
        Verb("upsert", "write", lambda db, v: db.upsert("e", {"n": 17})),
        Verb("delete", "write", lambda db, v: db.delete("b")),
        Verb("replace_batch", "write", lambda db, v: db.replace_batch({"a": {"n": 18}, "b": {"n": 19}})),
        Verb("update_batch", "write", lambda db, v: db.update_batch({"a": {"m": 1}, "b": {"m": 2}})),
        Verb("upsert_batch", "write", lambda db, v: db.upsert_batch({"f": {"n": 1}, "g": {"n": 2}})),
        Verb("delete_batch", "write", lambda db, v: db.delete_batch(["a", "c"])),
        Verb("delete_where", "write", lambda db, v: db.delete_where(field("n") >= 1)),
        Verb("clear", "write", lambda db, v: db.clear()),
        Verb("transaction", "transaction", _transaction),
    )
}
