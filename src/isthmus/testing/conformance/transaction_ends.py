"""Ends of transactions: cancelled, with calls of other tasks under way, or with savepoints still open."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from isthmus import AsyncDatabase, Record, Transaction
from isthmus.errors import ClosedError, IsthmusError, TransactionError, UsageError
from isthmus.testing.conformance._fixtures import id_set, requires, store


async def _write_nested(db: AsyncDatabase, reached: asyncio.Event) -> None:
    async with db.transaction() as tx:
        await tx.upsert("outer", {"n": 1})
        async with tx.savepoint():
            await tx.upsert("inner", {"n": 1})
            async with db.transaction():
                await db.collection(db.collection_name).upsert("innermost", {"n": 1})
                reached.set()


async def _wait_until_unused(db: AsyncDatabase) -> None:
    async with asyncio.timeout(20):
        while db.stats().pool.in_use:  # noqa: ASYNC110 - a pool's figures have no event
            await asyncio.sleep(0.01)


@requires("transactions", "savepoints")
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.asyncio
async def test_a_cancelled_transaction_ends_after_its_savepoints(db: AsyncDatabase, times: int) -> None:
    """Wherever and however often it is cancelled: all of it is stored or none, nothing stays in use."""
    names = id_set("outer inner innermost")
    await _write_nested(db, asyncio.Event())
    await db.clear()

    for turns in range(24):
        reached = asyncio.Event()
        task = asyncio.create_task(_write_nested(db, reached))
        await reached.wait()
        for _ in range(turns % 12):
            await asyncio.sleep(0)
        for _ in range(times):
            task.cancel()
            if turns >= 12:
                await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await task  # any other error is a failure of this test
        await _wait_until_unused(db)
        assert {r.id for r in await db.search()} in (set(), names)
        await db.clear()


@requires("transactions")
@pytest.mark.asyncio
async def test_a_call_under_way_ends_before_its_transaction(db: AsyncDatabase) -> None:
    """A batch that another task has begun is part of what is committed; a later call is refused."""
    for turns in range(6):
        async with db.transaction() as tx:
            await tx.create(Record({"n": 0}, id="first"))
            batch = asyncio.create_task(tx.create_batch([{"n": n} for n in range(60)]))
            for _ in range(turns):
                await asyncio.sleep(0)

        try:
            await batch
            expected = 61
        except ClosedError:
            expected = 1
        assert await db.count() == expected
        assert turns == 0 or expected == 61
        await db.clear()


@requires("transactions")
@pytest.mark.asyncio
async def test_a_call_under_way_is_rolled_back_with_its_transaction(db: AsyncDatabase) -> None:
    """It ends first; nothing of it is stored afterwards."""
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as tx:
            batch = asyncio.create_task(tx.create_batch([{"n": n} for n in range(60)]))
            await asyncio.sleep(0)
            raise ZeroDivisionError

    await batch
    assert await db.count() == 0


class _OpenSavepoint:
    """A task with a savepoint, in which it has written a record; it leaves the savepoint in `end`."""

    def __init__(self, tx: Transaction, id: str) -> None:
        self._has_written, self._until = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._run(tx, id))

    async def _run(self, tx: Transaction, id: str) -> None:
        async with tx.savepoint():
            await tx.upsert(id, {"n": 1})
            self._has_written.set()
            await self._until.wait()

    async def wait(self) -> None:
        await self._has_written.wait()

    async def end(self) -> None:
        self._until.set()
        await self._task


@requires("transactions", "savepoints")
@pytest.mark.asyncio
async def test_a_transaction_is_not_committed_while_a_savepoint_is_open(db: AsyncDatabase) -> None:
    """All of it is rolled back, since the savepoint's block may still fail; the block learns it too."""
    with pytest.raises(UsageError, match="savepoint"):
        async with db.transaction() as tx:
            await tx.upsert("outer", {"n": 1})
            inner = _OpenSavepoint(tx, "inner")
            await inner.wait()

    with pytest.raises(ClosedError):
        await inner.end()
    assert await db.count() == 0


@requires("transactions", "savepoints")
@pytest.mark.asyncio
async def test_savepoints_end_in_the_reverse_order(db: AsyncDatabase) -> None:
    """A savepoint that ends before one inside it is rolled back with that; the transaction goes on."""
    async with db.transaction() as tx:
        await tx.upsert("outer", {"n": 1})
        outer = _OpenSavepoint(tx, "a")
        await outer.wait()
        inner = _OpenSavepoint(tx, "b")
        await inner.wait()
        with pytest.raises(UsageError, match="savepoint"):
            await outer.end()
        with pytest.raises(ClosedError):
            await inner.end()
        await tx.upsert("later", {"n": 1})

    assert {r.id for r in await db.search()} == id_set("outer later")


@requires("transactions")
@pytest.mark.asyncio
async def test_a_commit_after_a_cancelled_call_is_whole_or_an_error(db: AsyncDatabase) -> None:
    """A store that rolls back at such a failure says so at the commit: it never looks like a success."""
    await store(db, {f"{n:03}": {"n": n, "text": "x" * 500} for n in range(200)})

    for turns in range(12):
        id = f"new-{turns}"
        committed = True
        try:
            async with db.transaction() as tx:
                await tx.create(Record({"n": turns}, id=id))
                call = asyncio.create_task(tx.update_batch({f"{n:03}": {"n": -turns} for n in range(200)}))
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                with contextlib.suppress(asyncio.CancelledError, IsthmusError):
                    await call
        except TransactionError:
            committed = False
        assert await db.exists(id) is committed
    await _wait_until_unused(db)
