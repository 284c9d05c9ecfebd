"""A connection that is released dirty, cancelled or dead is reset or replaced before it is acquired again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from isthmus._core.clock import SystemClock
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.errors import IsthmusError
from tests.postgres.pools import opened, until

pytestmark = pytest.mark.backend("postgres")


@pytest.fixture
def url(running_server: Callable[[str], Any]) -> str:
    return str(running_server("postgres").url)


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


CHANGED = "SELECT count(*) FROM pg_settings WHERE source = 'session' AND name IN ('work_mem', 'search_path')"
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"


@pytest.mark.asyncio
async def test_raw_sql_leaves_no_trace_in_the_session(url: str, driver: str) -> None:
    """Settings, advisory locks, temporary tables, cursors, roles and LISTEN of raw SQL are undone."""
    async with opened(url, pool={"max_size": 1}, driver=driver) as pool:
        async with pool.acquire(dirty=True) as connection:
            pid = connection.get_server_pid()
            await connection.execute("SET work_mem = '13MB'; SET search_path = nowhere")
            await connection.execute("SELECT pg_advisory_lock(42)")
            await connection.execute("CREATE TEMP TABLE leftover (n int)")
            await connection.execute("LISTEN channel")
            await connection.execute("SET ROLE pg_monitor")
            await connection.execute("BEGIN")
            await connection.execute("DECLARE held CURSOR WITH HOLD FOR SELECT 1")
            await connection.execute("COMMIT")

        async with pool.acquire() as connection:
            assert connection.get_server_pid() == pid
            assert await connection.fetchval(CHANGED) == 0
            assert await connection.fetchval(LOCKS) == 0
            assert await connection.fetchval("SELECT to_regclass('pg_temp.leftover') IS NULL")
            assert await connection.fetchval("SELECT count(*) FROM pg_listening_channels()") == 0
            assert await connection.fetchval("SELECT count(*) FROM pg_cursors WHERE name = 'held'") == 0
            assert await connection.fetchval("SELECT current_user = session_user")
            # What the session was started with is still there.
            assert await connection.fetchval("SHOW jit") == "off"


@pytest.mark.asyncio
async def test_a_clean_connection_costs_no_reset(url: str, driver: str) -> None:
    """Only a connection marked dirty is reset: our own statements leave nothing behind."""
    async with opened(url, pool={"max_size": 1}, driver=driver) as pool:
        async with pool.acquire() as connection:
            await connection.execute("SET work_mem = '13MB'")

        assert pool.stats().idle == 1  # at once, not after a round trip
        async with pool.acquire() as connection:
            assert await connection.fetchval("SHOW work_mem") == "13MB"
            await connection.execute("RESET work_mem")


@pytest.mark.asyncio
async def test_an_open_transaction_is_rolled_back(url: str, driver: str) -> None:
    """The next task that acquires the connection is outside of any transaction."""
    async with opened(url, pool={"max_size": 1}, driver=driver) as pool:
        async with pool.acquire() as connection:
            await connection.execute("BEGIN")
            await connection.execute("CREATE TABLE never_committed (n int)")

        async with pool.acquire() as connection:
            assert not connection.is_in_transaction()
            assert await connection.fetchval("SELECT to_regclass('never_committed') IS NULL")
        assert pool.stats().opened == 1


@pytest.mark.asyncio
async def test_a_cancelled_query_is_stopped_and_its_connection_reused(url: str, driver: str) -> None:
    """The server is asked to stop; the session is reused once it is quiet."""
    async with opened(url, pool={"max_size": 1}, driver=driver) as pool:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), pool.acquire() as connection:
                    await connection.fetch("SELECT pg_sleep(30)")
            async with pool.acquire(2) as connection:
                assert await connection.fetchval("SELECT 7") == 7

        assert pool.stats().opened == 1


@pytest.mark.asyncio
async def test_a_timed_out_call_is_stopped(url: str, driver: str) -> None:
    """`timeout=` of a call and `command_timeout` of the config bound a statement."""
    async with opened(url, pool={"max_size": 1}, driver=driver, command_timeout=0.2) as pool:
        async with pool.acquire() as connection:
            with pytest.raises(TimeoutError):
                await connection.execute("SELECT pg_sleep(30)", timeout=0.05)
        async with pool.acquire() as connection:
            with pytest.raises(TimeoutError):
                await connection.fetch("SELECT pg_sleep(30)")
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 7") == 7


@pytest.mark.asyncio
async def test_a_cancelled_begin_leaves_no_transaction_behind(url: str, driver: str) -> None:
    """The next user can open a transaction, and it commits."""
    async with opened(url, pool={"max_size": 1}, driver=driver) as pool:
        for turns in range(1, 6):
            task = asyncio.create_task(_transact(pool))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with pool.acquire() as connection, connection.transaction():
                assert connection.is_in_transaction()
                assert await connection.fetchval("SELECT 1") == 1


async def _transact(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.fetch("SELECT pg_sleep(0.01)")


@pytest.mark.asyncio
async def test_one_that_waits_gets_a_mended_connection(url: str, driver: str) -> None:
    """A connection under repair goes to the queue when it is clean."""
    async with opened(url, pool={"max_size": 1}, driver=driver) as pool:
        connection = await pool.acquire(dirty=True)
        waiting = asyncio.ensure_future(_locks(pool))
        await until(lambda: pool.stats().waiting == 1)
        await connection.execute("SELECT pg_advisory_lock(43)")
        pool.release(connection)

        assert await waiting == 0


async def _locks(pool: Pool) -> int:
    async with pool.acquire() as connection:
        return int(await connection.fetchval(LOCKS))


@pytest.mark.asyncio
async def test_the_hooks_run_when_they_should(url: str, driver: str) -> None:
    """`init` once per connection, `setup` at each checkout, `reset` in place of ours after raw SQL."""
    calls: list[str] = []

    def hook(name: str) -> Callable[[Any], Any]:
        async def run(connection: Any) -> None:
            await connection.execute("SELECT 1")
            calls.append(name)

        return run

    hooks = {name: hook(name) for name in ("init", "setup", "reset")}
    async with opened(url, pool={"max_size": 1, **hooks}, driver=driver) as pool:
        calls.clear()
        async with pool.acquire():
            pass
        async with pool.acquire(dirty=True):
            pass
        async with pool.acquire():
            pass
        pool.expire()
        async with pool.acquire():
            pass

    assert calls == ["setup", "setup", "reset", "setup", "init", "setup"]


@pytest.mark.asyncio
async def test_a_failing_hook_costs_a_connection_and_no_more(url: str, driver: str) -> None:
    """What the hook did to the session is unknown: it is replaced, and the error is the caller's."""
    fail = False

    async def setup(connection: Any) -> None:
        if fail:
            raise ValueError("not today")

    async with opened(url, pool={"max_size": 1, "setup": setup}, driver=driver) as pool:
        fail = True
        for _ in range(3):
            with pytest.raises(ValueError, match="not today"):
                await pool.acquire()
        fail = False
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        assert pool.stats().size == 1


