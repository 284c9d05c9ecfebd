"""The server goes and comes back; the same pool goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from isthmus.backends.postgres.pool import open_pool
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.errors import IsthmusError, StoreError, UnavailableError
from tests import servers
from tests.postgres.pools import config_for

pytestmark = pytest.mark.backend("postgres")


@pytest.fixture
def own_server() -> Iterator[servers.PostgresServer]:
    with servers.PostgresServer() as server:
        yield server


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.asyncio
async def test_a_pool_serves_within_two_seconds_of_the_servers_return(
    own_server: servers.PostgresServer, driver: str
) -> None:
    """SIGKILL, downtime, restart: calls fail at once with a transient error while it is away, then work."""
    pool = await open_pool(config_for(own_server.url, pool={"min_size": 2, "max_size": 5}, driver=driver))
    busy = [asyncio.create_task(_sleep(pool)) for _ in range(3)]
    await asyncio.sleep(0.1)

    own_server.kill()
    for failure in await asyncio.gather(*busy, return_exceptions=True):
        assert isinstance(failure, Exception)
    for _ in range(20):
        begun = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            await _one(pool)
        assert time.monotonic() - begun < 1
        assert caught.value.transient
        await asyncio.sleep(0.02)
    await asyncio.to_thread(own_server.start)
    back = time.monotonic()

    await _until_served(pool)

    assert time.monotonic() - back < 2
    # Once it serves, it serves: no stale connection is left.
    assert await asyncio.gather(*(_one(pool) for _ in range(50))) == [1] * 50
    await pool.close()


async def _sleep(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.fetch("SELECT pg_sleep(30)")


async def _one(pool: Pool) -> int:
    async with pool.acquire(5) as connection:
        return int(await connection.fetchval("SELECT 1"))


async def _until_served(pool: Pool) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                await _one(pool)
            except IsthmusError:
                await asyncio.sleep(0.01)
            else:
                return


@pytest.mark.asyncio
async def test_the_background_refills_to_min_size_by_itself(own_server: servers.PostgresServer) -> None:
    """Nobody has to call for the connections to be there again."""
    pool = await open_pool(config_for(own_server.url, pool={"min_size": 3, "max_idle": 1}))
    own_server.kill()
    async with asyncio.timeout(5):
        while pool.stats().size:
            await asyncio.sleep(0.01)

    await asyncio.to_thread(own_server.start)

    async with asyncio.timeout(2):
        while pool.stats().idle < 3:
            await asyncio.sleep(0.01)
    await pool.close()


@pytest.mark.asyncio
async def test_a_server_that_is_down_is_told_at_once(own_server: servers.PostgresServer) -> None:
    """Opening a pool fails with a typed, transient error and leaves nothing running."""
    config = config_for(own_server.url)
    own_server.stop()

    with pytest.raises(StoreError) as caught:
        await open_pool(config)

    assert isinstance(caught.value, UnavailableError)
    assert caught.value.__cause__ is not None
    await asyncio.sleep(0.01)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
