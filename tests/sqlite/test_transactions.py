"""Transactions: all or nothing, one writer at a time in order of arrival, readers beside it."""

from __future__ import annotations

import asyncio

import pytest

from isthmus._core.executor import Mutation, PageRequest, TransactionOptions, WriteKind
from isthmus._query.ast import TRUE
from isthmus.backends.sqlite.backend import SQLiteBackend
from isthmus.errors import (
    ClosedError,
    PoolTimeoutError,
    TransactionError,
    UnsupportedError,
    UsageError,
)
from tests.sqlite.conftest import Opener

pytestmark = [pytest.mark.backend("sqlite"), pytest.mark.asyncio]
R = "records"
READ_WRITE, READ_ONLY = TransactionOptions(), TransactionOptions(read_only=True)


async def _create(executor: SQLiteBackend, *ids: str) -> None:
    results = await executor.write(R, WriteKind.CREATE, [Mutation(id, {}) for id in ids], atomic=True)
    assert results == list(ids)


async def _ids(executor: SQLiteBackend) -> list[str | None]:
    page = await executor.fetch(R, PageRequest(TRUE, (), 100))
    return [record.id for record in page.records]


class Oops(Exception):
    """What a test raises to leave a block."""


@pytest.mark.parametrize("path", ["d.db", ":memory:"])
async def test_a_failed_transaction_leaves_nothing(opened: Opener, tmp_path, path: str) -> None:
    """It sees its own writes, others do not; an exception undoes all, a collection made in it too."""
    backend = await opened(path=path if path == ":memory:" else str(tmp_path / path))
    await _create(backend, "a")

    with pytest.raises(Oops):
        async with backend.begin(READ_WRITE) as tx:
            await _create(tx, "b")
            await tx.write("others", WriteKind.CREATE, [Mutation("o", {})], atomic=True)
            assert await _ids(tx) == ["a", "b"]
            raise Oops

    assert await _ids(backend) == ["a"]
    assert await backend.collections() == [R]
    await backend.write("others", WriteKind.CREATE, [Mutation("o", {})], atomic=True)
    assert await backend.collections() == ["others", R]


async def test_readers_see_the_last_commit_while_a_transaction_writes(opened: Opener) -> None:
    """WAL: nobody waits for the writer to read."""
    backend = await opened()

    async with backend.begin(READ_WRITE) as tx:
        await _create(tx, "a")
        assert await asyncio.wait_for(_ids(backend), 1) == []

    assert await _ids(backend) == ["a"]


async def test_savepoints_undo_their_part_only(opened: Opener) -> None:
    """Nested: the inner one goes, the outer one stays."""
    backend = await opened()

    async with backend.begin(READ_WRITE) as tx:
        await _create(tx, "a")
        async with tx.savepoint():
            await _create(tx, "b")
            with pytest.raises(Oops):
                async with tx.savepoint():
                    await _create(tx, "c")
                    raise Oops
        with pytest.raises(Oops):
            async with tx.savepoint():
                await _create(tx, "d")
                raise Oops

    assert await _ids(backend) == ["a", "b"]


async def test_a_failed_atomic_batch_in_a_transaction_undoes_itself_alone(opened: Opener) -> None:
    """The transaction goes on after it."""
    backend = await opened()

    async with backend.begin(READ_WRITE) as tx:
        await _create(tx, "a")
        results = await tx.write(R, WriteKind.CREATE, [Mutation("b", {}), Mutation("a", {})], atomic=True)
        assert not any(isinstance(result, str) for result in results)
        results = await tx.write(
            R, WriteKind.DELETE, [Mutation("a"), Mutation("z", None, None, "1")], atomic=True
        )
        assert not any(isinstance(result, bool) for result in results)
        await _create(tx, "c")

    assert await _ids(backend) == ["a", "c"]


async def test_writers_get_their_turn_in_order(opened: Opener) -> None:
    """Other tasks' writes wait for the transaction, and come after it as they asked."""
    backend = await opened()
    order: list[str] = []

    async def writer(name: str) -> None:
        await _create(backend, name)
        order.append(name)

    async def transaction(name: str) -> None:
        async with backend.begin(READ_WRITE) as tx:
            await _create(tx, name)
            await asyncio.sleep(0)
        order.append(name)

    async with backend.begin(READ_WRITE) as tx:
        waiting = []
        for number in range(10):
            kind = transaction if number % 3 == 1 else writer
            waiting.append(asyncio.create_task(kind(f"w{number}")))
            await asyncio.sleep(0)
        await _create(tx, "first")
        order.append("first")
    await asyncio.gather(*waiting)

    assert order == ["first", *(f"w{number}" for number in range(10))]


