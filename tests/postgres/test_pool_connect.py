"""Which server a connection goes to, how it is verified, and what is said when there is none."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from isthmus.backends.postgres.drivers.session import tls_mode
from isthmus.backends.postgres.pool import open_pool
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.errors import (
    AccessError,
    ConfigError,
    ConnectError,
    RateLimitedError,
    StoreError,
    UnavailableError,
)
from tests import servers
from tests.postgres.pools import config_for, opened, until

pytestmark = pytest.mark.backend("postgres")


@pytest.fixture
def url(running_server: Callable[[str], Any]) -> str:
    return str(running_server("postgres").url)


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Standby(servers.PostgresServer):
    """A cluster that believes to be a standby: it answers reads and refuses writes."""

    def _prepare(self) -> None:
        super()._prepare()
        demote(self)


def demote(server: servers.PostgresServer) -> None:
    """Have a stopped cluster come back as a standby."""
    (server.data / "standby.signal").touch()


@pytest.fixture(scope="module")
def standby() -> Iterator[servers.PostgresServer]:
    with Standby() as server:
        yield server


@pytest.fixture(scope="module")
def locked() -> Iterator[servers.PostgresServer]:
    """A server with a password, TLS, and room for few."""
    with servers.PostgresServer(
        password="correct horse", tls=True, config={"max_connections": 8, "superuser_reserved_connections": 0}
    ) as server:
        yield server


async def _one(pool: Pool) -> Any:
    async with pool.acquire() as connection:
        return await connection.fetchval("SELECT 1")


# --- refusals


@pytest.mark.asyncio
async def test_a_wrong_password_is_an_access_error(locked: servers.PostgresServer, driver: str) -> None:
    """Not transient: trying again does not help. The password is not told."""
    with pytest.raises(AccessError) as caught:
        await open_pool(config_for(locked.url, password="battery staple", driver=driver))

    assert not caught.value.transient
    assert "user" in str(caught.value)
    assert "battery staple" not in str(caught.value)


@pytest.mark.asyncio
async def test_an_unknown_database_says_what_to_check(url: str, driver: str) -> None:
    """The name is in the message, and the setting too."""
    with pytest.raises(AccessError, match="nowhere") as caught:
        await open_pool(config_for(url, database="nowhere", driver=driver))

    assert "database" in str(caught.value)


@pytest.mark.asyncio
async def test_an_unknown_host_is_a_connect_error(driver: str) -> None:
    """Transient, since names come back."""
    with pytest.raises(ConnectError) as caught:
        await open_pool(config_for("postgres://nobody@host.invalid/x", ssl="disable", driver=driver))

    assert caught.value.transient


@pytest.mark.asyncio
async def test_a_full_server_is_told_and_does_not_stop_a_working_pool(
    locked: servers.PostgresServer, driver: str
) -> None:
    """With connections of its own a pool waits for one of them; without any it fails at once."""
    async with opened(locked.url, pool={"max_size": 20}, driver=driver) as pool:
        results = await asyncio.gather(*(_nap(pool) for _ in range(60)))
        assert results == [1] * 60
        assert pool.stats().size <= 8

        others = []
        with pytest.raises(asyncpg.TooManyConnectionsError):
            while True:
                others.append(await asyncpg.connect(locked.url))
        try:
            with pytest.raises(RateLimitedError, match=r"pool\.max_size"):
                await open_pool(config_for(locked.url, driver=driver))
            assert await _one(pool) == 1
        finally:
            for other in others:
                await other.close()


async def _nap(pool: Pool) -> Any:
    async with pool.acquire() as connection:
        await connection.execute("SELECT pg_sleep(0.02)")
        return await connection.fetchval("SELECT 1")


@pytest.mark.asyncio
async def test_a_server_that_says_nothing_costs_connect_timeout(driver: str) -> None:
    """A port that accepts and never answers is given up after `connect_timeout`."""
    # The system takes the connection; nobody ever accepts it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgres://u@127.0.0.1:{silent.getsockname()[1]}/x"
        begun = time.monotonic()
        with pytest.raises(ConnectError, match=r"timeout"):
            await open_pool(config_for(address, connect_timeout=0.3, driver=driver))
        assert time.monotonic() - begun < 1.5


# --- secrets


@pytest.mark.asyncio
async def test_a_password_function_is_asked_for_each_connection(
    locked: servers.PostgresServer, driver: str
) -> None:
    """Tokens that expire come from a function, async or not."""
    asked = 0

    async def token() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return "correct horse"

    plain = locked.url.replace(":correct horse", "")
    async with opened_unseen(plain, pool={"min_size": 3}, password=token, driver=driver):
        assert asked == 3
    async with opened_unseen(plain, password=lambda: "correct horse", driver=driver) as pool:
        assert await _one(pool) == 1
    with pytest.raises(ConfigError, match="password function"):
        await open_pool(config_for(plain, password=lambda: 7, driver=driver))


# --- TLS


def test_tls_is_verified_in_full_by_default_off_this_machine(url: str) -> None:
    """Only loopback and sockets are plain without being asked."""
    config = config_for(url)

    assert [tls_mode(config, host) for host in ("db.example.org", "10.1.2.3", "::2")] == ["verify-full"] * 3
    assert [tls_mode(config, host) for host in ("localhost", "127.0.0.9", "::1", "/run/pg")] == [
        "disable"
    ] * 4


@pytest.mark.asyncio
async def test_tls_is_used_and_verified_when_asked_for(locked: servers.PostgresServer, driver: str) -> None:
    """The session is encrypted, and the authority has to be ours."""
    assert locked.certificate is not None
    async with opened(
        locked.url, ssl="verify-full", ssl_root_cert=locked.certificate.authority, driver=driver
    ) as pool:
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            # A cancel request goes over TLS as well.
            with pytest.raises(TimeoutError):
                await connection.fetch("SELECT pg_sleep(30)", timeout=0.05)
        assert await _one(pool) == 1
    async with opened(locked.url, ssl="require", driver=driver) as pool:
        assert await _one(pool) == 1


@pytest.mark.parametrize("fault", ["unknown authority", "wrong host", "expired"])
@pytest.mark.asyncio
async def test_a_certificate_that_does_not_fit_is_refused(fault: str, driver: str, locked: Any) -> None:
    """No connection is made to somebody else."""
    if fault == "unknown authority":
        with pytest.raises(StoreError):
            await open_pool(config_for(locked.url, ssl="verify-full", driver=driver))
        return
    wrong: dict[str, Any] = (
        {"tls_expired": True} if fault == "expired" else {"tls_names": ("elsewhere.example",)}
    )
    with servers.PostgresServer(tls=True, **wrong) as server:
        assert server.certificate is not None
        settings = {"ssl_root_cert": server.certificate.authority, "driver": driver}
        with pytest.raises(StoreError, match=r"(?i)certificate|hostname"):
            await open_pool(config_for(server.url, ssl="verify-full", **settings))
        if fault == "wrong host":  # the weaker mode does not look at the name
            async with opened(server.url, ssl="verify-ca", **settings) as pool:
                assert await _one(pool) == 1


@pytest.mark.asyncio
async def test_a_missing_certificate_file_is_a_config_error(url: str) -> None:
    """The setting is named."""
    with pytest.raises(ConfigError, match="ssl_root_cert"):
        await open_pool(config_for(url, ssl="verify-full", ssl_root_cert=Path("/nowhere/root.crt")))


# --- several hosts


def _address(server: Any) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.mark.asyncio
async def test_of_several_hosts_the_one_that_takes_writes_is_used(
    standby: servers.PostgresServer, url: str, driver: str
) -> None:
    """A dead host and a standby are passed over; `read-write` is the default with several hosts."""
    primary = url.partition("@")[2].partition("/")[0]
    hosts = f"postgres://postgres@127.0.0.1:1,{_address(standby)},{primary}/postgres"
    async with opened(hosts, pool={"min_size": 2}, driver=driver) as pool, pool.acquire() as connection:
        assert await connection.fetchval("SELECT pg_is_in_recovery()") is False


@pytest.mark.asyncio
async def test_a_standby_alone_is_not_enough_for_writes(standby: servers.PostgresServer, driver: str) -> None:
    """The error says what was looked for; with `any` it serves reads."""
    address = f"postgres://postgres@{_address(standby)},127.0.0.1:1/postgres"
    with pytest.raises(UnavailableError):
        await open_pool(config_for(address, driver=driver))
    async with opened_unseen(address, target_session_attrs="prefer-standby", driver=driver) as pool:
        assert await _one(pool) == 1
    async with opened_unseen(standby.url, driver=driver) as pool:
        assert await _one(pool) == 1


@asynccontextmanager
async def opened_unseen(url: str, **settings: Any) -> AsyncIterator[Pool]:
    """Open a pool whose sessions are not counted afterwards."""
    pool = await open_pool(config_for(url, **settings))
    try:
        yield pool
    finally:
        await pool.close()


@pytest.mark.asyncio
async def test_reads_go_to_the_primary_if_no_replica_answers(url: str, driver: str) -> None:
    """`replicas` is a second pool, with the primary as its last resort."""
    async with opened(url, replicas=["127.0.0.1:1"], driver=driver) as pool:
        assert pool.reads is not pool
        async with pool.reads.acquire() as reading:
            assert await reading.fetchval("SELECT pg_is_in_recovery()") is False
    async with opened(url, driver=driver) as pool:
        assert pool.reads is pool


@pytest.mark.asyncio
async def test_a_primary_that_comes_back_as_a_standby_is_left(driver: str, url: str) -> None:
    """After a failover the old primary answers reads and refuses writes: the pool goes to the new one."""
    primary = url.partition("@")[2].partition("/")[0]
    with servers.PostgresServer() as old:
        hosts = f"postgres://postgres@{_address(old)},{primary}/postgres"
        async with opened_unseen(hosts, pool={"max_size": 2}, driver=driver) as pool:
            assert await _port(pool) == old.port
            old.stop()
            demote(old)
            await asyncio.to_thread(old.start)

            async with asyncio.timeout(5):
                while True:
                    try:
                        port = await _port(pool)
                    except Exception:  # the driver's own: the connection broke
                        await asyncio.sleep(0.01)
                    else:
                        break
            assert port != old.port


async def _port(pool: Pool) -> int:
    async with pool.acquire() as connection:
        return int(await connection.fetchval("SELECT inet_server_port()"))


@pytest.mark.asyncio
async def test_a_write_refused_by_a_standby_expires_the_pool(
    standby: servers.PostgresServer, driver: str
) -> None:
    """25006 outside of any read-only transaction: what we took for a primary is none."""
    config = config_for(standby.url, driver=driver, target_session_attrs="any")
    pool = await open_pool(config)
    pool._maintenance._attrs = "read-write"  # it was a primary when the connection was made
    generation = pool.generation

    with pytest.raises(Exception, match=r"read-only|recovery"):
        async with pool.acquire() as connection:
            await connection.execute("CREATE TABLE refused (n int)")

    await until(lambda: pool.generation == generation + 1)
    await pool.close()


# --- poolers


@pytest.mark.asyncio
async def test_a_pool_works_behind_pgbouncer(running_server: Callable[[str], Any], driver: str) -> None:
    """`pooler="transaction"`: no prepared statements, no startup settings, no session state."""
    url = str(running_server("pgbouncer").url)
    async with opened_unseen(url, pooler="transaction", pool={"max_size": 8}, driver=driver) as pool:

        async def use(number: int) -> int:
            async with pool.acquire() as connection:
                if number % 3 == 0:
                    async with connection.transaction():
                        await connection.fetch("SELECT pg_sleep(0.002)")
                        return int(await connection.fetchval("SELECT $1::int8", number))
                return int(await connection.fetchval("SELECT $1::int8", number))

        for _ in range(5):
            assert await asyncio.gather(*(use(n) for n in range(60))) == list(range(60))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), pool.acquire() as connection:
                await connection.fetch("SELECT pg_sleep(30)")
        assert await _one(pool) == 1


@pytest.mark.asyncio
async def test_pgbouncer_in_transaction_mode_without_the_setting_is_a_config_error_that_names_it(
    running_server: Callable[[str], Any], driver: str
) -> None:
    """Not a server that is down: PgBouncer refuses the startup parameters."""
    url = str(running_server("pgbouncer").url)

    with pytest.raises(ConfigError, match='pooler="transaction"'):
        await open_pool(config_for(url, driver=driver))


@pytest.mark.asyncio
async def test_pgbouncer_in_session_mode_needs_no_setting(
    running_server: Callable[[str], Any], driver: str
) -> None:
    """What PgBouncer refuses at the start is SET, and is there again after raw SQL was undone."""
    url = str(running_server("pgbouncer").url).removesuffix("/postgres") + "/session"
    settings = {"server_settings": {"work_mem": "7MB"}, "application_name": "orders", "pool": {"max_size": 4}}
    async with opened(url, driver=driver, **settings) as pool:

        async def read_settings() -> list[Any]:
            async with pool.acquire(dirty=True) as connection:
                names = ("jit", "work_mem", "application_name")
                values = [await connection.fetchval(f"SHOW {name}") for name in names]
                await connection.execute("SET work_mem = '5MB'; SET jit = on")
                return values

        for _ in range(3):
            answers = await asyncio.gather(*(read_settings() for _ in range(8)))
            assert answers == [["off", "7MB", "orders"]] * 8


# --- what people know from asyncpg


@pytest.mark.asyncio
async def test_server_settings_and_classes_are_passed_on(url: str) -> None:
    """server_settings, connection_class, record_class and connect as in asyncpg's create_pool."""

    class MyRecord(asyncpg.Record):
        __slots__ = ()

    class MyConnection(asyncpg.Connection):
        __slots__ = ()

    pool_settings = {"connection_class": MyConnection, "record_class": MyRecord}
    async with opened(url, server_settings={"work_mem": "7MB"}, pool=pool_settings) as pool:
        connection = await pool.acquire()
        assert isinstance(connection, MyConnection)
        assert isinstance(await connection.fetchrow("SELECT 1"), MyRecord)
        assert await connection.fetchval("SHOW work_mem") == "7MB"
        assert await connection.fetchval("SHOW application_name") == pool.config.application_name
        pool.release(connection)


@pytest.mark.asyncio
async def test_the_socket_is_kept_alive(url: str) -> None:
    """A dead peer and a forgetful gateway are noticed."""
    async with opened(url) as pool, pool.acquire() as connection:
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
