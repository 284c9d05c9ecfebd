"""Replace, update and upsert: which fields are kept, and the effect of a missing id."""

from __future__ import annotations

import asyncio

import pytest

from isthmus import AsyncDatabase, Record, field
from isthmus.errors import InvalidRecordError, NotFoundError
from isthmus.testing.conformance._fixtures import requires


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_replace_removes_all_old_fields(db: AsyncDatabase) -> None:
    """Fields that the new data lacks are removed, also nested ones."""
    await db.upsert("x", Record({"a": 1, "b": {"c": 1, "d": 2}}, metadata={"m": 1}))

    await db.replace("x", Record({"b": {"c": 3}}))

    record = await db.require("x")
    assert record.data == {"b": {"c": 3}}
    assert record.metadata == {}


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_update_merges_top_level_keys(db: AsyncDatabase) -> None:
    """Given keys are replaced as a whole, None stores null, other keys are kept; likewise for metadata."""
    await db.upsert("x", Record({"a": 1, "b": {"c": 1}, "k": "kept"}, metadata={"m": 1, "n": 2}))

    await db.update("x", Record({"a": None, "b": {"d": 2}, "new": []}, metadata={"m": 9}))

    record = await db.require("x")
    assert record.data == {"a": None, "b": {"d": 2}, "k": "kept", "new": []}
    assert record.metadata == {"m": 9, "n": 2}


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_updating_with_a_dict_keeps_the_metadata(db: AsyncDatabase) -> None:
    """A patch without metadata changes none."""
    await db.upsert("x", Record({"a": 1}, metadata={"m": 1}))

    await db.update("x", {"a": 2})

    record = await db.require("x")
    assert (record.data, record.metadata) == ({"a": 2}, {"m": 1})


@requires("compare_and_set")
@pytest.mark.parametrize("many", [False, True], ids=["one", "batch"])
@pytest.mark.asyncio
async def test_a_record_that_was_read_is_written_like_a_new_one(db: AsyncDatabase, many: bool) -> None:
    """Its data and metadata are written, whether or not they were accessed."""
    await db.upsert("x", Record({"a": 1, "b": 2}, metadata={"m": 1, "n": 2}))
    await db.upsert("y", Record({"a": 3}, metadata={"m": 4}))
    await db.upsert("z", Record({"c": 5}, metadata={"o": 6}))

    for method, id in (("update", "x"), ("replace", "z"), ("upsert", "new")):
        [read] = await db.search(field("_id") == "y")
        await (getattr(db, f"{method}_batch")([(id, read)]) if many else getattr(db, method)(id, read))

    written = await db.get_batch(["x", "z", "new"])
    assert [record and record.data for record in written] == [{"a": 3, "b": 2}, {"a": 3}, {"a": 3}]
    assert [record and record.metadata for record in written] == [{"m": 4, "n": 2}, {"m": 4}, {"m": 4}]


@requires("compare_and_set")
@pytest.mark.parametrize("many", [False, True], ids=["one", "batch"])
@pytest.mark.asyncio
async def test_a_record_that_was_read_and_changed_is_written_as_changed(
    db: AsyncDatabase, many: bool
) -> None:
    """A record can be read, changed in place and written, also in nested values."""
    await db.upsert("x", Record({"a": 1, "b": {"c": [1]}}, metadata={"m": 1}))

    for n, method in enumerate(("update", "replace", "upsert"), 2):
        [read] = await db.search(field("_id") == "x")
        read.data["b"]["c"].append(n)
        read.metadata["m"] = n
        await (getattr(db, f"{method}_batch")([("x", read)]) if many else getattr(db, method)("x", read))

        record = await db.require("x")
        assert record.data == {"a": 1, "b": {"c": list(range(1, n + 1))}}
        assert record.metadata == {"m": n}


@pytest.mark.asyncio
async def test_a_change_to_a_record_that_was_read_is_not_stored(db: AsyncDatabase) -> None:
    """A change in place is not stored until the record is written."""
    await db.upsert("x", Record({"a": [1]}, metadata={"m": [1]}))

    for read in (await db.require("x"), *await db.search(), *await db.require_batch(["x", "x"])):
        assert read.data == {"a": [1]}
        read.data["a"].append(2)
        read.metadata["m"].append(2)

    record = await db.require("x")
    assert (record.data, record.metadata) == ({"a": [1]}, {"m": [1]})


@requires("compare_and_set")
@pytest.mark.parametrize("method", ["replace", "update"])
@pytest.mark.asyncio
async def test_a_missing_id_is_not_found(db: AsyncDatabase, method: str) -> None:
    """Replace and update raise NotFoundError and create nothing."""
    with pytest.raises(NotFoundError) as caught:
        await getattr(db, method)("nobody", {"n": 1})

    assert caught.value.record_id == "nobody"
    assert await db.count() == 0


@pytest.mark.asyncio
async def test_an_invalid_patch_changes_nothing(db: AsyncDatabase) -> None:
    """It is refused before anything is written."""
    await db.upsert("x", {"n": 1})

    with pytest.raises(InvalidRecordError):
        await db.update("x", {"n": float("nan")})

    assert (await db.require("x")).data == {"n": 1}


@pytest.mark.asyncio
async def test_upsert_writes_either_way(db: AsyncDatabase) -> None:
    """It creates a new record or replaces an existing one with its metadata, and returns the version."""
    first = await db.upsert("x", Record({"a": 1, "b": 2}, metadata={"m": 1}))
    second = await db.upsert(Record({"b": 3}, id="x"))

    record = await db.require("x")
    assert record.data == {"b": 3}
    assert record.metadata == {}
    assert first != second == record.version


@pytest.mark.asyncio
async def test_created_at_stays_and_updated_at_moves(db: AsyncDatabase) -> None:
    """Every write keeps the time of creation."""
    await db.upsert("x", {"n": 1})
    before = await db.require("x")

    await db.upsert("x", {"n": 2})

    after = await db.require("x")
    assert after.created_at == before.created_at
    assert after.updated_at is not None
    assert before.updated_at is not None
    assert after.updated_at >= before.updated_at


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_no_concurrent_update_is_lost(db: AsyncDatabase) -> None:
    """Eight concurrent updates of different keys are all applied."""
    await db.upsert("x", {})

    await asyncio.gather(*(db.update("x", {f"k{n}": n}) for n in range(8)))

    assert (await db.require("x")).data == {f"k{n}": n for n in range(8)}


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_a_batch_of_updates_returns_versions_and_keeps_ids(db: AsyncDatabase) -> None:
    """Each outcome is the record's new version, and the records keep their ids."""
    await db.upsert_batch({"a": {"n": 1}, "b": {"n": 2}})

    versions = await db.update_batch({"a": {"m": 1}, "b": {"m": 2}})

    records = await db.get_batch(["a", "b"])
    assert [(r.id, r.data, r.version) for r in records if r is not None] == [
        ("a", {"n": 1, "m": 1}, versions[0]),
        ("b", {"n": 2, "m": 2}, versions[1]),
    ]
