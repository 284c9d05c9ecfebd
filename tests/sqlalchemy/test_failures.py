"""Each failure of a MariaDB has its typed error, and the handle serves on afterwards."""

from __future__ import annotations

import asyncio
import contextvars
import secrets
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from isthmus import AsyncDatabase, Record, Transaction, native
from isthmus.errors import (
    AccessError,
    Applied,
    ConfigError,
    ConnectError,
    PoolTimeoutError,
    SerializationError,
    TransactionError,
    UnavailableError,
)
from sqlalchemy import event, text
from tests.servers import server
from tests.stores import discard

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlalchemy")]


@pytest.fixture
def url() -> str:
    """Return the shared MariaDB's URL, or skip."""
    return server("mariadb").url


@pytest_asyncio.fixture
async def admin(url: str) -> AsyncIterator[AsyncEngine]:
    """Return an engine to look at the server from outside."""
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def db(url: str, admin: AsyncEngine) -> AsyncIterator[AsyncDatabase]:
    """Return a handle on a new table, without retries: a test sees what the backend itself says.

    It is in a database of its own, by which `_kill_connections` knows the handle's connections.
    """
    name = f"d_{secrets.token_hex(6)}"
    async with admin.begin() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    own = make_url(url).set(database=name).render_as_string(hide_password=False)
    async with await AsyncDatabase.create("sqlalchemy", {"url": own, "table": "records"}) as handle:
        yield handle
    async with admin.begin() as connection:
        await connection.execute(text(f"DROP DATABASE {name}"))


async def test_a_server_that_is_down_is_a_connect_error() -> None:
    """At once, and not as a record that is not found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(ConnectError) as caught:
        await AsyncDatabase.create("sqlalchemy", {"url": f"mysql+asyncmy://root@127.0.0.1:{port}/test"})

    assert caught.value.transient
    assert caught.value.applied is Applied.NO


async def test_wrong_credentials_and_databases_are_access_errors(url: str) -> None:
    """The password is in no message."""
    place = make_url(url)
    wrong = place.set(username="nobody", password="canary-7319").render_as_string(hide_password=False)
    with pytest.raises(AccessError, match="nobody") as caught:
        await AsyncDatabase.create("sqlalchemy", {"url": wrong})
    assert "canary" not in str(caught.value) + repr(caught.value.__cause__)
    assert not caught.value.transient

    with pytest.raises(AccessError, match="nowhere"):
        await AsyncDatabase.create(
            "sqlalchemy", {"url": place.set(database="nowhere").render_as_string(hide_password=False)}
        )


async def test_a_missing_privilege_is_an_access_error(url: str, admin: AsyncEngine) -> None:
    """Reading is allowed, writing is not."""
    table, user = f"t_{secrets.token_hex(6)}", f"u_{secrets.token_hex(4)}"
    async with await AsyncDatabase.create("sqlalchemy", {"url": url, "table": table}) as db:
        async with admin.begin() as connection:
            await connection.execute(text(f"CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'p'"))
            await connection.execute(text(f"GRANT SELECT ON test.{table} TO {user}@'127.0.0.1'"))
        try:
            theirs = make_url(url).set(username=user, password="p").render_as_string(hide_password=False)
            with pytest.raises(AccessError):
                async with await AsyncDatabase.create(
                    "sqlalchemy", {"url": theirs, "table": table}
                ) as reader:
                    assert await reader.count() == 0
                    await reader.create({"a": 1})
            assert await db.count() == 0
        finally:
            async with admin.begin() as connection:
                await connection.execute(text(f"DROP USER {user}@'127.0.0.1'"))
            await discard(db)


async def test_a_table_of_other_columns_is_refused(url: str, admin: AsyncEngine) -> None:
    """A collection is never laid over somebody else's table."""
    table = f"t_{secrets.token_hex(6)}"
    async with admin.begin() as connection:
        await connection.execute(text(f"CREATE TABLE {table} (id INT, name TEXT)"))
    try:
        with pytest.raises(ConfigError, match="is not ours"):
            await AsyncDatabase.create("sqlalchemy", {"url": url, "table": table})
    finally:
        async with admin.begin() as connection:
            await connection.execute(text(f"DROP TABLE {table}"))


