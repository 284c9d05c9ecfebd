"""Threads and connections: interrupts hit their own job, nothing leaks, readers run beside the writer."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import warnings
from pathlib import Path

import pytest

from isthmus._core.executor import AggregateRequest, Mutation, PageRequest, WriteKind
from isthmus._query.ast import TRUE, Function, Measure, SortKey
from isthmus._query.field import field
from isthmus.backends.sqlite.backend import SQLiteBackend
from isthmus.backends.sqlite.session import Session
from isthmus.errors import ClosedError, PoolTimeoutError
from tests.sqlite.conftest import Opener

pytestmark = pytest.mark.backend("sqlite")
R = "records"
# Counts for minutes unless it is interrupted.
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n WHERE x < 0"


def _endless(started: threading.Event):
    def work(session: Session) -> None:
        started.set()
        session.reading(lambda s: s.execute(ENDLESS).fetchone())

    return work


async def _started(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


async def _fill(backend: SQLiteBackend, count: int) -> None:
    changes = [Mutation(f"{n:05}", {"n": n, "tags": [n, "x"]}) for n in range(count)]
    await backend.write(R, WriteKind.CREATE, changes, atomic=True)


def _threads() -> int:
    return sum(thread.name.startswith("isthmus-sqlite") for thread in threading.enumerate())


@pytest.mark.asyncio
async def test_a_cancelled_query_is_interrupted_and_its_connection_serves_on(opened: Opener) -> None:
    """With one reader, the next query runs on the connection of the cancelled one, at once."""
    backend = await opened(pool={"readers": 1})
    pool = await backend.native()
    await _fill(backend, 10)

    for _ in range(20):
        started = threading.Event()
        task = asyncio.create_task(pool.readers.run(_endless(started)))
        await _started(started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        tally = await asyncio.wait_for(backend.count(R, TRUE), 5)
        assert tally.count == 10

    assert pool.readers.stats().size == 1


@pytest.mark.asyncio
async def test_a_cancelled_batch_writes_nothing(opened: Opener) -> None:
    """Also between two rows, when no statement runs that could be interrupted."""
    backend = await opened()
    for _ in range(10):
        going = asyncio.create_task(_fill(backend, 30_000))
        await asyncio.sleep(random.random() * 0.05)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert (await asyncio.wait_for(backend.count(R, TRUE), 10)).count == 0

    await _fill(backend, 3)
    assert (await backend.count(R, TRUE)).count == 3


@pytest.mark.asyncio
async def test_an_interrupt_never_hits_the_next_job(opened: Opener) -> None:
    """Cancel and ask again, a thousand times, on one connection: only the cancelled ones fail."""
    backend = await opened(pool={"readers": 1})
    await _fill(backend, 300)

    for _ in range(1_000):
        first = asyncio.create_task(backend.count(R, field("tags") == "x"))
        second = asyncio.create_task(backend.count(R, field("tags") == "x"))
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (await second).count == 300


@pytest.mark.asyncio
async def test_random_cancels_leak_nothing(opened: Opener, tmp_path: Path) -> None:
    """500 tasks of all verbs cancelled anywhere: connections, threads and files as before."""
    backend = await opened()
    await _fill(backend, 200)
    order = (SortKey(field("n").path),)
    measures = (Measure("s", Function.SUM, field("n").path),)

    def verbs(number: int):
        return [
            backend.count(R, field("tags") == "x"),
            backend.fetch(R, PageRequest(field("n") > 5, order, 50)),
            backend.aggregate(R, AggregateRequest(TRUE, measures)),
            backend.write(
                R, WriteKind.UPSERT, [Mutation("00001", {"n": number, "tags": ["x"]})], atomic=True
            ),
            backend.fetch(R, PageRequest(TRUE, None, 5, consistent=True)),
        ]

    pool = await backend.native()
    for number in range(100):
        tasks = [asyncio.ensure_future(verb) for verb in verbs(number)]
        for _ in range(random.randrange(30)):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [r for r in results if isinstance(r, Exception)]
        held = results[-1]
        if not isinstance(held, BaseException) and held.after is not None:
            await backend.release(R, held.after)
    # A cancelled job still has to take note of it on its thread.
    async with asyncio.timeout(10):
        while pool.stats().in_use:
            await asyncio.sleep(0.001)

    stats = pool.stats()
    assert stats.in_use == 0
    assert stats.waiting == 0
    assert stats.idle == stats.size <= 5
    assert pool._snapshots == {}
    assert _threads() == stats.size


@pytest.mark.asyncio
async def test_readers_run_beside_the_writer_and_each_other(opened: Opener) -> None:
    """Four endless reads and an endless write at once; a fifth reader waits and is told who holds them."""
    backend = await opened(pool={"readers": 4, "timeout": 0.2})
    pool = await backend.native()
    events = [threading.Event() for _ in range(5)]
    tasks = [
        asyncio.create_task(pool.readers.run(_endless(event)), name=f"reader-{n}")
        for n, event in enumerate(events[:4])
    ]
    tasks.append(asyncio.create_task(pool.writer.run(_endless(events[4]))))

    for event in events:
        await _started(event)
    with pytest.raises(PoolTimeoutError, match=r"reader-0 .*reader-3"):
        await backend.count(R, TRUE)

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await backend.count(R, TRUE)).count == 0


@pytest.mark.asyncio
async def test_closing_waits_for_what_runs_and_ends_the_threads(opened: Opener) -> None:
    """A batch that is under way is finished; what comes later is refused; no thread or file stays."""
    before = _threads()
    files = len(list(Path("/proc/self/fd").iterdir()))
    backend = await opened()
    writing = asyncio.create_task(_fill(backend, 20_000))
    await asyncio.sleep(0.01)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await backend.close()
        gc.collect()
    await writing

    # Fewer if a thread of an earlier test was about to end.
    assert _threads() <= before
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    again = await opened()
    assert (await again.count(R, TRUE)).count == 20_000


@pytest.mark.asyncio
async def test_a_waiting_task_learns_that_the_database_was_closed(opened: Opener) -> None:
    """It does not wait for ever."""
    backend = await opened()
    pool = await backend.native()
    lane = await pool.writer.acquire()
    waiting = asyncio.create_task(pool.writer.run(lambda session: None))
    await asyncio.sleep(0)
    closing = asyncio.create_task(backend.close())

    with pytest.raises(ClosedError):
        await waiting
    pool.writer.release(lane)
    await closing


@pytest.mark.asyncio
@pytest.mark.parametrize("order", [None, (SortKey(field("n").path, True),)], ids=["any", "sorted"])
@pytest.mark.parametrize("memory", [False, True])
async def test_a_consistent_stream_reads_one_snapshot(opened: Opener, memory: bool, order) -> None:
    """Writes between its pages do not show; after the last page, or release, the reader is free."""
    backend = await opened(**({"path": ":memory:"} if memory else {}))
    await _fill(backend, 10)
    pool = await backend.native()

    page = await backend.fetch(R, PageRequest(TRUE, order, 4, consistent=True))
    seen = [record.id for record in page.records]
    await backend.remove(R, field("n") > 2)
    await _fill(await opened(path=":memory:"), 1)
    while page.after is not None:
        page = await backend.fetch(R, PageRequest(TRUE, order, 4, after=page.after, consistent=True))
        seen += [record.id for record in page.records]

    assert sorted(seen) == [f"{n:05}" for n in range(10)]
    assert pool.stats().in_use == 0
    page = await backend.fetch(R, PageRequest(TRUE, order, 1, consistent=True))
    assert page.after is not None
    await backend.release(R, page.after)
    await backend.release(R, page.after)
    with pytest.raises(ClosedError):
        await backend.fetch(R, PageRequest(TRUE, order, 1, after=page.after, consistent=True))
    assert pool.stats().in_use == 0


def test_a_database_left_open_at_the_end_of_its_loop_warns_nobody(tmp_path: Path) -> None:
    """The next use of any loop sweeps the dead one's threads; data written is there."""
    from isthmus._core.loop_pools import sweep
    from isthmus.backends.sqlite import plugin

    async def leave_open() -> None:
        backend = plugin.build(plugin.config().load({"path": str(tmp_path / "d.db")}))
        await backend.open(R)
        await backend.write(R, WriteKind.UPSERT, [Mutation("a", {})], atomic=True)

    before = _threads()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            asyncio.run(leave_open())
        sweep()
        gc.collect()

    assert _threads() == before
