"""Create: an existing id is refused, explicit ids are kept."""

from __future__ import annotations

import asyncio

import pytest

from isthmus import AsyncDatabase, Record
from isthmus.errors import AlreadyExistsError
from isthmus.testing.conformance._fixtures import requires


@requires("conditional_create")
@pytest.mark.asyncio
async def test_creating_an_existing_id_is_refused(db: AsyncDatabase) -> None:
    """The existing record is not changed."""
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
    """Of 16 concurrent creates, one succeeds and 15 are refused."""
    created = await asyncio.gather(
        *(db.create(Record({"n": n}, id="x")) for n in range(16)), return_exceptions=True
    )

    refused = [error for error in created if isinstance(error, BaseException)]
    for error in refused:
        if not isinstance(error, AlreadyExistsError):
            raise error
    assert len(refused) == 15
    assert (await db.require("x")).data == {"n": created.index("x")}


@requires("conditional_create")
@pytest.mark.asyncio
async def test_a_batch_keeps_the_ids_given(db: AsyncDatabase) -> None:
    """Explicit ids are used, others are generated; all are returned in order."""
    created = await db.create_batch([Record({"n": 0}, id="b"), Record({"n": 1}), Record({"n": 2}, id="a")])

    assert created[0] == "b"
    assert created[2] == "a"
    records = await db.get_batch(created)
    assert [r.data["n"] for r in records if r is not None] == [0, 1, 2]


@requires("conditional_create")
@pytest.mark.asyncio
async def test_plain_dicts_are_records(db: AsyncDatabase) -> None:
    """A dict is accepted in place of a Record."""
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
    """A record without fields is stored, counted and found."""
    id = await db.create(Record({}))

    assert (await db.require(id)).data == {}
    assert await db.count() == 1


@requires("conditional_create")
@pytest.mark.asyncio
async def test_mixed_types_in_one_field_are_all_stored(db: AsyncDatabase) -> None:
    """No record of a batch is lost if their types of a field differ."""
    values = [1, "text", None, 2.5, True, [1, "a"], {"x": 1}, "2024-01-01", "1"]

    ids = await db.create_batch([Record({"v": value}) for value in values])

    records = await db.get_batch(ids)
    assert [r.data["v"] for r in records if r is not None] == values
    assert await db.count() == len(values)
