"""Batches of any size, with per-item outcomes."""

from __future__ import annotations

import pytest

from isthmus import (
    AlreadyExistsError,
    BatchError,
    ConflictError,
    InvalidRecordError,
    NotFoundError,
    NotWrittenError,
    Query,
    Record,
    field,
)
from tests.postgres.databases import opened

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


async def test_a_hundred_thousand_records_are_one_batch() -> None:
    """There is no limit of arguments; every record is there afterwards."""
    async with opened() as db:
        ids = await db.create_batch([{"n": n} for n in range(100_000)])

        assert len(set(ids)) == 100_000 == await db.count()
        assert (await db.require(ids[77_777])).data == {"n": 77_777}


async def test_forty_thousand_ids_are_read_found_and_deleted_at_once() -> None:
    """`get_batch`, `in` and `delete_batch` take more ids than the protocol has arguments."""
    async with opened() as db:
        ids = await db.create_batch([{"n": n} for n in range(40_000)])

        records = await db.get_batch(ids)
        assert [record.data["n"] for record in records if record is not None] == list(range(40_000))
        assert await db.count(field("_id").in_(ids)) == 40_000
        assert await db.count(field("n").in_(list(range(10, 40_000)))) == 39_990
        assert await db.delete_batch([*ids, "nobody"]) == [*[True] * 40_000, False]
        assert await db.count() == 0


