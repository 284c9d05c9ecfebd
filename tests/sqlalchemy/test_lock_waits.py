"""A lock that MariaDB does not grant in time undoes the transaction; `run` repeats before its deadline."""

from __future__ import annotations

import asyncio
import contextvars
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

import isthmus.native
from isthmus import AsyncDatabase, Record, Transaction
from isthmus.errors import DeadlineError, SerializationError
from sqlalchemy import text
from tests.servers import server
from tests.stores import discard

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlalchemy")]


@pytest_asyncio.fixture
async def db() -> AsyncIterator[AsyncDatabase]:
    """Return a handle on a new table of MariaDB that waits for a lock for the least time: 1 s."""
    settings = {"url": server("mariadb").url, "table": f"t_{secrets.token_hex(6)}", "deadline": 5}
    async with await AsyncDatabase.create("sqlalchemy", settings) as handle:
        await handle.create_batch([Record({"n": 0}, id="a"), Record({"n": 0}, id="b")])
        yield handle
        await discard(handle)


@pytest.mark.parametrize(("deadline", "seconds"), [(None, 10), (30, 10), (7.5, 2), (2, 1)])
async def test_the_wait_for_a_lock_ends_before_the_deadline(deadline: float | None, seconds: int) -> None:
    """The server's own 50 s would outlast the deadline, and `run` could repeat nothing."""
    settings = {"url": server("mariadb").url, "table": f"t_{secrets.token_hex(6)}", "deadline": deadline}
    async with await AsyncDatabase.create("sqlalchemy", settings) as db:
        async with db.transaction() as tx:
            connection = tx._own.executor.native  # type: ignore[attr-defined]
            row = await connection.execute(text("SELECT @@innodb_lock_wait_timeout"))

            assert row.scalar_one() == seconds
        await discard(db)


async def _run_while_another_holds_b(
    db: AsyncDatabase, change: Callable[[Transaction, int], Awaitable[None]]
) -> int:
    """Run a change, given its attempt's number, while another transaction holds `b` until the second attempt.

    Returns the number of attempts.
    """
    held, attempts = asyncio.Event(), 0

    async def hold() -> None:
        async with db.transaction() as tx:
            await tx.update("b", {"n": 10})
            held.set()
            while attempts < 2:
                await asyncio.sleep(0.01)

    async def work(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await change(tx, attempts)

    holder = asyncio.create_task(hold(), context=contextvars.Context())
    await held.wait()
    await db.run(work)
    await holder
    return attempts


async def test_run_repeats_after_a_lock_was_not_granted(db: AsyncDatabase) -> None:
    """Of the attempt whose second lock was not granted, nothing is left; the next one commits."""

    async def change(tx: Transaction, attempt: int) -> None:
        n = (await tx.require("a"))["n"]
        await tx.update("a", {"n": n + 1})
        await tx.update("b", {"m": attempt})

    assert await _run_while_another_holds_b(db, change) == 2
    assert [record.data for record in await db.search()] == [{"n": 1}, {"n": 10, "m": 2}]


async def test_run_repeats_after_sql_was_not_granted_a_lock(db: AsyncDatabase) -> None:
    """SQL of the user raises the driver's error, which says the same."""
    statement = text(f"UPDATE {db.collection_name} SET data = data WHERE `key` = hex('b')")

    async def change(tx: Transaction, attempt: int) -> None:
        await tx.update("a", {"n": attempt})
        await (await isthmus.native.sqlalchemy(tx)).execute(statement)

    assert await _run_while_another_holds_b(db, change) == 2
    assert [record.data for record in await db.search()] == [{"n": 2}, {"n": 10}]


async def test_a_transaction_whose_lock_was_not_granted_is_undone(db: AsyncDatabase) -> None:
    """MariaDB undoes the statement only: committing the rest would be half of the transaction."""
    held, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with db.transaction() as tx:
            await tx.update("b", {"n": 10})
            held.set()
            await done.wait()

    holder = asyncio.create_task(hold(), context=contextvars.Context())
    await held.wait()
    with pytest.raises(SerializationError):
        async with db.transaction() as tx:
            await tx.update("a", {"n": 1})
            with pytest.raises(SerializationError, match="undone"):
                await tx.update("b", {"n": 1})
    with pytest.raises(DeadlineError):  # a write outside a transaction has nothing to repeat
        await db.update("b", {"n": 2})
    done.set()
    await holder

    assert [record["n"] for record in await db.search()] == [0, 10]
