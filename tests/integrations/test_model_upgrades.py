"""Models that grow: old records are read as today's model, and migrated beside writers."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel

from isthmus import (
    AsyncDatabase,
    Collection,
    ConfigError,
    ConflictError,
    InvalidRecordError,
    Record,
    UnsupportedError,
    UsageError,
)
from isthmus._ids import new_id
from isthmus.transfer import migrate
from isthmus.typed import TypedCollection, f, upgrade

POSTGRES = os.environ.get("ISTHMUS_TEST_POSTGRES_URL")


class Person(BaseModel):
    """Its third schema: a name that was split, and a required city."""

    id: str = ""
    first: str
    last: str
    city: str
    age: int

    @staticmethod
    @upgrade(1)
    def split_name(data: dict[str, Any]) -> dict[str, Any]:
        """Turn schema 1 into 2: `name` becomes `first` and `last`."""
        first, _, last = data.pop("name").partition(" ")
        return {**data, "first": first, "last": last}

    @staticmethod
    @upgrade(2)
    def add_city(data: dict[str, Any]) -> dict[str, Any]:
        """Turn schema 2 into 3: `city` is required, `age` is a number."""
        return {"city": "unknown", **data, "age": int(data["age"])}


OLD = [
    Record({"name": "Ann Berg", "age": "30", "note": "kept"}, id="a", metadata={"source": "import"}),
    Record({"first": "Bob", "last": "Dahl", "age": "31"}, id="b", metadata={"schema": 2}),
    Record({"first": "Cid", "last": "Eide", "city": "Oslo", "age": 32}, id="c", metadata={"schema": 3}),
]
ODD = [
    Record({"age": "1"}, id="x1"),
    Record({"age": "2"}, id="x2"),
    Record({"name": "Z", "age": "old"}, id="x3"),
    Record({"name": "Z", "age": "4"}, id="x4", metadata={"schema": 4}),
    Record({"name": "Z", "age": "5"}, id="x5", metadata={"schema": "two"}),
]


@pytest_asyncio.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.backend("postgres")),
    ]
)
async def people(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TypedCollection[Person]]:
    """A typed collection on each kind of store, with records of each schema."""
    if request.param == "postgres":
        if POSTGRES is None:
            from tests.servers import server

            url = server("postgres").url
        else:
            url = POSTGRES
        handle = await AsyncDatabase.open(url, {"table": f"grown_{new_id().replace('-', '')}"})
    else:
        path = {"path": str(tmp_path / "grown.db")} if request.param == "sqlite" else {}
        handle = await AsyncDatabase.create(request.param, path)
    async with handle as db:
        name = f"people_{new_id().replace('-', '')}"
        collection = db.collection(name, Person)
        await collection.untyped.create_batch(OLD)
        yield collection
        if db.backend == "postgres":
            await db.drop_collection(db.collection_name)
            await db.drop_collection(name)


async def stored(collection: Collection, id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the data and metadata of a record as they are stored."""
    record = await collection.require(id)
    return record.data, record.metadata


@pytest.mark.asyncio
async def test_old_records_are_read_as_the_model_is_today(people: TypedCollection[Person]) -> None:
    """By every read; what is stored stays."""
    ann = Person(id="a", first="Ann", last="Berg", city="unknown", age=30)

    assert await people.get("a") == ann
    assert [p.city for p in await people.search()] == ["unknown", "unknown", "Oslo"]
    assert [p.first async for p in people.sort("_id").stream()] == ["Ann", "Bob", "Cid"]
    assert await people.sort("_id").select(lambda p: (p.last, p.age)).search() == [
        ("Berg", 30),
        ("Dahl", 31),
        ("Eide", 32),
    ]
    assert (await stored(people.untyped, "a"))[0]["name"] == "Ann Berg"


@pytest.mark.asyncio
async def test_typed_writes_leave_a_number_and_untyped_ones_may_drop_it(
    people: TypedCollection[Person],
) -> None:
    """Create, replace and update write the number; an untyped replace without it makes schema 1 again."""
    id = await people.create(Person(first="Dag", last="Foss", city="Bergen", age=1))
    assert (await stored(people.untyped, id))[1] == {"schema": 3}
    changed = await people.update("a", age=50)
    assert changed == await people.require("a")
    data, metadata = await stored(people.untyped, "a")
    assert data == {"first": "Ann", "last": "Berg", "city": "unknown", "age": 50, "note": "kept"}
    assert metadata == {"source": "import", "schema": 3}
    await people.replace("b", changed.model_copy(update={"id": "b"}))
    assert (await stored(people.untyped, "b"))[1] == {"schema": 3}

    await people.untyped.replace("b", {"name": "Bo Ek", "age": "7"})

    assert (await people.require("b")).last == "Ek"