async def test_a_connection_lost_before_the_commit_wrote_nothing(
    db: AsyncDatabase, admin: AsyncEngine
) -> None:
    """The transaction fails as unavailable, surely not applied, and the handle serves on."""
    with pytest.raises(UnavailableError) as caught:
        async with db.transaction() as tx:
            await tx.create({"a": 1})
            await _kill_connections(db, admin)
            await tx.create({"a": 2})

    assert caught.value.transient
    assert caught.value.applied is Applied.NO
    await db.create({"a": 3})
    assert [record["a"] for record in await db.search()] == [3]


async def test_a_lost_answer_to_the_commit_leaves_doubt(db: AsyncDatabase, admin: AsyncEngine) -> None:
    """Whether the write was done cannot be known then, and the error says so."""
    engine = await native.sqlalchemy(db)
    killed = asyncio.Event()

    def kill(connection: object) -> None:
        if not killed.is_set():
            killed.set()
            await_only(_kill_connections(db, admin))

    event.listen(engine.sync_engine, "commit", kill)
    try:
        with pytest.raises(UnavailableError) as caught:
            await db.create(Record({"a": 1}, id="a"))
    finally:
        event.remove(engine.sync_engine, "commit", kill)

    assert killed.is_set()
    assert caught.value.applied is Applied.MAYBE
    assert await db.count() == 0


async def _kill_connections(db: AsyncDatabase, admin: AsyncEngine) -> None:
    """Close the connections of a handle at the server."""
    async with admin.connect() as connection:
        rows = await connection.execute(
            text("SELECT id FROM information_schema.processlist WHERE db = :name"),
            {"name": (await native.sqlalchemy(db)).url.database},
        )
        for (number,) in rows.all():
            await connection.execute(text(f"KILL CONNECTION {int(number)}"))


async def test_a_deadlocks_victim_is_run_again(db: AsyncDatabase) -> None:
    """Two transactions that lock two records crosswise: `run` runs the victim again, and both arrive."""
    await db.create_batch([Record({"n": 0}, id="a"), Record({"n": 0}, id="b")])
    met = asyncio.Barrier(2)
    runs = 0

    async def add(first: str, second: str) -> None:
        async def body(tx: Transaction) -> None:
            nonlocal runs
            runs += 1
            await _raise(tx, first)
            if runs <= 2:
                await met.wait()
            await _raise(tx, second)

        await db.run(body)

    await asyncio.gather(add("a", "b"), add("b", "a"))

    assert runs > 2
    assert [record["n"] for record in await db.search()] == [2, 2]


async def test_a_deadlocks_victim_cannot_go_on(db: AsyncDatabase) -> None:
    """The server has undone all of it: going on would commit the rest without the beginning."""
    await db.create_batch([Record({"n": 0}, id="a"), Record({"n": 0}, id="b")])
    met = asyncio.Barrier(2)

    async def cross(first: str, second: str) -> None:
        async with db.transaction() as tx:
            await _raise(tx, first)
            await met.wait()
            try:
                await _raise(tx, second)
            except SerializationError:
                with pytest.raises(TransactionError, match="undone"):
                    await tx.create({"n": 9})

    answers = await asyncio.gather(cross("a", "b"), cross("b", "a"), return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]

    assert [type(error) for error in errors] == [SerializationError]
    assert [record["n"] for record in await db.search()] == [1, 1]


async def _raise(tx: Transaction, name: str) -> None:
    record = await tx.get(name, for_update=True)
    assert record is not None
    await tx.update(name, {"n": record["n"] + 1})


async def test_a_full_pool_is_told_as_such(url: str) -> None:
    """After pool.timeout, as a reason to wait."""
    settings = {
        "url": url,
        "table": f"t_{secrets.token_hex(6)}",
        "pool": {"size": 1, "max_overflow": 0, "timeout": 0.2},
    }
    async with await AsyncDatabase.create("sqlalchemy", settings) as db:
        async with db.transaction() as tx:
            await tx.create({"a": 1})
            with pytest.raises(PoolTimeoutError):
                await asyncio.create_task(db.count(), context=contextvars.Context())
        assert await db.count() == 1
        await discard(db)
