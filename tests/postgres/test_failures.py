"""Each failure has its typed error that says what to do, and the handle serves on afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import isthmus.native
from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import (
    AccessError,
    Applied,
    ConnectError,
    DeadlineError,
    RateLimitedError,
    UnavailableError,
)
from tests import servers
from tests.postgres.databases import connected, fresh_name, opened, url

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    """Return each driver in turn."""
    return str(request.param)


async def test_a_server_that_is_down_is_a_connect_error(driver: str) -> None:
    """At once, and not as a record that is not found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"host": "127.0.0.1", "port": port, "driver": driver, "pool": {"timeout": 3}}

    with pytest.raises(ConnectError) as caught:
        await AsyncDatabase.create("postgres", settings)

    assert caught.value.transient


async def test_a_role_that_does_not_exist_is_an_access_error(driver: str) -> None:
    """psycopg tells it by libpq's text only."""
    address = url().replace("postgres@", "nobody_7319@")

    with pytest.raises(AccessError, match="nobody_7319"):
        await AsyncDatabase.create("postgres", {"url": address, "driver": driver})


async def test_wrong_credentials_and_databases_are_access_errors(driver: str) -> None:
    """The password is in no message."""
    with servers.PostgresServer(password="the-right-one") as server:
        place = {"host": "127.0.0.1", "port": server.port, "user": "postgres", "driver": driver}
        with pytest.raises(AccessError, match="password") as caught:
            await AsyncDatabase.create("postgres", {**place, "password": "canary-7319"})
        assert "canary" not in str(caught.value) + repr(caught.value.__cause__)
        with pytest.raises(AccessError, match="nowhere"):
            await AsyncDatabase.create(
                "postgres", {**place, "password": "the-right-one", "database": "nowhere"}
            )

        async def token() -> str:
            return "the-right-one"

        db = await AsyncDatabase.create("postgres", {**place, "password": token})
        assert await db.count() == 0
        await db.close()


async def test_a_full_server_is_told_as_such(driver: str) -> None:
    """Too many connections is a reason to wait, and it passes."""
    with servers.PostgresServer(config={"max_connections": 4, "superuser_reserved_connections": 1}) as server:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(connected(server.url))
            with pytest.raises(RateLimitedError, match=r"too many clients|max_connections|remaining"):
                await AsyncDatabase.create(
                    "postgres", {"url": server.url, "driver": driver, "pool": {"timeout": 1}}
                )
        db = await AsyncDatabase.create("postgres", {"url": server.url, "driver": driver})
        assert await db.create({"a": 1})
        await db.close()


@contextlib.asynccontextmanager
async def _locked(db: AsyncDatabase, id: str) -> AsyncIterator[Any]:
    """Hold a lock on one record from outside."""
    async with connected() as outside, outside.transaction():
        await outside.execute(f"SELECT 1 FROM {db.collection_name} WHERE id = $1 FOR UPDATE", id)
        yield outside


async def test_a_statement_that_takes_too_long_is_a_deadline_error(driver: str) -> None:
    """By the server's clock nothing was changed, by ours it may have been; the pool serves on."""
    for settings, applied in (
        ({"server_settings": {"statement_timeout": "80"}}, Applied.NO),
        ({"command_timeout": 0.08}, Applied.MAYBE),
    ):
        async with opened(driver=driver, **settings) as db:
            await db.create(Record({"n": 1}, id="x"))
            async with _locked(db, "x"):
                with pytest.raises(DeadlineError) as caught:
                    await db.update("x", {"n": 2})
            assert caught.value.applied is applied
            if applied is Applied.NO:
                assert (await db.require("x")).data == {"n": 1}
            await db.update("x", {"n": 3})


async def test_a_read_only_server_refuses_writes_as_unavailable(driver: str) -> None:
    """After a failover a standby answers reads; the error says that it is read-only."""
    async with opened() as there:
        await there.create(Record({"n": 1}, id="x"))
        db = await AsyncDatabase.create(
            "postgres",
            {
                "url": url(),
                "table": there.collection_name,
                "driver": driver,
                "server_settings": {"default_transaction_read_only": "on"},
            },
        )

        with pytest.raises(UnavailableError, match="read-only") as caught:
            await db.update("x", {"n": 2})

        assert caught.value.applied is Applied.NO
        assert (await db.require("x")).data == {"n": 1}
        await db.close()


async def test_a_column_that_changes_under_a_prepared_statement_is_met_with_a_new_one(driver: str) -> None:
    """DDL by others breaks cached plans; callers see nothing of it."""
    async with opened(driver=driver, merge=False) as db:

        async def all_verbs() -> None:
            ids = await db.create_batch([{"n": n} for n in range(150)])
            for _ in range(8):
                assert await db.get(ids[0]) is not None
            assert len(await db.search(field("n") == 7)) >= 1
            await db.update(ids[0], {"m": 1})
            await db.upsert_batch([Record({"k": 1}, id=id) for id in ids])

        await all_verbs()
        for change in ("id TYPE varchar(600)", "metadata TYPE json", "metadata TYPE jsonb", "id TYPE text"):
            async with connected() as outside:
                await outside.execute(f"ALTER TABLE {db.collection_name} ALTER COLUMN {change}")
            if "json" not in change:
                await all_verbs()


