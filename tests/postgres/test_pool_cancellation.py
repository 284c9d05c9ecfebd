"""Cancellation at any await leaks nothing: no session, no place in the queue, no task."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isthmus.backends.postgres.pool import open_pool
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.errors import IsthmusError
from tests.postgres.pools import config_for, gone, opened, run_on, sessions, until

pytestmark = pytest.mark.backend("postgres")

TASKS = 2_000


@pytest.fixture
def url(running_server: Callable[[str], Any]) -> str:
    return str(running_server("postgres").url)


async def _work(pool: Pool, chance: random.Random) -> None:
    """Use a connection in one of the ways that there are."""
    kind = chance.randrange(7)
    async with pool.acquire(2, dirty=kind == 0) as connection:
        match kind:
            case 0:
                await connection.execute("SET work_mem = '9MB'")
            case 1:
                await connection.fetch("SELECT pg_sleep(0.005)")
            case 2:
                async with connection.transaction():
                    await connection.execute("INSERT INTO cancelled VALUES (1)")
                    await connection.fetch("SELECT pg_sleep(0.002)")
            case 3:
                await connection.copy_records_to_table("cancelled", records=((n,) for n in range(500)))
            case 4:
                async with connection.transaction():
                    cursor = await connection.cursor("SELECT generate_series(1, 1000)")
                    await cursor.fetch(500)
                    await cursor.fetch(500)
            case 5:
                with contextlib.suppress(TimeoutError):
                    await connection.fetch("SELECT pg_sleep(0.05)", timeout=0.002)
            case _:
                assert await connection.fetchval("SELECT 40 + 2") == 42


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_two_thousand_tasks_cancelled_anywhere_leak_nothing(url: str, loop: str, driver: str) -> None:
    """Sessions, file descriptors and tasks are back to the start, and the pool works."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def main() -> None:
        schema = f"cancelled_{uuid.uuid4().hex[:12]}"  # the other drivers' and loops' runs have their own
        config = config_for(
            url,
            pool={"min_size": 1, "max_size": 6, "max_queries": 50},
            driver=driver,
            command_timeout=20,
            server_settings={"search_path": schema},
        )
        async with opened(url, driver=driver):
            pass  # what a loop and a driver open once for all
        files = _open_files()
        pool = await open_pool(config)
        async with pool.acquire(dirty=True) as connection:
            await connection.execute(f"CREATE SCHEMA {schema}; CREATE TABLE cancelled (n int)")
        for _ in range(TASKS // 50):
            await _round(pool, chance)
            await _answers(pool)

        await until(lambda: pool.stats().in_use == 0 and not pool.connector)
        stats = pool.stats()
        assert stats.waiting == 0
        assert stats.size <= 6
        assert stats.opened - stats.closed == stats.size
        await until(lambda: pool.stats().idle == pool.stats().size)
        async with asyncio.timeout(5):  # the server notices a dropped socket a moment later
            while await sessions(url, config.application_name) != pool.stats().size:
                await asyncio.sleep(0.01)
        async with pool.acquire(dirty=True) as connection:
            await connection.execute(f"DROP SCHEMA {schema} CASCADE")
        await pool.close()
        assert await gone(url, config.application_name)
        await asyncio.sleep(0.01)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        assert _open_files() <= files

    run_on(loop, main)


def _open_files() -> int:
    gc.collect()
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def _round(pool: Pool, chance: random.Random) -> None:
    tasks = [asyncio.create_task(_work(pool, chance)) for _ in range(50)]
    for task in chance.sample(tasks, len(tasks)):
        if chance.random() < 0.3:
            await asyncio.sleep(chance.random() * 0.004)
        else:
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
        task.cancel()
        if chance.random() < 0.2:  # once more, into the cleaning up
            asyncio.get_running_loop().call_soon(task.cancel)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    strange = [r for r in results if isinstance(r, Exception) and not isinstance(r, IsthmusError)]
    assert strange == []


async def _answers(pool: Pool) -> None:
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT current_setting('work_mem')") == "4MB"
        assert not connection.is_in_transaction()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_opening_and_closing_a_pool_can_be_cancelled_anywhere(url: str, loop: str, driver: str) -> None:
    """A cancelled `open_pool` or `close` leaves no session, wherever it was hit, for the collector."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def main() -> None:
        names = []
        for _ in range(150):
            config = config_for(url, pool={"min_size": 3}, driver=driver)
            names.append(config.application_name)
            opening = asyncio.create_task(open_pool(config))
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() * 0.015)
            else:
                for _ in range(chance.randrange(30)):
                    await asyncio.sleep(0)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            if not opening.cancelled():
                pool = opening.result()
                closing = asyncio.create_task(pool.close())
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
                closing.cancel()
                await asyncio.gather(closing, return_exceptions=True)
                await pool.close()
        for name in names:
            assert await gone(url, name)

    gc.disable()
    try:
        run_on(loop, main)
    finally:
        gc.enable()


@pytest.mark.asyncio
async def test_one_cancelled_in_the_moment_of_the_hand_over_passes_it_on(url: str) -> None:
    """The connection goes to the next in the queue, not astray."""
    async with opened(url, pool={"max_size": 1}) as pool:
        held = await pool.acquire()
        first, second = (asyncio.ensure_future(_name(pool)) for _ in range(2))
        await until(lambda: pool.stats().waiting == 2)

        pool.release(held)  # the first one's future has it now
        assert pool.stats().waiting == 1
        first.cancel()

        assert await second == 1
        assert first.cancelled()
        assert pool.stats().in_use == 0


async def _name(pool: Pool) -> int:
    async with pool.acquire() as connection:
        return int(await connection.fetchval("SELECT 1"))


@pytest.mark.asyncio
async def test_one_that_waits_and_is_cancelled_leaves_the_queue(url: str) -> None:
    """Nobody hands a connection to a task that is gone."""
    async with opened(url, pool={"max_size": 1}) as pool:
        held = await pool.acquire()
        waiting = [asyncio.ensure_future(_name(pool)) for _ in range(3)]
        await until(lambda: pool.stats().waiting == 3)
        waiting[0].cancel()
        waiting[1].cancel()
        await until(lambda: pool.stats().waiting == 1)
        pool.release(held)

        assert await waiting[2] == 1
