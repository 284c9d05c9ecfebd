"""What happens to connections in the background: asked, cleaned, ended when old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

from isthmus.backends.postgres.drivers.protocol import Driver
from isthmus.backends.postgres.pool.pooled_connection import Slot

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PoolConfig
    from isthmus.backends.postgres.pool.pool import Pool

log = logging.getLogger("isthmus.postgres.pool")

MEND_SECONDS = 5.0
CHECK_SECONDS = 5.0
GOODBYE_SECONDS = 2.0


class Mending:
    """The background tasks of a pool that clean and close its connections."""

    def __init__(self, pool: Pool, driver: Driver, options: PoolConfig, attrs: str) -> None:
        self._pool = pool
        self._driver = driver
        self._reset = options.reset
        self._attrs = attrs
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """What is under way."""
        return frozenset(self._tasks)

    def stop(self) -> None:
        """Break off what is under way; each connection is dropped."""
        for task in self.tasks:
            task.cancel()

    def retire(self, slot: Slot) -> None:
        """Clean a connection, or close it if it is old or not wanted; never waits."""
        if self._driver.alive(slot.connection):
            self._spawn(self._mend(slot))
        else:
            self._driver.terminate(slot.connection)
            self._pool.gone(slot)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="isthmus-postgres-mend")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _mend(self, slot: Slot) -> None:
        pool, connection = self._pool, slot.connection
        clean = False
        try:
            if pool.keeps(slot):
                async with asyncio.timeout(MEND_SECONDS):
                    await self._clean(slot)
                clean = pool.keeps(slot) and self._driver.ready(connection)
            if not clean:
                await self._driver.close(connection, GOODBYE_SECONDS)
        except Exception as error:  # of any kind: the connection is dropped, which mends everything
            log.debug("a connection could not be mended: %s", error)
        finally:
            if clean:
                slot.dirty = False
                pool.give(slot)
            else:
                self._driver.terminate(connection)
                pool.gone(slot)

    async def _clean(self, slot: Slot) -> None:
        connection = slot.connection
        if slot.suspect:
            slot.suspect = False
            await self._driver.settle(connection)
            if not self._fits(slot, standby=await self._driver.in_recovery(connection, CHECK_SECONDS)):
                self._pool.expire(slot.generation)
                return
        if not slot.dirty:
            await self._driver.settle(connection)
        elif self._reset is not None:
            await self._driver.settle(connection)
            await self._reset(connection)
        else:
            await self._driver.reset(connection)

    async def check(self, slot: Slot) -> bool:
        """Ask a held connection that was idle for long whether it serves; give it back if it does not."""
        pool, connection = self._pool, slot.connection
        try:
            standby = await self._driver.in_recovery(connection, CHECK_SECONDS)
        except BaseException as error:
            slot.generation = -1
            pool.release(connection)
            if not isinstance(error, Exception):
                raise
            log.debug("an idle connection did not answer: %s", error)
            if isinstance(error, TimeoutError):
                # Silence, not refusal: the way is cut, and it is for the others as well.
                pool.expire()
            return False
        if self._fits(slot, standby=standby):
            return True
        pool.release(connection)
        pool.expire(slot.generation)
        return False

    def _fits(self, slot: Slot, *, standby: bool) -> bool:
        match self._attrs:
            case "read-write" | "primary":
                return not standby
            case "standby" | "read-only":
                return standby
            case _:  # whatever it was when it was opened; not a primary that was demoted
                return not standby or slot.standby is not False


class Upkeep:
    """What a pool does from time to time: end old connections, refill, name those who hold for too long."""

    QUICKEST, SLOWEST = 0.02, 5.0

    def __init__(self, pool: Pool, driver: Driver, options: PoolConfig) -> None:
        self._pool = pool
        self._driver = driver
        self._max_idle = options.max_idle
        self._leak_report = options.leak_report
        spans = [s for s in (options.max_idle, options.max_lifetime, options.leak_report) if s is not None]
        self._pause = min(self.SLOWEST, max(self.QUICKEST, min(spans, default=self.SLOWEST) / 4))
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Run from now on, until `stop`."""
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._run)

    def stop(self) -> None:
        """Run no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        now = monotonic()
        self._end_old(now)
        self._report_leaks(now)
        self._pool.openings.more()
        self.start()

    def _end_old(self, now: float) -> None:
        pool = self._pool
        spare = len(pool.slots) - pool.min_size
        kept, old = [], []
        for slot in pool.idle:  # from the one that was idle for the longest
            idle_too_long = self._max_idle is not None and now - slot.idle_since >= self._max_idle
            if (
                (idle_too_long and spare > 0)
                or now >= slot.expires
                or not self._driver.alive(slot.connection)
            ):
                spare -= 1
                old.append(slot)
            else:
                kept.append(slot)
        pool.idle[:] = kept
        for slot in old:
            pool.drop(slot)

    def _report_leaks(self, now: float) -> None:
        if self._leak_report is None:
            return
        for slot in self._pool.held.values():
            if not slot.reported and now - slot.taken >= self._leak_report:
                slot.reported = True
                log.warning("a connection is held by %s", slot.holder(now))
