"""Batches: of any size, with one outcome per item in order, and atomic where the store supports it."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import (
    AlreadyExistsError,
    BatchError,
    InvalidRecordError,
    IsthmusError,
    NotFoundError,
    NotWrittenError,
    UsageError,
)
from isthmus.testing.conformance._fixtures import put, put_one, requires, store

LARGE = 12_000
"""More than Elasticsearch returns at once, and than PostgreSQL accepts as arguments for three columns."""


@pytest.mark.asyncio
async def test_a_large_batch_is_written_read_searched_and_deleted(db: AsyncDatabase) -> None:
    """12,000 records are written and found, also at offsets beyond 10,000."""
    ids = await put(db, [Record({"n": n, "s": f"{n:05}"}, id=f"k{n:05}") for n in range(LARGE)])

    assert ids == [f"k{n:05}" for n in range(LARGE)]
    assert await db.count() == LARGE
    assert [r.data["n"] for r in await db.search()] == list(range(LARGE))
    assert len(await db.search(Query().limit(11_000))) == 11_000
    assert [r.data["n"] for r in await db.search(Query().sort("s", "desc").offset(11_990))] == list(
        range(9, -1, -1)
    )
    assert [r.data["n"] for r in await db.search(Query().sort("nothing").offset(11_000).limit(2))] == [
        11_000,
        11_001,
    ]
    repeated = [f"k{n:05}" for n in range(LARGE)] * 3
    assert all(r is not None for r in await db.get_batch(repeated))
    assert sum(await db.delete_batch(ids)) == LARGE
    assert await db.count() == 0


@pytest.mark.asyncio
async def test_forty_thousand_operands(db: AsyncDatabase) -> None:
    """`in` accepts more operands than a statement accepts arguments."""
    await put(db, [Record({"n": n, "s": f"{n:05}"}) for n in range(0, 50_000, 2_500)])

    assert await db.count(field("s").in_([f"{n:05}" for n in range(40_000)])) == 16
    assert await db.count(field("n").not_in(list(range(40_000)))) == 4


@requires("atomic_batch", "conditional_create")
@pytest.mark.asyncio
async def test_an_atomic_batch_writes_all_or_nothing(db: AsyncDatabase) -> None:
    """If one id exists, no item is written, and the outcomes of the others say so."""
    await put_one(db, Record({"n": 0}, id="b"))

    with pytest.raises(BatchError) as caught:
        await db.create_batch([Record({"n": 1}, id=i) for i in "abc"], atomic=True)

    assert [type(o) for o in caught.value.outcomes] == [NotWrittenError, AlreadyExistsError, NotWrittenError]
    assert [(r.id, r.data) for r in await db.search()] == [("b", {"n": 0})]


@requires("atomic_batch", "conditional_create")
@pytest.mark.asyncio
async def test_an_atomic_batch_with_an_invalid_record_writes_nothing(db: AsyncDatabase) -> None:
    """The valid items are not written either."""
    batch = [Record({"n": 1}, id="a"), Record({"n": object()}, id="b")]

    outcomes: Any = await db.create_batch(batch, on_error="collect", atomic=True)

    assert isinstance(outcomes[0], NotWrittenError)
    assert isinstance(outcomes[1], InvalidRecordError)
    assert await db.count() == 0


@requires("conditional_create", "compare_and_set")
@pytest.mark.asyncio
async def test_an_invalid_item_is_reported_as_invalid_whatever_is_stored(db: AsyncDatabase) -> None:
    """Input is validated before the store is contacted, so the error is not about what is stored."""
    await put_one(db, Record({"n": 0}, id="here"))
    bad: dict[str, Any] = {"n": float("nan")}

    calls: list[Any] = [
        await db.create_batch([Record(bad, id="here"), Record(bad, id="here")], on_error="collect"),
        await db.replace_batch({"gone": bad, "other": bad}, on_error="collect"),
        await db.update_batch([("gone", bad), ("gone", bad)], on_error="collect"),
    ]

    assert {type(outcome) for outcomes in calls for outcome in outcomes} == {InvalidRecordError}
    for call in (
        db.create(Record(bad, id="here")),
        db.replace("gone", bad),
        db.update("gone", bad),
        db.replace("here", bad, if_version="1"),
        db.upsert("here", bad, if_version="1"),
    ):
        with pytest.raises(InvalidRecordError):
            await call


@requires("conditional_create")
@pytest.mark.asyncio
async def test_a_batch_that_is_not_atomic_writes_the_valid_items(db: AsyncDatabase) -> None:
    """Each item's outcome says truthfully whether it was written."""
    await put_one(db, Record({"n": 0}, id="b"))
    batch = [Record({"n": n}, id=i) for n, i in enumerate("abcd")]

    outcomes: Any = await db.create_batch(batch, on_error="collect", atomic=False)

    assert [o if isinstance(o, str) else type(o) for o in outcomes] == ["a", AlreadyExistsError, "c", "d"]
    assert outcomes.errors[1].record_id == "b"
    assert {(r.id, r.data["n"]) for r in await db.search()} == {("a", 0), ("b", 0), ("c", 2), ("d", 3)}