@pytest.mark.asyncio
async def test_modifications_change_today_s_schema(people: TypedCollection[Person]) -> None:
    """An old record is rewritten first: a change of a new field would be lost by its upgrade."""
    await people.modify("a", lambda p: f(p.first).set("Anna"))
    version = (await people.untyped.require("b")).version
    await people.modify("b", lambda p: f(p.age).inc(1), if_version=version)
    with pytest.raises(ConflictError):
        await people.modify("b", lambda p: f(p.age).inc(1), if_version=version)
    with pytest.raises(ConflictError):
        await people.modify("c", lambda p: f(p.age).inc(1), where=lambda p: p.age > 90)
    await people.untyped.create(Record({"name": "Dag Foss", "age": "40"}, id="d"))
    assert await people.update_where(lambda p: f(p.first).exists(), lambda p: f(p.city).set("Bergen")) == 3
    await people.modify_batch({"d": lambda p: f(p.last).set("Fors")})

    assert [p.first for p in await people.search()] == ["Anna", "Bob", "Cid", "Dag"]
    assert [p.age for p in await people.search()] == [30, 32, 32, 40]
    assert await stored(people.untyped, "d") == (
        {"first": "Dag", "last": "Fors", "city": "unknown", "age": 40},
        {"schema": 3},
    )


@pytest.mark.asyncio
async def test_a_migration_rewrites_what_is_old(people: TypedCollection[Person]) -> None:
    """Its dry run has the figures of the run; unknown keys and other metadata stay; the odd ones too."""
    await people.untyped.create_batch(ODD)
    before = [await stored(people.untyped, record.id or "") for record in ODD]

    dry = await migrate(people, dry_run=True, batch_size=2)
    assert (await stored(people.untyped, "a"))[0]["name"] == "Ann Berg"
    done = await migrate(people, batch_size=3)

    assert dry == done
    assert (done.read, done.migrated, done.overtaken, done.failed) == (7, 2, 0, 5)
    assert sorted(done.reasons.values()) == [1, 1, 1, 2]
    assert done.reasons["cannot be upgraded: schema 1: KeyError: 'name'"] == 2
    assert done.examples["cannot be upgraded: schema 4 is newer than this model's, 3"] == "x4"
    assert await stored(people.untyped, "a") == (
        {"first": "Ann", "last": "Berg", "city": "unknown", "age": 30, "note": "kept"},
        {"source": "import", "schema": 3},
    )
    assert [await stored(people.untyped, record.id or "") for record in ODD] == before
    again = await migrate(people)
    assert (again.read, again.migrated, again.failed) == (5, 0, 5)


@pytest.mark.asyncio
async def test_a_migration_loses_no_write_beside_it(people: TypedCollection[Person]) -> None:
    """Writers change, upgrade and delete records while they are migrated."""
    ids = [f"m{n:03}" for n in range(120)]
    await people.untyped.create_batch(Record({"name": f"A {id}", "age": "1", "n": 0}, id=id) for id in ids)

    async def write_untyped(part: list[str]) -> None:
        for id in part:
            await people.untyped.update(id, {"n": 1})
            await asyncio.sleep(0)

    async def write_typed(part: list[str]) -> None:
        for id in part:
            await people.update(id, age=2)
            await asyncio.sleep(0)

    done, *_ = await asyncio.gather(
        migrate(people, batch_size=10),
        write_untyped(ids[:50]),
        write_typed(ids[50:100]),
        people.delete_batch(ids[100:110]),
    )

    assert done.failed == 0
    records = await people.untyped.get_batch(ids)
    assert [record["n"] for record in records[:50] if record] == [1] * 50
    assert [record["age"] for record in records[50:100] if record] == [2] * 50
    assert records[100:110] == [None] * 10
    assert all(record.metadata == {"schema": 3} for record in records if record)


@pytest.mark.asyncio
async def test_what_cannot_be_read_is_an_error_with_the_record(people: TypedCollection[Person]) -> None:
    """A function that fails, a newer schema, a number that is none; `on_invalid` passes them over."""
    await people.untyped.create_batch(ODD)

    for record in ODD:
        with pytest.raises(InvalidRecordError) as caught:
            await people.get(record.id or "")
        assert caught.value.record_id == record.id
        assert caught.value.stored

    assert len(await people.search(on_invalid="skip")) == 3


