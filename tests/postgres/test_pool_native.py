"""The pool in the user's hands: asyncpg's calls on the database's pool, and no trace of them afterwards."""

from __future__ import annotations

import asyncio
import io
import uuid
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

import isthmus
import isthmus.native
from isthmus.backends.postgres.pool.native import NativePool
from isthmus.errors import AccessError, ClosedError, PoolTimeoutError, UsageError
from tests import servers
from tests.postgres.pools import opened, until

pytestmark = pytest.mark.backend("postgres")


@pytest.fixture
def url(running_server: Callable[[str], Any]) -> str:
    return str(running_server("postgres").url)


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def native(url: str, driver: str) -> AsyncIterator[NativePool]:
    """A native pool with a table of numbers, in a schema of the test's own."""
    schema = f"native_{uuid.uuid4().hex[:12]}"
    settings = {"search_path": schema}
    async with opened(url, pool={"max_size": 2}, driver=driver, server_settings=settings) as pool:
        made = NativePool(pool)
        await made.execute(f"CREATE SCHEMA {schema}; CREATE TABLE numbers (n bigint, word text)")
        yield made
        await made.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.mark.asyncio
async def test_statements_run_as_on_an_asyncpg_pool(native: NativePool) -> None:
    """execute, executemany, fetch, fetchrow, fetchval and fetchmany, with `$1` and statuses."""
    assert await native.execute("INSERT INTO numbers VALUES ($1, $2)", 1, "one") == "INSERT 0 1"
    await native.executemany("INSERT INTO numbers VALUES ($1, $2)", [(2, "two"), (3, "three")])

    rows = await native.fetch("SELECT n, word FROM numbers WHERE n > $1 ORDER BY n", 1)
    row = await native.fetchrow("SELECT n, word FROM numbers WHERE n = $1", 3)
    many = await native.fetchmany("SELECT word FROM numbers WHERE n = $1", [(1,), (3,), (9,)])

    assert [(r["n"], r[1]) for r in rows] == [(2, "two"), (3, "three")]
    assert row is not None
    assert dict(row.items()) == {"n": 3, "word": "three"}
    assert await native.fetchrow("SELECT 1 WHERE false") is None
    assert await native.fetchval("SELECT n, word FROM numbers WHERE n = 2", column=1) == "two"
    assert [r[0] for r in many] == ["one", "three"]


@pytest.mark.asyncio
async def test_executemany_is_all_or_nothing(native: NativePool) -> None:
    """One bad item undoes the others."""
    with pytest.raises(Exception, match=r"bigint|int8|integer|argument|expected"):
        await native.executemany("INSERT INTO numbers VALUES ($1, $2)", [(1, "a"), ("no number", "b")])

    assert await native.fetchval("SELECT count(*) FROM numbers") == 0


@pytest.mark.asyncio
async def test_copy_goes_both_ways(native: NativePool, tmp_path: Any) -> None:
    """COPY of records, tables and queries, with files, paths, coroutine functions and generators."""

    async def later() -> AsyncIterator[tuple[int, str]]:
        for number in range(100, 103):
            yield number, f"a\t{number}\\"

    assert await native.copy_records_to_table("numbers", records=((n, None) for n in range(3))) == "COPY 3"
    await native.copy_records_to_table("numbers", records=later(), columns=["n", "word"])
    path = tmp_path / "numbers.csv"
    assert await native.copy_from_table("numbers", output=path, format="csv", header=True) == "COPY 6"
    await native.execute("TRUNCATE numbers")
    assert await native.copy_to_table("numbers", source=path, format="csv", header=True) == "COPY 6"

    buffer = io.BytesIO()
    await native.copy_from_query(
        "SELECT n, word FROM numbers WHERE n >= $1 AND word <> $2 ORDER BY n", 101, "it's", output=buffer
    )
    chunks: list[bytes] = []

    async def take(chunk: bytes) -> None:
        chunks.append(bytes(chunk))

    await native.copy_from_query("SELECT 1", output=take)

    assert buffer.getvalue() == b"101\ta\\t101\\\\\n102\ta\\t102\\\\\n"
    assert b"".join(chunks) == b"1\n"


@pytest.mark.asyncio
async def test_a_connection_has_transactions_savepoints_and_cursors(native: NativePool) -> None:
    """What people do with an acquired connection."""
    async with native.acquire(timeout=5) as connection:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.executemany("INSERT INTO numbers VALUES ($1)", [(n,) for n in range(10)])
            with pytest.raises(ZeroDivisionError):
                async with connection.transaction():
                    await connection.execute("DELETE FROM numbers")
                    raise ZeroDivisionError
            numbers = [row[0] async for row in connection.cursor("SELECT n FROM numbers ORDER BY n")]
            cursor = await connection.cursor("SELECT n FROM numbers WHERE n < $1 ORDER BY n", 8)
            assert [row[0] for row in await cursor.fetch(3)] == [0, 1, 2]
            assert await cursor.forward(2) == 2
            assert (await cursor.fetchrow())[0] == 5
            assert await connection.fetchval("SHOW transaction_isolation") == "repeatable read"
        assert not connection.is_in_transaction()

    assert numbers == list(range(10))


@pytest.mark.asyncio
async def test_what_was_given_back_cannot_be_used(native: NativePool) -> None:
    """A connection in old hands would disturb its next user."""
    connection = await native.acquire()
    await native.release(connection)
    native.release(connection)

    with pytest.raises((UsageError, asyncpg.InterfaceError), match="released"):
        await connection.fetchval("SELECT 1")


@pytest.mark.asyncio
async def test_acquire_has_a_timeout_of_its_own(native: NativePool) -> None:
    """As asyncpg's users write it; the default is the config's."""
    async with native.acquire(), native.acquire():
        with pytest.raises(PoolTimeoutError):
            await native.acquire(timeout=0.02)