@requires("conditional_create")
@pytest.mark.asyncio
async def test_a_duplicate_id_in_a_batch_of_creates_is_refused(db: AsyncDatabase) -> None:
    """Items are applied as if one after another."""
    batch = [Record({"n": 1}, id="x"), Record({"n": 2}, id="x"), Record({"n": 3}, id="y")]

    outcomes: Any = await db.create_batch(batch, on_error="collect", atomic=False)

    assert [o if isinstance(o, str) else type(o) for o in outcomes] == ["x", AlreadyExistsError, "y"]
    assert [r.data["n"] for r in await db.search()] == [1, 3]


@pytest.mark.asyncio
async def test_a_duplicate_id_in_a_batch_of_upserts_keeps_the_last(db: AsyncDatabase) -> None:
    """The last item wins, however the store treats duplicates in one request."""
    versions = await db.upsert_batch([("x", {"n": 1, "a": 1}), ("y", {"n": 5}), ("x", {"n": 2})])

    assert [r.data for r in await db.search()] == [{"n": 2}, {"n": 5}]
    assert (await db.require("x")).version == versions[2]


@requires("compare_and_set")
@pytest.mark.asyncio
async def test_a_duplicate_id_in_a_batch_of_updates_merges_both(db: AsyncDatabase) -> None:
    """The second update sees the result of the first."""
    await store(db, {"x": {"a": 0}})

    await db.update_batch([("x", {"b": 1, "c": 1}), ("x", {"c": 2})])

    assert (await db.require("x")).data == {"a": 0, "b": 1, "c": 2}


@requires("compare_and_set")
@pytest.mark.parametrize("method", ["replace_batch", "update_batch"])
@pytest.mark.asyncio
async def test_a_missing_id_in_a_batch_is_that_items_error(db: AsyncDatabase, method: str) -> None:
    """The other items are written if the batch is not atomic."""
    await store(db, {"a": {"n": 1}, "c": {"n": 1}})

    outcomes: Any = await getattr(db, method)(
        {"a": {"n": 2}, "b": {"n": 2}, "c": {"n": 2}}, on_error="collect", atomic=False
    )

    assert [type(o) for o in outcomes] == [str, NotFoundError, str]
    assert [r.data for r in await db.search()] == [{"n": 2}, {"n": 2}]


@pytest.mark.asyncio
async def test_a_batch_read_returns_one_result_for_each_id(db: AsyncDatabase) -> None:
    """Results are in order, with None for a missing record, also for repeated ids."""
    await store(db, {"a": {"n": 1}, "b": {"n": 2}})

    records = await db.get_batch(["b", "nobody", "a", "b"])

    assert [None if r is None else r.data["n"] for r in records] == [2, None, 1, 2]
    assert await db.get_batch([]) == []
    assert await db.exists_batch(["a", "nobody"]) == [True, False]
    assert [r.id for r in await db.require_batch(["b", "a"])] == ["b", "a"]
    with pytest.raises(NotFoundError):
        await db.require_batch(["a", "nobody"])


@pytest.mark.asyncio
async def test_empty_batches_do_nothing(db: AsyncDatabase) -> None:
    """Each method returns an empty list."""
    assert await db.create_batch([]) == []
    assert await db.upsert_batch({}) == []
    assert await db.delete_batch([]) == []
    assert await db.count() == 0


@pytest.mark.asyncio
async def test_a_stream_of_writes_reports_what_was_written(db: AsyncDatabase) -> None:
    """Of 25 records with an invalid one, the others are written, and its error is reported by position."""
    records = [Record({"n": n if n != 13 else float("nan")}, id=f"{n:02}") for n in range(25)]

    receipt = await db.stream_write(iter(records), upsert=True, batch_size=4, on_error="collect")

    assert (receipt.written, receipt.failed) == (24, 1)
    assert [(index, type(error)) for index, error in receipt.errors.items()] == [(13, InvalidRecordError)]
    assert await db.count() == 24


@pytest.mark.asyncio
async def test_a_stream_of_writes_stops_at_the_first_failed_batch_by_default(db: AsyncDatabase) -> None:
    """Earlier batches stay written; later records are not read from the source."""
    taken = []

    def source() -> Any:
        for n in range(20):
            taken.append(n)
            yield Record({"n": float("nan") if n == 7 else n}, id=f"{n:02}")

    with pytest.raises(BatchError) as caught:
        await db.stream_write(source(), upsert=True, batch_size=5)

    assert isinstance(caught.value.outcomes[2], IsthmusError)
    assert max(taken) < 15
    assert {f"{n:02}" for n in range(5)} <= {r.id for r in await db.search()}


@pytest.mark.asyncio
async def test_invalid_batches_are_refused(db: AsyncDatabase) -> None:
    """An item without an id, an unknown error mode, a batch size of zero."""
    with pytest.raises(UsageError):
        await db.upsert_batch([Record({"n": 1})])
    with pytest.raises(UsageError):
        await db.create_batch([{"n": 1}], on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        await db.stream_write([{"n": 1}], batch_size=0)
    assert await db.count() == 0
