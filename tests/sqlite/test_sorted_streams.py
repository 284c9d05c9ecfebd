"""Sorted streams: one pass by a cursor, whose connection is given up as soon as somebody needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, Query
from isthmus.backends.sqlite import read_snapshot

pytestmark = [pytest.mark.backend("sqlite"), pytest.mark.asyncio]

SORTED = Query().sort("n")
COUNT = 500


@pytest_asyncio.fixture
async def db(tmp_path: Path) -> AsyncIterator[AsyncDatabase]:
    config = {"path": str(tmp_path / "data.db"), "pool": {"readers": 1, "timeout": 3}}
    async with await AsyncDatabase.create("sqlite", config) as made:
        await made.create_batch([{"n": (number * 7) % COUNT} for number in range(COUNT)])
        yield made


@pytest.mark.parametrize("consistent", [False, True])
async def test_a_stream_keeps_its_cursor_and_gives_the_reader_back_at_the_end(
    db: AsyncDatabase, consistent: bool
) -> None:
    before = db.stats().pool.acquired
    numbers = [record["n"] async for record in db.stream(SORTED, page_size=50, consistent=consistent)]
    assert numbers == list(range(COUNT))
    assert db.stats().pool.acquired - before <= 2  # not one checkout for each page
    assert db.stats().pool.in_use == 0


async def test_the_reader_of_a_stream_may_use_the_only_connection_for_each_record(db: AsyncDatabase) -> None:
    numbers = []
    async for record in db.stream(SORTED, page_size=50):
        numbers.append(record["n"])
        assert await db.get(record.id) is not None
        assert await db.update(record.id, {"seen": True})
    assert numbers == list(range(COUNT))


async def test_many_streams_share_one_connection(db: AsyncDatabase) -> None:
    async def read() -> list[int]:
        return [record["n"] async for record in db.stream(SORTED, page_size=100)]

    assert await asyncio.gather(*(read() for _ in range(8))) == [list(range(COUNT))] * 8


async def test_a_stream_that_is_left_holds_nothing(db: AsyncDatabase) -> None:
    async with db.stream(SORTED, page_size=50) as stream:
        async for _ in stream:
            break
    assert db.stats().pool.in_use == 0


async def test_a_slow_reader_holds_no_snapshot(db: AsyncDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_snapshot, "HOLD_SECONDS", 0.05)
    numbers = []
    async for record in db.stream(SORTED, page_size=100):
        numbers.append(record["n"])
        if len(numbers) == 50:
            async with asyncio.timeout(3):
                while db.stats().pool.in_use:
                    await asyncio.sleep(0.01)
    assert numbers == list(range(COUNT))


async def test_closing_the_handle_does_not_wait_for_a_stream(db: AsyncDatabase) -> None:
    async for _ in db.stream(SORTED, page_size=50):
        break
    async with asyncio.timeout(2):
        await db.close()
