"""Sorted streams: one pass by a cursor, whose connection is given up as soon as somebody needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import isthmus.native
from isthmus import AsyncDatabase, Query
from isthmus.backends.postgres import sorted_streams
from tests.postgres.databases import opened, url
from tests.postgres.pools import until

pytestmark = [pytest.mark.backend("postgres"), pytest.mark.asyncio]

SORTED = Query().sort("n")
COUNT = 500


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def db(driver: str) -> AsyncIterator[AsyncDatabase]:
    async with opened(driver=driver, pool={"max_size": 1, "min_size": 1, "timeout": 3}) as made:
        await made.create_batch([{"n": (number * 7) % COUNT} for number in range(COUNT)])
        yield made


async def test_a_stream_keeps_its_cursor_and_gives_the_connection_back_at_the_end(db: AsyncDatabase) -> None:
    stream = db.stream(SORTED, page_size=50)
    numbers = []
    async for record in stream:
        numbers.append(record["n"])
        assert db.stats().pool.acquired <= 10  # not one checkout for each page
    assert numbers == list(range(COUNT))
    assert db.stats().pool.in_use == 0


async def test_the_reader_may_use_the_only_connection_for_each_record(db: AsyncDatabase) -> None:
    numbers = []
    async for record in db.stream(SORTED, page_size=50):
        numbers.append(record["n"])
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
    async for _ in db.stream(SORTED, page_size=50):
        break
    await until(lambda: db.stats().pool.in_use == 0)


async def test_a_slow_reader_holds_no_snapshot(db: AsyncDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorted_streams, "HOLD_SECONDS", 0.05)
    numbers = []
    async for record in db.stream(SORTED, page_size=100):
        numbers.append(record["n"])
        if len(numbers) == 50:
            await until(lambda: db.stats().pool.in_use == 0)
    assert numbers == list(range(COUNT))


async def test_a_stream_goes_on_after_its_connection_broke(driver: str) -> None:
    async with opened(driver=driver, pool={"max_size": 3}) as db:
        await db.create_batch([{"n": number} for number in range(COUNT)])
        numbers = []
        async for record in db.stream(SORTED, page_size=50):
            numbers.append(record["n"])
            if len(numbers) == 120:
                pool = await isthmus.native.postgres(db)
                await pool.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE state = 'idle in transaction' AND pid <> pg_backend_pid()"
                    " AND application_name = current_setting('application_name')"
                )
    assert numbers == list(range(COUNT))


async def test_closing_the_handle_does_not_wait_for_a_stream(db: AsyncDatabase) -> None:
    stream = db.stream(SORTED, page_size=50)
    async for _ in stream:
        break
    async with asyncio.timeout(2):
        await db.close()


async def test_a_table_of_others_is_read_by_a_cursor_too(db: AsyncDatabase, driver: str) -> None:
    name = f"{db.collection_name}_own"
    pool = await isthmus.native.postgres(db)
    await pool.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, v int, seen bool)")
    await pool.execute(f"INSERT INTO {name} SELECT n, (n * 7) % {COUNT} FROM generate_series(1, {COUNT}) n")
    settings = {"table": name, "layout": "native", "driver": driver, "pool": {"max_size": 1, "timeout": 3}}
    try:
        async with await AsyncDatabase.open(url(), settings) as own:
            values = []
            async for record in own.stream(Query().sort("v"), page_size=50):
                values.append(record["v"])
                if len(values) % 60 == 0:
                    await own.update(record.id, {"seen": True})
            assert values == list(range(COUNT))
    finally:
        await pool.execute(f"DROP TABLE {name}")