@pytest.mark.parametrize("size", [50, 5_000])
async def test_a_clash_in_the_middle_writes_nothing_and_names_every_clash(size: int) -> None:
    """An atomic batch is all or nothing; the errors are of the items that clash."""
    async with opened() as db:
        await db.create(Record({"mine": True}, id="b"))
        await db.create(Record({"mine": True}, id="c"))
        records = [Record({"n": n}, id=f"x{n}") for n in range(size)]
        records[size // 2 : size // 2] = [Record({}, id="b"), Record({}, id="c")]

        with pytest.raises(BatchError) as caught:
            await db.create_batch(records)

        clashes = [o.record_id for o in caught.value.outcomes if isinstance(o, AlreadyExistsError)]
        assert clashes == ["b", "c"]
        assert sum(isinstance(o, NotWrittenError) for o in caught.value.outcomes) == size
        assert await db.count() == 2
        assert await db.create(Record({}, id="x1")) == "x1"


@pytest.mark.parametrize("size", [50, 5_000])
async def test_without_atomic_the_free_ids_are_written(size: int) -> None:
    """With `atomic=False` a clash is that item's outcome and no other's."""
    async with opened() as db:
        await db.create(Record({"mine": True}, id="x7"))

        outcomes = await db.create_batch(
            [Record({"n": n}, id=f"x{n}") for n in range(size)], on_error="collect", atomic=False
        )

        assert isinstance(outcomes[7], AlreadyExistsError)
        assert sum(isinstance(o, str) for o in outcomes) == size - 1
        assert await db.count() == size
        assert (await db.require("x7")).data == {"mine": True}


@pytest.mark.parametrize("size", [3, 500])
async def test_an_invalid_record_in_the_middle_writes_nothing(size: int) -> None:
    """U+0000 is refused with its path although the rows before it were on their way."""
    async with opened() as db:
        records: list[dict[str, object]] = [{"n": n} for n in range(size)]
        records[size // 2] = {"deep": [{"text": "a\0b"}]}

        with pytest.raises(BatchError) as caught:
            await db.create_batch(records)

        bad = caught.value.outcomes[size // 2]
        assert isinstance(bad, InvalidRecordError)
        assert bad.path == "data.deep[0].text"
        assert await db.count() == 0
        assert len(await db.create_batch([{"n": 1}] * 200)) == 200


@pytest.mark.parametrize("size", [10, 5_000])
async def test_upsert_and_update_take_any_number(size: int) -> None:
    """Half of them exist; upsert replaces, update merges, created_at stays."""
    async with opened() as db:
        await db.create_batch([Record({"n": n, "old": 1}, id=f"k{n:05}") for n in range(0, size, 2)])
        before = await db.require("k00000")

        versions = await db.upsert_batch([Record({"n": n}, id=f"k{n:05}") for n in range(size)])
        assert [record.version for record in await db.search()] == versions
        await db.update_batch([(f"k{n:05}", {"new": None, "n": -n}) for n in range(size)])

        assert len(versions) == size == await db.count()
        after = await db.require("k00000")
        assert after.data == {"n": 0, "new": None}
        assert after.created_at == before.created_at
        assert after.version not in (before.version, versions[0])
        assert await db.count(field("old").exists()) == 0


@pytest.mark.parametrize("size", [10, 5_000])
async def test_one_missing_id_undoes_an_atomic_update(size: int) -> None:
    """Replace and update refuse a missing id, and then nothing is changed."""
    async with opened() as db:
        await db.create_batch([Record({"n": n}, id=f"k{n:05}") for n in range(size)])
        patches = [(f"k{n:05}", {"n": "changed"}) for n in range(size)]
        patches.insert(5, ("nobody", {"n": "changed"}))

        with pytest.raises(BatchError) as caught:
            await db.update_batch(patches)

        assert isinstance(caught.value.outcomes[5], NotFoundError)
        assert await db.count(field("n") == "changed") == 0
        outcomes = await db.replace_batch(patches, on_error="collect", atomic=False)
        assert isinstance(outcomes[5], NotFoundError)
        assert await db.count(field("n") == "changed") == size


async def test_an_id_twice_in_a_batch_is_two_steps() -> None:
    """The result is as if items were applied one after another."""
    async with opened() as db:
        await db.create(Record({"a": 1}, id="x"))

        versions = await db.update_batch([("x", {"b": 1}), ("x", {"b": 2, "c": 3})])
        assert (await db.require("x")).data == {"a": 1, "b": 2, "c": 3}
        assert (await db.require("x")).version == versions[1] != versions[0]

        outcomes = await db.create_batch(
            [Record({"n": 1}, id="y"), Record({"n": 2}, id="y")], on_error="collect", atomic=False
        )
        assert outcomes[0] == "y"
        assert isinstance(outcomes[1], AlreadyExistsError)
        assert (await db.require("y")).data == {"n": 1}
        assert await db.delete_batch(["y", "y"]) == [True, False]


async def test_versions_are_compared_in_the_same_statement() -> None:
    """A stale version is a conflict for each verb; a missing record too, where nothing can be replaced."""
    async with opened() as db:
        await db.create(Record({"n": 1}, id="x"))
        stale = (await db.require("x")).version
        assert stale is not None
        fresh = await db.replace("x", {"n": 2}, if_version=stale)

        for write in (db.replace, db.update, db.upsert):
            with pytest.raises(ConflictError):
                await write("x", {"n": 3}, if_version=stale)
        with pytest.raises(ConflictError):
            await db.delete("x", if_version=stale)
        with pytest.raises(ConflictError):
            await db.delete("nobody", if_version=fresh)
        with pytest.raises(ConflictError):
            await db.upsert("nobody", {}, if_version=fresh)
        with pytest.raises(NotFoundError):
            await db.update("nobody", {}, if_version=fresh)
        for token in ("", "x", "-1", "01", " 1", "٣", "9" * 400):
            with pytest.raises(ConflictError):
                await db.replace("x", {}, if_version=token)

        assert (await db.require("x")).data == {"n": 2}
        assert await db.delete("x", if_version=fresh) is True


async def test_pages_of_a_stream_follow_each_other_without_a_gap() -> None:
    """A stream gives every record once, sorted or not, in pages of any size."""
    async with opened(indexes=["n"]) as db:
        await db.create_batch([{"n": n % 7} for n in range(501)])

        assert len({r.id async for r in db.stream(page_size=10)}) == 501
        values = [r.data["n"] async for r in db.stream(Query().sort("n", "desc"), page_size=7)]
        assert values == sorted(values, reverse=True)
        assert len(values) == 501
