"""Creating: an id that exists is refused, explicit ids are kept."""

from __future__ import annotations

import asyncio

import pytest

from isthmus import AsyncDatabase, Record
from isthmus.errors import AlreadyExistsError
from isthmus.testing.conformance._fixtures import requires


@requires("conditional_create")
@pytest.mark.asyncio
async def test_creating_an_existing_id_is_refused(db: AsyncDatabase) -> None:
    """The record that is there stays as it is."""
    await db.create(Record({"n": 1}, id="x"))
    before = await db.require("x")

    with pytest.raises(AlreadyExistsError) as caught:
        await db.create(Record({"n": 2}, id="x"))

    assert caught.value.record_id == "x"
    after = await db.require("x")
    assert (after.data, after.version) == ({"n": 1}, before.version)


@requires("conditional_create")
@pytest.mark.asyncio
async def test_of_many_creators_of_one_id_one_wins(db: AsyncDatabase) -> None:
    """Sixteen at once: one id, fifteen refusals."""
    made = await asyncio.gather(
        *(db.create(Record({"n": n}, id="x")) for n in range(16)), return_exceptions=True
    )

    refused = [error for error in made if isinstance(error, BaseException)]
    for error in refused:
        if not isinstance(error, AlreadyExistsError):
            raise error
    assert len(refused) == 15
    assert (await db.require("x")).data == {"n": made.index("x")}


@requires("conditional_create")
@pytest.mark.asyncio
async def test_a_batch_keeps_the_ids_given(db: AsyncDatabase) -> None:
    """Explicit ids are used and returned in order; the others are made."""
    made = await db.create_batch([Record({"n": 0}, id="b"), Record({"n": 1}), Record({"n": 2}, id="a")])

    assert made[0] == "b"
    assert made[2] == "a"
    records = await db.get_batch(made)
    assert [r.data["n"] for r in records if r is not None] == [0, 1, 2]


@requires("conditional_create")
@pytest.mark.asyncio
async def test_plain_dicts_are_records(db: AsyncDatabase) -> None:
    """A dict is taken where a Record is."""
    id = await db.create({"n": 1})
    more = await db.create_batch([{"n": 2}, {"n": 3}])

    assert [r.data for r in await db.get_batch([id, *more]) if r is not None] == [
        {"n": 1},
        {"n": 2},
        {"n": 3},
    ]


@requires("conditional_create")
@pytest.mark.asyncio
async def test_an_empty_record_is_a_record(db: AsyncDatabase) -> None:
    """Data without a field is stored, counted and found."""
    id = await db.create(Record({}))

    assert (await db.require(id)).data == {}
    assert await db.count() == 1


@requires("conditional_create")
@pytest.mark.asyncio
async def test_mixed_types_in_one_field_are_all_stored(db: AsyncDatabase) -> None:
    """A batch whose records disagree about a field's type loses none (the rival stored two of four)."""
    values = [1, "text", None, 2.5, True, [1, "a"], {"x": 1}, "2024-01-01", "1"]

    ids = await db.create_batch([Record({"v": value}) for value in values])

    records = await db.get_batch(ids)
    assert [r.data["v"] for r in records if r is not None] == values
    assert await db.count() == len(values)
