"""Ids: any text of 1 to 512 bytes; generated ids are ordered by time."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from isthmus import AsyncDatabase, Record, field
from isthmus.errors import InvalidRecordError
from isthmus.testing.conformance._fixtures import put, put_one, requires
from isthmus.testing.values import IDS


@pytest.mark.asyncio
async def test_every_id_is_kept_unchanged(db: AsyncDatabase) -> None:
    """Slashes, spaces, dots, percent signs, emoji, quotes, 512 bytes: get and search return the same id."""
    await put(db, [Record({"n": n}, id=id) for n, id in enumerate(IDS)])

    records = await db.get_batch(IDS)

    assert [(r.id, r.data["n"]) for r in records if r is not None] == [(id, n) for n, id in enumerate(IDS)]
    assert [r.id for r in await db.search()] == sorted(IDS)
    assert sorted([r.id or "" async for r in db.stream()]) == sorted(IDS)
    for n, id in enumerate(IDS):
        assert [r.data["n"] for r in await db.search(field("_id") == id)] == [n], id


@pytest.mark.asyncio
async def test_ids_can_be_queried_like_texts(db: AsyncDatabase) -> None:
    """Prefixes, substrings, suffixes and ranges of `_id`, by code point, up to the highest code points."""
    await put(db, [Record({}, id=id) for id in IDS])
    starts = sorted({id[:1] for id in IDS})
    parts = [*starts, "a/", "x" * 300, "\ud7ff", "\uffff", "\U0010ffff"]

    for part in parts:
        assert {r.id for r in await db.search(field("_id").starts_with(part))} == {
            id for id in IDS if id.startswith(part)
        }, part
    for part in ("/", "💥", "x" * 300):
        where = field("_id").contains(part) & ~field("_id").ends_with(part)
        assert {r.id for r in await db.search(where)} == {
            id for id in IDS if part in id and not id.endswith(part)
        }, part
    for low, high in itertools.pairwise(starts[::5]):
        assert [r.id for r in await db.search(field("_id").between(low, high))] == sorted(
            id for id in IDS if low <= id <= high
        )
        assert await db.count(field("_id") > low) == sum(id > low for id in IDS)
        assert await db.count(field("_id") <= low) == sum(id <= low for id in IDS)


@requires("compare_and_set")
@pytest.mark.parametrize("id", ["../x", "a/b", "a//b", "%2F", "💥", "'", " ", ".", "x" * 512, "é" * 256])
@pytest.mark.asyncio
async def test_an_unusual_id_works_with_every_method(db: AsyncDatabase, id: str) -> None:
    """Create, get, replace, update, upsert, search and delete accept it."""
    assert await put_one(db, Record({"n": 1}, id=id)) == id
    await db.replace(id, {"n": 2})
    await db.update(id, {"m": 3})
    assert (await db.require(id)).data == {"n": 2, "m": 3}
    await db.upsert(id, {"n": 4})
    assert [(r.id, r.data) for r in await db.search(field("n") == 4)] == [(id, {"n": 4})]
    assert await db.delete(id) is True
    assert await db.get(id) is None


@pytest.mark.parametrize("id", ["", "x" * 513, "é" * 257, "x" * 600, "a\0", "\ud800"])
@pytest.mark.asyncio
async def test_an_invalid_id_is_refused(db: AsyncDatabase, id: str) -> None:
    """An empty id, one of more than 512 bytes, U+0000 and lone surrogates are errors in every method."""
    calls: list[Any] = [
        lambda: db.create(Record({}, id=id)),
        lambda: db.get(id),
        lambda: db.delete(id),
        lambda: db.upsert(id, {}),
    ]
    for call in calls:
        with pytest.raises(InvalidRecordError):
            await call()
    assert await db.count() == 0


@requires("conditional_create")
@pytest.mark.asyncio
async def test_generated_ids_ascend_and_are_distinct(db: AsyncDatabase) -> None:
    """Ids sort in the order in which they were generated."""
    ids = [await db.create(Record({"n": n})) for n in range(5)]
    ids += await db.create_batch([Record({"n": n}) for n in range(5, 30)])

    assert ids == sorted(set(ids))
    assert [r.data["n"] for r in await db.search()] == list(range(30))


@requires("conditional_create")
@pytest.mark.asyncio
async def test_concurrent_creates_are_all_stored(db: AsyncDatabase) -> None:
    """40 concurrent creates yield 40 records."""
    ids = await asyncio.gather(*(db.create(Record({"n": n})) for n in range(40)))

    assert len(set(ids)) == 40
    assert {r.data["n"] for r in await db.search()} == set(range(40))


@pytest.mark.asyncio
async def test_a_data_key_named_id_is_data(db: AsyncDatabase) -> None:
    """`id`, `_id`, `version` and similar keys in the data are not the record's attributes."""
    data = {"id": "inner", "_id": "other", "version": 7, "created_at": "x", "metadata": {"a": 1}, "data": 1}

    id = await put_one(db, Record(data, id="outer"))

    record = await db.require("outer")
    assert id == record.id == "outer"
    assert record.data == data
    assert await db.count(field("id") == "inner") == 1
    assert await db.count(field(["_id"]) == "other") == 1
    assert await db.count(field("_id") == "other") == 0
