"""Cancels calls at random on one backend and counts what is left; see `run_cancel` for the program."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

from isthmus import AsyncDatabase, Query
from isthmus._core.loop_pools import open_pools, sweep
from isthmus._ids import new_id
from isthmus.backends.memory.backend import MemoryBackend
from tests import servers
from tests.faults.cancel_calls import WAYS, Calls, interrupt
from tests.stores import KNOWN

BACKENDS = (
    *("memory", "sqlite", "postgres", "postgres-psycopg", "sqlalchemy-mariadb"),
    *("elasticsearch", "s3-log", "s3-object"),
)
_SETTING = {"elasticsearch": "index", "s3": "prefix"}
# obstore closes connections in threads of its own, at the latest when they were idle for 30 s.
_SECONDS = 40.0
LEFT = ("in use", "snapshots", "sessions", "points in time", "pools", "sockets", "threads", "tasks")


@dataclass(slots=True)
class Result:
    """How many calls of each class and way were made and cancelled, and what is left of them."""

    calls: Counter[str] = field(default_factory=Counter)
    cancelled: Counter[str] = field(default_factory=Counter)
    left: dict[str, int] = field(default_factory=dict)


class Cancelling:
    """One store, a collection of its own in it, and the calls that are cancelled there."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        self._backend, kind, config = KNOWN[name]
        self._folder = folder
        self._pick = Random(seed)
        self._collection = f"cancel_{new_id().replace('-', '')}"
        self._settings: dict[str, Any] = {**config, _SETTING.get(self._backend, "table"): self._collection}
        self._server = None if kind is None else servers.server(kind)
        if self._server is not None:
            scheme = "es+" if self._backend == "elasticsearch" else ""
            self._settings["url"] = scheme + self._server.url
        if name == "sqlite":
            self._settings["path"] = str(folder / "store.db")
        if self._backend == "postgres":
            # Named, so that its sessions can be told from those of tests that run beside this one.
            self._settings["server_settings"] = {"application_name": self._collection}
        self.result = Result()

    async def _open(self) -> AsyncDatabase:
        return await AsyncDatabase.create(self._backend, self._settings)

    async def run(self, count: int) -> None:
        """Cancel `count` calls, spread over classes and ways, and see that the handle still works."""
        before = asyncio.all_tasks()
        db = await self._open()
        other = f"{self._collection}_copy"
        await self._fill(db)
        classes = Calls(db, self._open, self._folder, other).by_class()
        plan = [(name, way) for name in classes for way in WAYS]
        made = 0
        while made < count:
            chosen = [plan[(made + n) % len(plan)] for n in range(self._pick.randrange(1, 6))]
            await asyncio.gather(*(self._cancel(classes, *cell) for cell in chosen))
            made += len(chosen)
            if self._pick.random() < 0.1:
                await db.clear()  # so that streams stay short
                await self._fill(db)
        await self._check(db)
        gc.collect()  # streams that were left without `aclose` are released by their finalizers
        await self._settle("in use", lambda: db.stats().pool.in_use)
        if isinstance(db._backend, MemoryBackend):
            snapshots = db._backend._snapshots
            await self._settle("snapshots", lambda: len(snapshots))  # finalizers end streams on the loop
        await self._drop(db, other)
        await db.close()
        await self._settle("tasks", lambda: len(asyncio.all_tasks() - before))
        await self._count_sessions()
        await self._count_points_in_time()

    async def _fill(self, db: AsyncDatabase) -> None:
        await db.upsert_batch({id: {"n": n, "t": "xX"} for n, id in enumerate("abcdefghijklmnop")})

    async def _cancel(self, classes: dict[str, list[Any]], name: str, way: str) -> None:
        was_cancelled = await interrupt(self._pick.choice(classes[name]), way, self._pick)
        self.result.calls[f"{name} {way}"] += 1
        self.result.cancelled[f"{name} {way}"] += was_cancelled

    async def _check(self, db: AsyncDatabase) -> None:
        """Assert that after all that the handle works and each call is whole."""
        await self._wait_until_still(db)
        await db.clear()
        ids = await db.create_batch([{"n": n} for n in range(50)])
        assert await db.count() == 50
        assert [r.id async for r in db.stream(Query().sort("n"), page_size=7)] == list(ids)

    async def _wait_until_still(self, db: AsyncDatabase) -> None:
        """Wait until none of the cancelled requests is served any more: a busy server takes long."""
        seen, alike = -1, 0
        while alike < (1 if db.backend in ("memory", "sqlite") else 4):
            before, seen = seen, await db.count()
            alike = alike + 1 if seen == before else 0
            await asyncio.sleep(0.5)

    async def _drop(self, db: AsyncDatabase, other: str) -> None:
        for name in (other, self._collection):
            if db.capabilities.drop:
                await db.drop_collection(name)
            else:
                await db.collection(name).clear()

    async def _settle(self, name: str, count: Callable[[], int]) -> None:
        for _ in range(200):
            if count() == 0:
                break
            await asyncio.sleep(0.05)
        self.result.left[name] = count()

    async def _count_sessions(self) -> None:
        if self._backend != "postgres":
            return
        assert self._server is not None
        for _ in range(100):
            left = await _sessions(self._server.url, self._collection)
            if left == 0:
                break
            await asyncio.sleep(0.05)
        self.result.left["sessions"] = left

    async def _count_points_in_time(self) -> None:
        """Count the search contexts of the node; nothing else may use it meanwhile."""
        if self._backend != "elasticsearch":
            return
        assert self._server is not None
        async with httpx.AsyncClient() as client:
            for _ in range(200):
                answer = await client.get(f"{self._server.url}/_nodes/stats/indices/search")
                nodes = answer.json()["nodes"].values()
                left = sum(node["indices"]["search"]["open_contexts"] for node in nodes)
                if left == 0:
                    break
                await asyncio.sleep(0.05)
        self.result.left["points in time"] = left


async def _sessions(url: str, name: str) -> int:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
        return int(await connection.fetchval(query, name))
    finally:
        await connection.close()


def count_sockets() -> int:
    """Return how many sockets this process has open."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except OSError:  # the listing's own
            continue
    return count


def _threads() -> int:
    return sum(thread.name.startswith("isthmus-") for thread in threading.enumerate())


def run(name: str, loop: str, count: int, folder: Path, seed: int) -> Result:
    """Cancel `count` calls on a store under asyncio or uvloop, and return what is left."""
    gc.collect()
    sweep()  # of a test before this one that failed
    sockets, pools, threads = count_sockets(), open_pools(), _threads()
    cancelling = Cancelling(name, folder, seed)
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(cancelling.run(count))
    else:
        asyncio.run(cancelling.run(count))
    gc.collect()
    left = cancelling.result.left
    left["pools"] = open_pools() - pools
    end = time.monotonic() + _SECONDS
    while (count_sockets() > sockets or _threads() > threads) and time.monotonic() < end:
        time.sleep(0.05)
    left["sockets"] = max(0, count_sockets() - sockets)
    left["threads"] = max(0, _threads() - threads)
    return cancelling.result