@pytest.mark.asyncio
async def test_a_session_that_the_server_ended_is_not_handed_out(url: str, driver: str) -> None:
    """An idle connection that was killed is noticed without a round trip."""
    async with opened(url, pool={"max_size": 3}, driver=driver) as pool:
        held = [await pool.acquire() for _ in range(3)]
        pids = [connection.get_server_pid() for connection in held]
        for connection in held:
            pool.release(connection)
        killer = await asyncpg.connect(url)
        await killer.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", pids)
        while await killer.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)", pids):
            await asyncio.sleep(0.005)
        await killer.close()
        await asyncio.sleep(0.02)  # the loop reads the goodbyes

        for _ in range(3):
            async with pool.acquire() as connection:
                assert connection.get_server_pid() not in pids
                assert await connection.fetchval("SELECT 1") == 1


@pytest.mark.asyncio
async def test_a_killed_session_expires_the_generation_once(url: str, driver: str) -> None:
    """57P01 says that the server goes away: all connections are replaced, however many saw it."""
    async with opened(url, pool={"max_size": 4}, driver=driver) as pool:
        generation = pool.generation
        holding = [asyncio.create_task(_sleep(pool)) for _ in range(4)]
        await until(lambda: pool.stats().in_use == 4)
        await asyncio.sleep(0.05)
        killer = await asyncpg.connect(url)
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
            pool.config.application_name,
        )
        await killer.close()
        failures = await asyncio.gather(*holding, return_exceptions=True)

        assert all(isinstance(failure, Exception) for failure in failures)
        assert pool.generation == generation + 1
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def _sleep(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.fetch("SELECT pg_sleep(30)")


class _LateClock(SystemClock):
    """A clock that can be put forward."""

    late = 0.0

    def now(self) -> float:
        return super().now() + self.late


@pytest.mark.asyncio
async def test_a_connection_idle_for_long_is_asked_before_it_is_handed_out(
    url: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is made only after `check_after` seconds of idleness."""
    clock = _LateClock()
    settings = {"max_size": 1, "check_after": 30}
    async with opened(url, pool=settings, clock=clock, driver=driver) as pool:
        asked = 0
        real = pool.driver.in_recovery

        async def in_recovery(connection: Any, timeout: float) -> bool:
            nonlocal asked
            asked += 1
            return await real(connection, timeout)

        monkeypatch.setattr(pool.driver, "in_recovery", in_recovery)
        async with pool.acquire():
            pass
        assert asked == 0

        clock.late = 31
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        assert asked == 1
        assert pool.stats().opened == 1


@pytest.mark.asyncio
async def test_a_write_refused_by_a_read_only_transaction_expires_nothing(url: str, driver: str) -> None:
    """25006 is a failover only if the server says that it is a standby; else it is the user's own doing."""
    async with opened(url, pool={"max_size": 1}, driver=driver) as pool:
        generation = pool.generation
        with pytest.raises(Exception, match="read-only transaction") as caught:
            async with pool.acquire() as connection, connection.transaction(readonly=True):
                await connection.execute("CREATE TABLE refused (n int)")
        assert not isinstance(caught.value, IsthmusError)

        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        assert pool.generation == generation


@pytest.mark.asyncio
async def test_ddl_under_a_prepared_statement_replaces_the_connections(url: str) -> None:
    """A cached plan that no longer fits, inside a transaction, where the driver cannot repeat it."""
    async with opened(url, pool={"max_size": 2}) as pool:
        async with pool.acquire() as one, pool.acquire() as two:
            await one.execute("DROP TABLE IF EXISTS shifting; CREATE TABLE shifting (a int)")
            await one.fetch("SELECT * FROM shifting")
            await two.fetch("SELECT * FROM shifting")
            await one.execute("ALTER TABLE shifting ADD b int")
        generation = pool.generation

        with pytest.raises(asyncpg.InvalidCachedStatementError):
            async with pool.acquire() as connection, connection.transaction():
                await connection.fetch("SELECT * FROM shifting")

        assert pool.generation == generation + 1
        async with pool.acquire() as connection, connection.transaction():
            assert await connection.fetch("SELECT * FROM shifting") == []
            await connection.execute("DROP TABLE shifting")
