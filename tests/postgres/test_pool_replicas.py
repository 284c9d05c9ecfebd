"""Reads go to streaming replicas, and still see what was written before them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

import isthmus
from isthmus.backends.postgres.pool import open_pool
from isthmus.backends.postgres.pool.pool import Pool
from tests import servers
from tests.postgres.pools import config_for
from tests.servers._process import clean_env, run

pytestmark = pytest.mark.backend("postgres")


class Replica(servers.PostgresServer):
    """A streaming replica of another server."""

    def __init__(self, primary: servers.PostgresServer) -> None:
        super().__init__()
        self.primary = primary

    def _prepare(self) -> None:
        program: Path = self.provision() / "pg_basebackup"
        origin = ["--host=127.0.0.1", f"--port={self.primary.port}", "--username=postgres"]
        way = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        run([program, f"--pgdata={self.data}", *origin, *way], cwd=self.home, env=clean_env(self.home))


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[servers.PostgresServer, servers.PostgresServer]]:
    with servers.PostgresServer() as primary, Replica(primary) as replica:
        yield primary, replica


Pair = tuple[servers.PostgresServer, servers.PostgresServer]


async def _port(pool: Pool) -> int:
    async with pool.acquire() as connection:
        return int(await connection.fetchval("SELECT inet_server_port()"))


async def _caught_up(pool: Pool, replica: servers.PostgresServer) -> None:
    async with asyncio.timeout(10):
        while await _port(pool.reads) != replica.port:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.asyncio
async def test_a_replica_that_lags_behind_our_writes_is_not_read(pair: Pair, driver: str) -> None:
    """While replay is paused, reads after a write go to the primary; later to the replica again."""
    primary, replica = pair
    pool = await open_pool(config_for(primary.url, replicas=[f"127.0.0.1:{replica.port}"], driver=driver))
    control = await asyncpg.connect(replica.url)
    try:
        await _caught_up(pool, replica)
        await control.execute("SELECT pg_wal_replay_pause()")
        assert await _port(pool.reads) == replica.port  # nothing was written since
        async with pool.acquire() as connection:
            await connection.execute("DROP TABLE IF EXISTS lag; CREATE TABLE lag (n int)")

        for _ in range(3):
            async with pool.reads.acquire() as connection:
                assert await connection.fetchval("SELECT inet_server_port()") == primary.port
                assert await connection.fetchval("SELECT count(*) FROM lag") == 0
        assert pool.stats().in_use == pool.reads.stats().in_use == 0

        await control.execute("SELECT pg_wal_replay_resume()")
        await _caught_up(pool, replica)
        async with pool.reads.acquire() as connection:
            assert await connection.fetchval("SELECT count(*) FROM lag") == 0
    finally:
        await control.execute("SELECT pg_wal_replay_resume()")
        await control.close()
        await pool.close()


@pytest.mark.asyncio
async def test_a_database_with_replicas_reads_its_own_writes(pair: Pair) -> None:
    """Every read sees the write before it, whichever server answers."""
    primary, replica = pair
    db = await isthmus.AsyncDatabase.create(
        "postgres", {"url": primary.url, "replicas": [f"127.0.0.1:{replica.port}"], "table": "own_writes"}
    )
    try:
        for number in range(50):
            id = await db.create(isthmus.Record({"n": number}))
            record = await db.get(id)
            assert record is not None
            assert await db.count() == number + 1
    finally:
        await db.close()
