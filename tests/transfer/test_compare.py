"""Comparisons find what differs, and repairs touch nothing else."""

from __future__ import annotations

import random

import pytest

from isthmus import AsyncDatabase, Record, UsageError, field
from isthmus.transfer import copy, differences, repair, verify
from tests.seeds import drawn

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlite")]


async def fill(store: AsyncDatabase, count: int) -> None:
    await store.create_batch(
        [Record({"n": i, "deep": {"x": [i]}}, id=f"k{i:06}", metadata={"m": 1}) for i in range(count)]
    )


async def test_random_damage_is_found_and_repaired(source: AsyncDatabase, target: AsyncDatabase) -> None:
    """Whatever was changed, deleted or added is named exactly, and a repair writes only that."""
    seed = drawn()
    chance = random.Random(seed)
    await fill(source, 500)
    await copy(source, target)
    ids = [f"k{i:06}" for i in range(500)]
    chance.shuffle(ids)
    changed, metadata, missing = sorted(ids[:10]), sorted(ids[10:15]), sorted(ids[15:40])
    extra = sorted({chance.choice(["", "a", "k0002", "z"]) + str(chance.random()) for _ in range(30)})
    await target.update_batch({id: {"n": "other"} for id in changed})
    await target.update_batch([(id, Record({}, metadata={"m": 2})) for id in metadata])
    await target.delete_batch(missing)
    await target.create_batch([Record({}, id=id) for id in extra])
    untouched = {r.id: r.version for r in await target.search() if r.id not in {*changed, *metadata, *extra}}

    found = [d async for d in differences(source, target, page_size=chance.choice([1, 7, 64, 1000]))]
    compared = await verify(source, target, page_size=chance.choice([1, 7, 64, 1000]))
    kept = await repair(source, target)
    repaired = await repair(source, target, delete_extra=True)

    assert [d.id for d in found] == sorted(d.id for d in found)
    assert {d.id for d in found if d.kind == "changed"} == {*changed, *metadata}
    assert {d.id for d in found if d.kind == "missing"} == set(missing)
    assert {d.id for d in found if d.kind == "extra"} == set(extra)
    assert (compared.changed, compared.missing, compared.extra) == (15, 25, len(extra))
    assert set(compared.differences) == {(d.kind, d.id) for d in found}
    assert (kept.written, kept.deleted, kept.left) == (40, 0, len(extra))
    assert (repaired.written, repaired.deleted, repaired.left) == (0, len(extra), 0)
    assert (await verify(source, target)).equal
    assert all(r.version == untouched[r.id] for r in await target.search() if r.id in untouched)


async def test_one_flipped_character_is_found(source: AsyncDatabase, target: AsyncDatabase) -> None:
    """A difference of one character in one record makes the digests differ, and is shown by path."""
    await fill(source, 300)
    await copy(source, target)
    await target.update("k000123", {"deep": {"x": [124]}})

    compared = await verify(source, target, page_size=50)
    found = [d async for d in differences(source, target)]

    assert compared.source != compared.target
    assert compared.differing_ranges == 1
    assert [(d.kind, d.id) for d in found] == [("changed", "k000123")]
    assert found[0].paths() == {"data.deep.x": ([123], [124])}


async def test_numbers_that_are_equal_are_no_difference(source: AsyncDatabase) -> None:
    """1 and 1.0 are one value (semantics 1), also where a store spells them otherwise."""
    await source.create(Record({"n": 1.0, "m": {"b": 0, "a": 2}}, id="a"))
    async with AsyncDatabase("memory") as other:
        await other.create(Record({"m": {"a": 2.0, "b": -0.0}, "n": 1}, id="a"))

        assert (await verify(source, other)).equal


async def test_a_query_compares_a_part(source: AsyncDatabase, target: AsyncDatabase) -> None:
    """Only the chosen records are looked at on both sides."""
    await fill(source, 100)
    await copy(source, target, field("n") < 50)

    assert (await verify(source, target, field("n") < 50)).equal
    assert (await verify(source, target)).missing == 50


async def test_two_empty_stores_are_equal(source: AsyncDatabase, target: AsyncDatabase) -> None:
    """Nothing is equal to nothing; everything is extra to nothing."""
    assert (await verify(source, target)).equal
    await fill(target, 10)

    assert (await verify(source, target)).extra == 10
    assert (await verify(target, source)).missing == 10


async def test_a_transform_that_disorders_ids_is_refused(
    source: AsyncDatabase, target: AsyncDatabase
) -> None:
    """Sides are compared in the order of ids; a hook that breaks it is told so."""
    await fill(source, 10)

    with pytest.raises(UsageError, match="order"):
        await verify(source, target, transform=lambda r: Record(r.data, id=str(9 - r["n"])))