async def test_a_wait_for_the_writer_ends_and_names_its_holder(opened: Opener) -> None:
    """`pool.timeout` bounds it; the one that waits is then out of the queue."""
    backend = await opened(pool={"timeout": 0.05})
    loop = asyncio.get_running_loop()

    async def hold(started: asyncio.Event, end: asyncio.Event) -> None:
        async with backend.begin(READ_WRITE):
            started.set()
            await end.wait()

    started, end = asyncio.Event(), asyncio.Event()
    holder = asyncio.create_task(hold(started, end), name="the-slow-one")
    await started.wait()
    start = loop.time()
    with pytest.raises(PoolTimeoutError, match="the-slow-one"):
        await _create(backend, "a")
    assert loop.time() - start < 0.5
    end.set()
    await holder
    await _create(backend, "b")

    assert await _ids(backend) == ["b"]
    assert backend.stats().timeouts == 1
    assert backend.stats().waiting == 0


@pytest.mark.parametrize("path", ["d.db", ":memory:"])
async def test_a_read_only_transaction_sees_one_state(opened: Opener, tmp_path, path: str) -> None:
    """The state of its begin, whatever is written meanwhile; it refuses to write."""
    backend = await opened(path=path if path == ":memory:" else str(tmp_path / path))
    await _create(backend, "a")

    async with backend.begin(READ_ONLY) as tx:
        await _create(backend, "b")
        assert await _ids(tx) == ["a"]
        with pytest.raises(UsageError, match="read-only"):
            await _create(tx, "c")

    assert await _ids(backend) == ["a", "b"]


async def test_an_isolation_level_that_is_not_there_is_refused(opened: Opener) -> None:
    """Serializable is the only one, and it is said."""
    backend = await opened()

    with pytest.raises(UnsupportedError, match="serializable"):
        backend.begin(TransactionOptions(isolation="read committed"))
    async with backend.begin(TransactionOptions(isolation="serializable")) as tx:
        await _create(tx, "a")


async def test_an_ended_transaction_is_closed(opened: Opener) -> None:
    """Its object does not reach the connection that somebody else has by now."""
    backend = await opened()
    async with backend.begin(READ_WRITE) as tx:
        await _create(tx, "a")

    with pytest.raises(ClosedError):
        await _ids(tx)


async def test_a_cancelled_transaction_gives_the_writer_back(opened: Opener) -> None:
    """Whatever the await at which it is cancelled, nothing is written and the next one can write."""
    backend = await opened()
    await _create(backend, *(f"{n}" for n in range(50)))

    async def work() -> None:
        async with backend.begin(READ_WRITE) as tx:
            await tx.remove(R, TRUE)
            async with tx.savepoint():
                await _create(tx, "x")
            raise Oops  # never commits

    for turns in range(60):
        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0.0002 if turns % 2 else 0)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, Oops)):
            await task
    await asyncio.wait_for(_create(backend, "last"), 5)

    assert len(await _ids(backend)) == 51
    assert backend.stats().in_use == 0
    assert backend.stats().waiting == 0


async def test_a_statement_that_undid_the_transaction_ends_it(opened: Opener) -> None:
    """After SQLite rolled everything back, later writes and the commit fail instead of half succeeding."""
    backend = await opened()

    with pytest.raises(TransactionError):
        async with backend.begin(READ_WRITE) as tx:
            await _create(tx, "a")
            await tx._thread.run(lambda session: session.rollback())  # as an interrupt or a full disk does
            with pytest.raises(TransactionError):
                await _create(tx, "b")

    assert await _ids(backend) == []


async def test_two_handles_of_one_file_share_the_writer(opened: Opener) -> None:
    """They are one pool: no lock between them, and the second waits its turn."""
    first, second = await opened(), await opened()

    async with first.begin(READ_WRITE) as tx:
        await _create(tx, "a")
        waiting = asyncio.create_task(_create(second, "b"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
    await waiting

    assert await _ids(first) == ["a", "b"]