@pytest.mark.asyncio
async def test_the_pool_is_read_and_changed(native: NativePool, driver: str) -> None:
    """Sizes, expiry and connection arguments."""
    async with native.acquire(), native.acquire():
        assert (native.get_size(), native.get_idle_size()) == (2, 0)
        assert (native.get_min_size(), native.get_max_size()) == (0, 2)
    await until(lambda: native.get_idle_size() == 2)
    if driver == "asyncpg":
        native.set_connect_args(server_settings={"application_name": "renamed"})
    else:
        native.set_connect_args(application_name="renamed", options="")

    await native.expire_connections()

    assert await native.fetchval("SHOW application_name") == "renamed"
    assert not native.is_closing()
    await native.drain(5)


@pytest.mark.asyncio
async def test_codecs_and_listeners_of_raw_sql_do_not_stay(url: str) -> None:
    """A type codec set by a user would change what our own statements read."""
    async with opened(url, pool={"max_size": 1}) as pool:
        native = NativePool(pool)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", asyncpg.InterfaceWarning)  # that a listener was left
            async with native.acquire() as connection:
                assert isinstance(connection, asyncpg.Connection)
                await connection.set_type_codec("jsonb", encoder=str, decoder=len, schema="pg_catalog")
                await connection.add_listener("channel", print)
                connection.add_query_logger(print)
                assert await connection.fetchval("SELECT '[1]'::jsonb") == 3

        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT '[1]'::jsonb") == "[1]"


@pytest.mark.asyncio
async def test_ddl_by_raw_sql_is_repaired_for_all(url: str) -> None:
    """asyncpg repeats a statement whose plan is stale, and the other connections are replaced."""
    async with opened(url, pool={"max_size": 2}) as pool:
        native = NativePool(pool)
        await native.execute("DROP TABLE IF EXISTS moving; CREATE TABLE moving (a int)")
        async with native.acquire() as one, native.acquire() as two:
            await one.fetch("SELECT * FROM moving")
            await two.execute("ALTER TABLE moving ADD b int")
            assert await one.fetch("SELECT * FROM moving") == []
        generation = pool.generation
        await native.execute("DROP TABLE moving")

    assert generation == 1


@pytest.mark.asyncio
async def test_the_native_pool_of_a_database_is_its_own(url: str, driver: str) -> None:
    """`isthmus.native.postgres(db)` shares pool and transaction semantics with the handle."""
    table = f"native_{driver}"
    database = await isthmus.AsyncDatabase.create("postgres", {"url": url, "table": table, "driver": driver})
    try:
        native = await isthmus.native.postgres(database)
        id = await database.create(isthmus.Record({"n": 1}))
        assert await native.fetchval(f"SELECT count(*) FROM {table} WHERE id = $1", id) == 1
        await asyncio.gather(*(native.execute("SET work_mem = '13MB'") for _ in range(20)))
        assert (await database.get(id)) is not None
        await native.execute(f"DROP TABLE {table}")
    finally:
        await database.close()
    assert native.is_closing()


@pytest.mark.asyncio
async def test_a_program_for_asyncpg_s_pool_runs(url: str) -> None:
    """With create_pool's arguments as settings, and the pool's life as asyncpg has it."""
    calls: list[str] = []

    def hook(name: str) -> Any:
        async def call(connection: Any) -> None:
            calls.append(name)

        return call

    class MyRecord(asyncpg.Record):
        __slots__ = ()

    hooks = {name: hook(name) for name in ("init", "setup", "reset")}
    settings = {"min_size": 1, "max_size": 2, "max_inactive_connection_lifetime": 0, **hooks}
    database = await isthmus.AsyncDatabase.open(url, {"table": "native_program", **settings})
    async with await isthmus.native.postgres(database) as pool:
        assert await pool is pool
        assert pool._pool.config.pool.max_idle is None
        calls.clear()
        assert isinstance((await pool.fetch("SELECT 1", record_class=MyRecord))[0], MyRecord)
        assert isinstance(await pool.fetchrow("SELECT 1", record_class=MyRecord), MyRecord)
        assert isinstance(
            (await pool.fetchmany("SELECT $1::int", [(1,)], record_class=MyRecord))[0], MyRecord
        )
        await until(lambda: calls.count("reset") == 3)
        assert calls.count("setup") == 3
    with pytest.raises(asyncpg.InterfaceError, match="closed") as refused:
        await pool.fetch("SELECT 1")
    assert isinstance(refused.value, ClosedError)
    with pytest.raises(ClosedError):
        await database.count()


@pytest.mark.asyncio
async def test_terminating_the_native_pool_ends_its_handle_and_leaves_others(url: str) -> None:
    settings = {"url": url, "table": "native_program"}
    async with await isthmus.AsyncDatabase.create("postgres", settings) as other:
        database = await isthmus.AsyncDatabase.create("postgres", settings)
        pool = await isthmus.native.postgres(database)
        pool.terminate()
        with pytest.raises(asyncpg.InterfaceError):
            await pool.acquire()
        assert await (await isthmus.native.postgres(other)).fetchval("SELECT 1") == 1


@pytest.mark.asyncio
async def test_errors_of_acquire_are_the_driver_s_too(url: str) -> None:
    """The password changes while a handle is open."""
    with servers.PostgresServer(password="first") as server:
        async with await isthmus.AsyncDatabase.open(server.url) as database:
            pool = await isthmus.native.postgres(database)
            await pool.execute("ALTER USER postgres PASSWORD 'second'")
            await pool.expire_connections()
            with pytest.raises(asyncpg.InvalidPasswordError) as refused:
                await pool.acquire()
    assert isinstance(refused.value, AccessError)