class Plain(BaseModel):
    """A model without upgrades."""

    name: str


class Gap(BaseModel):
    """Upgrades with a gap."""

    @staticmethod
    @upgrade(2)
    def later(data: dict[str, Any]) -> dict[str, Any]:
        """Return the data."""
        return data


class Grown(Person):
    """A fourth schema of a model that inherits three."""

    email: str

    @staticmethod
    @upgrade(3)
    def add_email(data: dict[str, Any]) -> dict[str, Any]:
        """Turn schema 3 into 4."""
        return {**data, "email": f"{data['first']}@example.com".lower()}


@pytest.mark.asyncio
async def test_models_without_upgrades_write_no_number_and_bad_ones_are_refused() -> None:
    """When the collection is made."""
    async with AsyncDatabase("memory") as db:
        plain = db.collection("plain", Plain)
        id = await plain.create(Plain(name="x"))
        assert (await stored(plain.untyped, id))[1] == {}
        assert plain.schema is None
        with pytest.raises(UsageError, match="no upgrade functions"):
            await migrate(plain)
        with pytest.raises(ConfigError, match="without a gap"):
            db.collection("gap", Gap)
        grown = db.collection("grown", Grown, schema_key="v")
        await grown.untyped.create(Record({"name": "Ann Berg", "age": 3}, id="a"))
        assert (await grown.require("a")).email == "ann@example.com"
        await migrate(grown)
        assert (await stored(grown.untyped, "a"))[1] == {"v": 4}
        with pytest.raises(ConflictError):
            await grown.update("a", age=9, if_version="other")
    for bare in (
        AsyncDatabase("elasticsearch", {"hosts": ["http://localhost:1"], "layout": "native"}),
        AsyncDatabase("files", {"location": "/tmp/*.json"}),
    ):
        with pytest.raises(UnsupportedError, match="native"):
            bare.collection("x", Person)


class Place(BaseModel):
    """A model in another."""

    city: str


class Visit(BaseModel):
    """A model whose second schema has a count."""

    id: str = ""
    place: Place
    stops: list[Place] = []
    named: dict[str, Place] = {}
    count: int

    @upgrade(1)
    @staticmethod
    def add_count(data: dict[str, Any]) -> dict[str, Any]:
        """Turn schema 1 into 2."""
        return {**data, "count": len(data.get("stops", []))}


@pytest.mark.asyncio
@pytest.mark.parametrize("write", ["migrate", "update", "modify"])
async def test_keys_that_a_nested_model_lacks_are_kept(write: str) -> None:
    """At every depth: in a model, in a list of them, in a dict of them."""
    async with AsyncDatabase("memory") as db:
        visits = db.collection("visits", Visit)
        data = {
            "place": {"city": "Oslo", "note": 1},
            "stops": [{"city": "Bari", "note": 2}, {"city": "Rome"}],
            "named": {"home": {"city": "Bonn", "note": {"x": [3]}}},
            "note": 4,
        }
        await visits.untyped.create(Record(data, id="a"))

        if write == "migrate":
            assert (await migrate(visits)).migrated == 1
        elif write == "update":
            await visits.update("a", count=2)
        else:
            await visits.modify("a", lambda p: f(p.count).set(2))

        assert await stored(visits.untyped, "a") == ({**data, "count": 2}, {"schema": 2})


@pytest.mark.asyncio
@pytest.mark.parametrize("atomic", [True, False])
async def test_a_record_of_a_newer_schema_is_one_outcome_of_a_batch(atomic: bool) -> None:
    """And nothing is written where the batch is atomic."""
    async with AsyncDatabase("memory") as db:
        people = db.collection("people", Person)
        await people.untyped.create_batch([*OLD, *ODD])
        changes: Any = lambda p: f(p.city).set("Bergen")  # noqa: E731 - the change of several items

        outcomes = await people.modify_batch(
            [("a", changes), ("x4", changes), ("c", changes)], on_error="collect", atomic=atomic
        )

        assert isinstance(outcomes.errors[1], InvalidRecordError)
        assert set(outcomes.errors) == ({0, 1, 2} if atomic else {1})
        assert (await people.require("c")).city == ("Oslo" if atomic else "Bergen")
        assert (await stored(people.untyped, "a"))[1].get("schema") == (None if atomic else 3)