async def test_a_session_that_is_ended_leaves_a_doubt_only_about_writes(driver: str) -> None:
    """A write cut off in the middle is `applied=MAYBE`; what comes next is served."""
    name = fresh_name()
    async with opened(driver=driver, application_name=name) as db:
        await db.create(Record({"n": 1}, id="x"))
        async with _locked(db, "x") as outside:
            writing = asyncio.create_task(db.update("x", {"n": 2}))
            ended = 0
            while not ended:
                ended = await outside.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE application_name = $1 AND wait_event_type = 'Lock'",
                    name,
                )
                await asyncio.sleep(0.005)
            with pytest.raises(UnavailableError) as caught:
                await writing
        assert caught.value.applied is Applied.MAYBE
        assert caught.value.transient

        assert (await db.require("x")).data == {"n": 1}
        await db.update("x", {"n": 3})


async def test_idle_sessions_that_are_ended_are_replaced(driver: str) -> None:
    """After a restart of the server the pool notices closed sockets before it hands them out."""
    name = fresh_name()
    async with opened(driver=driver, application_name=name, pool={"min_size": 3, "max_size": 5}) as db:
        async with connected() as outside:
            await outside.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", name
            )
            while await outside.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name
            ):
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # the sockets' end has to be read by this loop

        ids = await asyncio.gather(*(db.create({"n": n}) for n in range(20)))

        assert len(set(ids)) == 20


async def test_handles_with_other_settings_do_not_share_a_pool() -> None:
    """Sizes, secrets and session settings make another pool; table and indexes do not."""
    async with opened() as one, opened() as two:
        assert await one._backend.native() is await two._backend.native()
        for settings in (
            {"pool": {"max_size": 3}},
            {"password": "else"},
            {"command_timeout": 9.0},
            {"server_settings": {"work_mem": "8MB"}},
        ):
            async with opened(**settings) as other:
                assert await other._backend.native() is not await one._backend.native()


async def test_all_verbs_work_behind_a_transaction_pooler() -> None:
    """PgBouncer gives each transaction another session; nothing of ours needs the same one."""
    address = servers.server("pgbouncer").url
    async with opened(address, pooler="transaction", indexes=["n"]) as db:
        ids = await db.create_batch([{"n": n} for n in range(3_000)])
        await db.upsert_batch([Record({"n": -n}, id=id) for n, id in enumerate(ids)])
        assert await db.count(field("n") < 0) == 2_999
        assert len([r async for r in db.stream(page_size=500)]) == 3_000
        assert len([r async for r in db.stream(consistent=True, page_size=500)]) == 3_000
        async with db.transaction() as tx:
            await tx.update(ids[0], {"n": "x"})
            async with tx.savepoint():
                await tx.delete(ids[1])
        assert await asyncio.gather(*(db.get(id) for id in ids[:50])) == await db.get_batch(ids[:50])
        assert await db.delete_batch(ids) == [True, False, *[True] * 2_998]


async def test_statements_that_the_server_forgot_are_prepared_again(driver: str) -> None:
    """`DEALLOCATE ALL`, which raw SQL or a pooler runs, costs a connection and no call."""
    async with opened(driver=driver, pool={"max_size": 1}) as db:
        native = await isthmus.native.postgres(db)

        async def forget() -> None:
            async with native.acquire() as connection:
                # In a function, as the driver would notice the plain statement.
                await connection.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")

        async def stream() -> None:
            async with db.stream(Query(), consistent=True) as records:
                assert [record async for record in records]

        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: db.upsert("x", {"n": 1}),
            lambda: db.get("x"),
            lambda: db.search(field("n") == 1),
            db.count,
            lambda: db.update_batch([("x", {"m": 1})] * 2),
            lambda: db.create_batch([{"n": n} for n in range(150)]),
            lambda: db.aggregate(n="count"),
            lambda: db.delete_where(field("n") == 7),
            stream,
        ]
        for call in calls:
            await call()
            await forget()
            await call()
            await call()


async def test_a_transaction_whose_statements_are_gone_is_run_again(driver: str) -> None:
    """Inside a transaction nothing can be repeated but the whole."""
    async with opened(driver=driver, pool={"max_size": 1}) as db:
        await db.create(Record({"n": 1}, id="x"))
        native = await isthmus.native.postgres(db)
        for _ in range(2):
            await db.run(lambda tx: tx.require("x"))
        await native.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")

        found = await db.run(lambda tx: tx.require("x"))

    assert found.data == {"n": 1}
