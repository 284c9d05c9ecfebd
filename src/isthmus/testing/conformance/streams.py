"""Streams: with any filter, order and limit, page by page, stopped early or read to the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import ClosedError, UsageError
from isthmus.testing.conformance._fixtures import id_set, put, put_one, requires, store, store_people


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (field("age") > 9, "alice carol dan"),
        (field("name").like("%a%"), "carol dan"),
        (field("active") == True, "alice carol dan"),  # noqa: E712
        ((field("age") > 2) & (field("age") == 5), "bob"),
        (~(field("city") == "Paris"), "bob carol dan eve"),
        (field("tags") == "deep", "eve"),
        (field("name").regex("^[A-C]"), "alice bob carol"),
    ],
)
@pytest.mark.parametrize("page_size", [1, 2, 5, 1_000])
@pytest.mark.asyncio
async def test_a_stream_applies_every_filter(
    db: AsyncDatabase, predicate: object, expected: str, page_size: int
) -> None:
    """With any page size, as in a search."""
    await store_people(db)

    seen = [r.id async for r in db.stream(predicate, page_size=page_size)]  # type: ignore[arg-type]

    assert len(seen) == len(set(seen))
    assert set(seen) == id_set(expected)


@pytest.mark.asyncio
async def test_a_stream_honours_limit_offset_and_sort(db: AsyncDatabase) -> None:
    """As a search does, with any page size."""
    await store_people(db)

    for page_size in (1, 2, 3, 100):
        for query in (
            Query().limit(2),
            Query().offset(3),
            Query().limit(0),
            Query().sort("age").limit(3),
            Query().sort("age", "desc").offset(1).limit(3),
            Query().filter("age", ">", 9).offset(1).limit(1),
            Query().sort("city", nulls="first").limit(4),
        ):
            streamed = [r.id async for r in db.stream(query, page_size=page_size)]
            assert streamed == [r.id for r in await db.search(query)], (query, page_size)


@pytest.mark.asyncio
async def test_a_long_stream_returns_each_record_once(db: AsyncDatabase) -> None:
    """1,500 records in pages of 100, with and without a sort."""
    await put(db, [Record({"n": n, "half": n // 2}) for n in range(1_500)])

    unordered = [r.data["n"] async for r in db.stream(page_size=100)]
    ordered = [r.data["half"] async for r in db.stream(Query().sort("half", "desc"), page_size=100)]

    assert sorted(unordered) == list(range(1_500))
    assert ordered == [n // 2 for n in range(1_499, -1, -1)]


@pytest.mark.asyncio
async def test_a_stream_may_be_stopped_early(db: AsyncDatabase) -> None:
    """Its resources at the store are released, and the handle still works."""
    await store(db, {f"{n:02}": {"n": n} for n in range(30)})

    async with db.stream(page_size=2) as records:
        async for _ in records:
            break
    async for _ in db.stream(Query().sort("n"), page_size=3):
        break

    assert await db.count() == 30


@pytest.mark.asyncio
async def test_a_stream_runs_once(db: AsyncDatabase) -> None:
    """A second loop over it raises ClosedError instead of returning nothing."""
    await store_people(db)
    stream = db.stream()
    assert len([r async for r in stream]) == 5

    with pytest.raises(ClosedError):
        async for _ in stream:
            pass


@pytest.mark.asyncio
async def test_a_streams_page_size_has_bounds(db: AsyncDatabase) -> None:
    """It may be 1 to 10,000."""
    for bad in (0, -1, 10_001):
        with pytest.raises(UsageError):
            db.stream(page_size=bad)
    assert [r async for r in db.stream(page_size=10_000)] == []


@requires("consistent_stream")
@pytest.mark.asyncio
async def test_a_consistent_stream_reads_one_snapshot(db: AsyncDatabase) -> None:
    """Concurrent writes and deletes are not visible in it."""
    await store(db, {f"{n:02}": {"n": n} for n in range(20)})

    seen: list[int] = []
    async with db.stream(consistent=True, page_size=3) as records:
        async for record in records:
            if not seen:
                await db.delete_batch([f"{n:02}" for n in range(10, 20)])
                await put_one(db, Record({"n": 99}, id="new"))
                await db.upsert("05", {"n": -5})
            seen.append(record.data["n"])

    assert sorted(seen) == list(range(20))
    assert await db.count() == 11


@requires("consistent_stream")
@pytest.mark.asyncio
async def test_a_consistent_stream_keeps_order_filter_and_limit(db: AsyncDatabase) -> None:
    """It differs from other streams only in the snapshot."""
    await store_people(db)
    query = Query().filter("age", ">", 5).sort("age", "desc").limit(2)

    async with db.stream(query, consistent=True, page_size=1) as records:
        seen = [record.id async for record in records]

    assert seen == ["carol", "alice"]


@requires("consistent_stream")
@pytest.mark.parametrize("page_size", [1, 10, 1_000])
@pytest.mark.parametrize(
    "query",
    [
        Query().filter("t", "regex", "(?i)x").sort("n"),
        Query().filter("t", "regex", "(?i)x").sort("n", "desc").limit(5),
        Query().filter("t", "regex", "(?i)x").sort("n").offset(7).limit(20),
        Query().filter("t", "regex", "(?i)x").offset(3),
        Query().filter("n", ">=", 10).sort("n", "desc").offset(4).limit(30),
        Query().filter("mixed", "exists").sort("mixed").offset(2),
    ],
    ids=["sorted", "limited", "offset", "offset without a sort", "exact", "mixed types"],
)
@pytest.mark.asyncio
async def test_a_consistent_stream_gives_what_a_search_gives(
    db: AsyncDatabase, query: Query, page_size: int
) -> None:
    """Also where a part of the query is evaluated client-side; and nothing stays in use after it."""
    texts = ["x", "X", "y", "axa"]
    mixed: list[object] = [1, "1", True, [3, "a"], {"a": 1}, None]
    await put(
        db,
        [
            Record({"n": n, "t": texts[n % 4], "mixed": mixed[n % 6]}, id=f"{(n * 37) % 60:02}")
            for n in range(60)
        ],
    )
    expected = [record.id for record in await db.search(query)]
    assert expected

    async with db.stream(query, consistent=True, page_size=page_size) as records:
        seen = [record.id async for record in records]

    assert seen == expected
    assert db.stats().pool.in_use == 0


@requires("consistent_stream")
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.asyncio
async def test_a_consistent_stream_that_is_cancelled_leaves_nothing_in_use(
    db: AsyncDatabase, times: int
) -> None:
    """However often its task is cancelled while it ends, and whatever page is under way."""
    await put(db, [Record({"n": n}, id=f"{n:02}") for n in range(40)])

    async def read(reached: asyncio.Event) -> None:
        async with db.stream(consistent=True, page_size=2) as records:
            async for _ in records:
                reached.set()

    await read(asyncio.Event())
    for _ in range(10):
        reached = asyncio.Event()
        task = asyncio.create_task(read(reached))
        await reached.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async with asyncio.timeout(20):
        while db.stats().pool.in_use:  # noqa: ASYNC110 - a pool's figures have no event
            await asyncio.sleep(0.01)
    assert await db.count() == 40


@requires("consistent_stream")
@pytest.mark.asyncio
async def test_a_consistent_stream_that_is_left_without_closing_is_released(db: AsyncDatabase) -> None:
    """At the latest when it is collected: ten of them leave nothing in use."""
    await put(db, [Record({"n": n}, id=f"{n:02}") for n in range(10)])

    for _ in range(10):
        async for _ in db.stream(consistent=True, page_size=2):
            break
        gc.collect()

    async with asyncio.timeout(20):
        while db.stats().pool.in_use:  # noqa: ASYNC110 - a pool's figures have no event
            await asyncio.sleep(0.01)
    assert await db.count() == 10


@requires("consistent_stream")
@pytest.mark.asyncio
async def test_a_consistent_stream_that_is_cancelled_at_its_limit_leaves_nothing_in_use(
    db: AsyncDatabase,
) -> None:
    """While it releases its snapshot, as there are more records than it returns."""
    await put(db, [Record({"n": n}, id=f"{n:02}") for n in range(10)])

    async def read() -> None:
        async with db.stream(Query().limit(4), consistent=True, page_size=2) as records:
            async for _ in records:
                pass

    for turns in range(30):
        task = asyncio.create_task(read())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async with asyncio.timeout(20):
        while db.stats().pool.in_use:  # noqa: ASYNC110 - a pool's figures have no event
            await asyncio.sleep(0.01)
    assert await db.count() == 10