@pytest.mark.asyncio
async def test_an_invalid_value_is_one_outcome_of_a_batch(people: TypedCollection[Person]) -> None:
    """A value beyond its field's constraints names its record."""
    changes: Any = {"b": lambda p: f(p.city).set(None), "c": lambda p: f(p.age).set(50)}

    outcomes = await people.modify_batch(changes, on_error="collect", atomic=False)

    [error] = outcomes.errors.values()
    assert isinstance(error, InvalidRecordError)
    assert error.record_id == "b"
    assert (await people.require("c")).age == 50


def test_what_is_no_upgrade_is_refused() -> None:
    """A function that would never be called, or could not be, is an error of the model."""
    for number in (0, -1, True, "1", None):
        with pytest.raises(ConfigError, match="number of a schema"):
            upgrade(number)  # type: ignore[arg-type]

    class Method(BaseModel):
        @upgrade(1)
        def grow(self, data: dict[str, Any]) -> dict[str, Any]:
            return data

    class Classmethod(BaseModel):
        @classmethod
        @upgrade(1)
        def grow(cls, data: dict[str, Any]) -> dict[str, Any]:
            return data

    for model in (Method, Classmethod):
        with pytest.raises(ConfigError, match="@staticmethod"):
            AsyncDatabase("memory").collection("x", model)


class Odd(BaseModel):
    """A model whose upgrade leaves what no store takes under a key that is no field."""

    id: str = ""
    n: int

    @staticmethod
    @upgrade(1)
    def leave_a_set(data: dict[str, Any]) -> dict[str, Any]:
        """Turn schema 1 into 2, which cannot be stored for the record with n = 1."""
        return {**data, "left": {1, 2}} if data["n"] == 1 else data


@pytest.mark.asyncio
async def test_a_result_that_cannot_be_stored_is_one_record_s_failure() -> None:
    """In the dry run as in the run, and in modifications; the others are migrated."""
    async with AsyncDatabase("memory") as db:
        odd = db.collection("odd", Odd)
        await odd.untyped.create_batch([Record({"n": n}, id=f"r{n}") for n in range(4)])

        dry = await migrate(odd, dry_run=True)
        with pytest.raises(InvalidRecordError, match="set cannot be stored"):
            await odd.modify("r1", lambda p: f(p.n).inc(1))
        increase: Any = lambda p: f(p.n).inc(10)  # noqa: E731 - the change of several items
        outcomes = await odd.modify_batch({"r1": increase, "r2": increase}, on_error="collect", atomic=False)
        done = await migrate(odd)

        assert (dry.migrated, dry.failed) == (3, 1)
        assert (done.migrated, done.failed) == (2, 1)
        assert done.reasons == dry.reasons == {"data.left: a value of type set cannot be stored": 1}
        assert done.examples == {"data.left: a value of type set cannot be stored": "r1"}
        assert list(outcomes.errors) == [0]
        assert await stored(odd.untyped, "r1") == ({"n": 1}, {})
        assert await stored(odd.untyped, "r2") == ({"n": 12}, {"schema": 2})


@pytest.mark.asyncio
async def test_a_batch_keeps_the_promise_of_a_version(people: TypedCollection[Person]) -> None:
    """A record of an older schema is rewritten first, so it is at another version than the caller's."""
    versions = [(await people.untyped.require(id)).version for id in "ab"]
    move: Any = lambda p: f(p.city).set("Bergen")  # noqa: E731 - the change of several items

    outcomes = await people.modify_batch(
        [("a", move, versions[0]), ("b", move, "of another"), ("c", move)], on_error="collect", atomic=False
    )

    assert list(outcomes.errors) == [1]
    assert isinstance(outcomes.errors[1], ConflictError)
    assert [person.city for person in await people.search()] == ["Bergen", "unknown", "Bergen"]


@pytest.mark.asyncio
async def test_a_modification_goes_on_where_another_writer_upgrades_the_record(
    people: TypedCollection[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first attempt finds the old schema, and the record is of today's when it is read again."""
    read = people.untyped.require

    async def upgrade_and_read(id: str, *, for_update: bool = False) -> Record:
        monkeypatch.undo()
        await migrate(people)
        return await read(id, for_update=for_update)

    monkeypatch.setattr(people.untyped, "require", upgrade_and_read)
    await people.modify("a", lambda p: f(p.age).inc(1))
    assert (await people.require("a")).age == 31
    with pytest.raises(ConflictError):
        await people.modify("a", lambda p: f(p.age).inc(1), where=lambda p: p.age > 90)
