"""Background work on a pool's connections: health checks, session resets, closing, replacement."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from isthmus._core.clock import Clock
from isthmus.backends.postgres.drivers.protocol import Driver
from isthmus.backends.postgres.pool.pooled_connection import PooledConnection

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PoolConfig
    from isthmus.backends.postgres.pool.pool import Pool

log = logging.getLogger("isthmus.postgres.pool")

RESET_SECONDS = 5.0
CHECK_SECONDS = 5.0
CLOSE_SECONDS = 2.0


class Maintenance:
    """The background tasks that reset and close connections, one for each connection."""

    def __init__(self, pool: Pool, driver: Driver, options: PoolConfig, attrs: str, clock: Clock) -> None:
        self._pool = pool
        self._driver = driver
        self._reset_hook = options.reset
        self._attrs = attrs
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """The running tasks."""
        return frozenset(self._tasks)

    def stop(self) -> None:
        """Cancel what is running; each connection is dropped."""
        for task in self.tasks:
            task.cancel()

    def recycle(self, pooled: PooledConnection) -> None:
        """Reset a connection for its next use, or close it if it is old or surplus; never waits."""
        if self._driver.is_alive(pooled.connection):
            task = asyncio.get_running_loop().create_task(
                self._recycle(pooled), name="isthmus-postgres-recycle"
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._driver.terminate(pooled.connection)
            self._pool.remove(pooled)

    async def _recycle(self, pooled: PooledConnection) -> None:
        pool, connection = self._pool, pooled.connection
        clean = False
        try:
            if self._should_keep(pooled):
                async with self._clock.timeout(RESET_SECONDS):
                    await self._reset(pooled)
                clean = self._should_keep(pooled) and self._driver.is_ready(connection)
            if not clean:
                await self._driver.close(connection, CLOSE_SECONDS)
        except Exception as error:  # of any kind: the connection is dropped, and a new one has no fault
            log.debug("a connection could not be reset: %s", error)
        finally:
            if clean:
                pooled.dirty = pooled.interrupted = False
                pool.hand_over(pooled)
            else:
                self._driver.terminate(connection)
                pool.remove(pooled)

    def _should_keep(self, pooled: PooledConnection) -> bool:
        """Return whether a connection is worth resetting: neither expired nor surplus."""
        pool = self._pool
        return (
            not pool.is_closing
            and pooled.generation == pool.generation
            and self._clock.now() < pooled.expires_at
            and pooled.checkouts < pool.max_checkouts
            and len(pool.connections) <= pool.max_size
        )

    async def _reset(self, pooled: PooledConnection) -> None:
        connection = pooled.connection
        if pooled.suspect:
            pooled.suspect = False
            await self._driver.settle(connection)
            standby = await self._driver.in_recovery(connection, CHECK_SECONDS)
            if not self._is_suitable(pooled, standby=standby):
                self._pool.expire(pooled.generation)
                return
        if not pooled.dirty:
            await self._driver.settle(connection)
        elif self._reset_hook is not None:
            await self._driver.settle(connection)
            await self._reset_hook(connection)
        else:
            await self._driver.reset(connection)

    async def check(self, pooled: PooledConnection) -> bool:
        """Return whether a held connection still serves, by a round trip; release it if it does not."""
        pool, connection = self._pool, pooled.connection
        try:
            standby = await self._driver.in_recovery(connection, CHECK_SECONDS)
        except BaseException as error:
            pooled.generation = -1
            pool.release(connection)
            if not isinstance(error, Exception):
                raise
            log.debug("an idle connection did not respond: %s", error)
            if isinstance(error, TimeoutError):
                # Silence, not a refusal: the network path is cut, for the other connections too.
                pool.expire()
            return False
        if self._is_suitable(pooled, standby=standby):
            return True
        pool.release(connection)
        pool.expire(pooled.generation)
        return False

    def _is_suitable(self, pooled: PooledConnection, *, standby: bool) -> bool:
        match self._attrs:
            case "read-write" | "primary":
                return not standby
            case "standby" | "read-only":
                return standby
            case _:  # any server, but not a primary that was demoted since
                return not standby or pooled.is_standby is not False


class Housekeeper:
    """Closes old connections, keeps `min_size` open and reports leaks, at regular intervals."""

    MIN_INTERVAL, MAX_INTERVAL = 0.02, 5.0

    def __init__(self, pool: Pool, driver: Driver, options: PoolConfig, clock: Clock) -> None:
        self._pool = pool
        self._driver = driver
        self._now = clock.now
        self._max_idle = options.max_idle
        self._leak_report = options.leak_report
        limits = [s for s in (options.max_idle, options.max_lifetime, options.leak_report) if s is not None]
        shortest = min(limits, default=self.MAX_INTERVAL)
        self._interval = min(self.MAX_INTERVAL, max(self.MIN_INTERVAL, shortest / 4))
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Run at intervals until `stop`."""
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._run)

    def stop(self) -> None:
        """Run no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        now = self._now()
        self._retire_old(now)
        self._report_leaks(now)
        self._pool.connector.open_more()
        self.start()

    def _retire_old(self, now: float) -> None:
        pool = self._pool
        surplus = len(pool.connections) - pool.min_size
        kept, old = [], []
        for pooled in pool.idle:  # the one that was idle for the longest comes first
            idle_too_long = self._max_idle is not None and now - pooled.idle_since >= self._max_idle
            if (
                (idle_too_long and surplus > 0)
                or now >= pooled.expires_at
                or not self._driver.is_alive(pooled.connection)
            ):
                surplus -= 1
                old.append(pooled)
            else:
                kept.append(pooled)
        pool.idle[:] = kept
        for pooled in old:
            pool.retire(pooled)

    def _report_leaks(self, now: float) -> None:
        if self._leak_report is None:
            return
        for pooled in self._pool.held.values():
            if not pooled.leak_reported and now - pooled.taken_at >= self._leak_report:
                pooled.leak_reported = True
                log.warning("a connection is held by %s", pooled.describe_holder(now))
