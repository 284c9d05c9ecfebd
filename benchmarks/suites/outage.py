"""A store that refuses everything for a while under load: failures, latencies and the time to recover."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import asyncpg

from benchmarks.harness import Row, compute_percentiles, show
from isthmus import AsyncDatabase, IsthmusError, Record
from isthmus.testing.proxy import Fault, FaultProxy

RATE = 200
WORKERS = 10
SECONDS, DOWN, UP = 6.0, 2.0, 3.5
PATIENCE = 30.0
FAILURES = (IsthmusError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
Get = Callable[[], Awaitable[object]]
STATEMENT = "SELECT data FROM scenario_outage WHERE id = $1"


async def rows(url: str) -> AsyncIterator[Row]:
    """Run each side for six seconds, the store down for one and a half of them.

    A service gets a fixed number of calls a second, whatever their results; a job's workers wait for
    each result before the next call, so that retries can bridge the outage.
    """
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)  # its pool logs each attempt
    down = f"store down {UP - DOWN:g} s of {SECONDS:g} s"
    yield await _row(f"{down}, {RATE} gets a second", url, "service", _steady)
    yield await _row(f"{down}, a job of {WORKERS} workers", url, "batch", _workers)


async def _row(job: str, url: str, preset: str, load: Load) -> Row:
    server = urlsplit(url)
    done = Row(job, {})
    with FaultProxy(server.hostname or "127.0.0.1", server.port or 5432) as proxy:
        through = proxy.through(url)
        for name, resilience in (("ours", "none"), (f"ours, {preset} preset", preset)):
            config = {"url": through, "table": "scenario_outage", "resilience": resilience}
            db = await AsyncDatabase.create("postgres", config)
            await db.upsert(Record({"n": 1}, id="a"))
            _add(done, name, await _seen(load, lambda db=db: db.require("a"), proxy))
            await db.close()
        pool = await asyncpg.create_pool(through, min_size=10, max_size=10, command_timeout=5)
        _add(done, "asyncpg pool", await _seen(load, lambda: pool.fetchrow(STATEMENT, "a"), proxy))
        await asyncio.wait_for(pool.close(), 10)
    show(done)
    return done


class _Seen:
    """What the callers saw."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.failures: list[float] = []
        self.healed: float | None = None
        self.back: float | None = None
        """Seconds from the store's return to the first answer."""


Load = Callable[[Get, _Seen], Awaitable[None]]


def _add(row: Row, name: str, seen: _Seen) -> None:
    row.latencies[name] = compute_percentiles(seen.waits)
    row.figures[f"{name}: calls answered"] = float(len(seen.waits))
    row.figures[f"{name}: calls failed"] = float(len(seen.failures))
    row.figures[f"{name}: ms of the longest wait for a failure"] = max(seen.failures, default=0.0) * 1e3
    if seen.back is not None:
        row.figures[f"{name}: ms from the store's return to the first answer"] = seen.back * 1e3


async def _seen(load: Load, get: Get, proxy: FaultProxy) -> _Seen:
    """Return what callers saw while the store went away and came back."""
    seen = _Seen()

    async def fail() -> None:
        await asyncio.sleep(DOWN)
        proxy.inject(Fault.REFUSE)
        await asyncio.sleep(UP - DOWN)
        proxy.heal()
        seen.healed = time.perf_counter()

    await asyncio.gather(fail(), load(get, seen))
    return seen


async def _call(get: Get, seen: _Seen) -> None:
    start = time.perf_counter()
    try:
        await asyncio.wait_for(get(), PATIENCE)
    except FAILURES:
        seen.failures.append(time.perf_counter() - start)
        await asyncio.sleep(0.005)  # or a job's workers would spin on failures
        return
    end = time.perf_counter()
    seen.waits.append(end - start)
    if seen.healed is not None and seen.back is None:
        seen.back = end - seen.healed


async def _steady(get: Get, seen: _Seen) -> None:
    """Start a call at a fixed rate, whether or not the others have ended."""
    running: set[asyncio.Task[None]] = set()
    start = time.perf_counter()
    for turn in range(int(SECONDS * RATE)):
        await asyncio.sleep(max(0.0, start + turn / RATE - time.perf_counter()))
        task = asyncio.create_task(_call(get, seen))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)


async def _workers(get: Get, seen: _Seen) -> None:
    """Let some workers call one after another."""
    end = time.perf_counter() + SECONDS

    async def work() -> None:
        while time.perf_counter() < end:
            await _call(get, seen)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(work() for _ in range(WORKERS)))
