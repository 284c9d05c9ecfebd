"""Connections of one event loop: a stack of idle ones and a first-come, first-served wait queue.

Invariants:

* A connection is in exactly one place: idle, held by a task, or in a background task of the pool.
  It counts while it lives, so the server never sees more than `max_size`.
* Only the pool's own tasks open, reset and close connections. A cancelled caller leaves a position in
  the queue or a connection behind, and both are released without awaiting.
* A connection that becomes free goes to the first waiter; newcomers do not overtake.
* A connection that comes back clean is reused as it is; any other is reset in the background first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from isthmus._core.clock import Clock
from isthmus._core.executor import PoolStats
from isthmus.backends.postgres import errors
from isthmus.backends.postgres.drivers.protocol import Driver
from isthmus.backends.postgres.pool.connector import Connector, Hosts
from isthmus.backends.postgres.pool.maintenance import Housekeeper, Maintenance
from isthmus.backends.postgres.pool.pooled_connection import (
    RELEASED,
    Checkout,
    Holder,
    PooledConnection,
    Released,
    capture_stack,
    warn_of_holders,
)
from isthmus.backends.postgres.pool.wait_queue import WaitQueue
from isthmus.errors import ClosedError, UsageError

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PostgresConfig

CLOSE_SECONDS = 60.0


class Pool:
    """Connections to one server, or one set of hosts; made by `open_pool`.

    Ages and waiting times are measured on `clock`; timers are the loop's.
    """

    def __init__(
        self,
        config: PostgresConfig,
        driver: Driver,
        *,
        clock: Clock,
        hosts: Hosts | None = None,
        attrs: str | None = None,
    ) -> None:
        self.config = config
        self.driver = driver
        driver.on_schema_change = self.expire
        self._loop = asyncio.get_running_loop()
        self._now = clock.now
        self._is_ready, self._is_alive = driver.is_ready, driver.is_alive
        attrs = attrs or config.session_attrs()
        self._hosts = hosts or Hosts(
            config.addresses(), attrs, shuffled=config.load_balance_hosts == "random"
        )
        options = config.pool
        self.min_size, self.max_size = options.min_size, options.max_size
        self._check_after, self.max_checkouts = options.check_after, options.max_queries
        self._captures_stacks = options.leak_report is not None
        self.direct = options.setup is None
        """Whether `take_idle` alone is a checkout: no hook to run, no replica to check."""
        self.connections: set[PooledConnection] = set()
        self.idle: list[PooledConnection] = []
        self.held: dict[Any, PooledConnection] = {}
        self.queue = WaitQueue(self, self._loop, self._now)
        self._maintenance = Maintenance(self, driver, options, attrs, clock)
        self.housekeeper = Housekeeper(self, driver, options, clock)
        self.connector = Connector(self, self._hosts, driver, options, clock)
        self.generation = 0
        self.is_closing = False
        """Whether the pool hands out no more connections."""
        self._is_drained = asyncio.Event()
        self.last_connect_error: Exception | None = None
        self._acquired = self._opened = self._closed = 0
        self._wait_seconds = self._use_seconds = 0.0
        self.guard: AsyncGenerator[None, None] | None = None
        """Runs until the pool is closed."""
        self.reads: Pool = self
        """The pool for reads outside of transactions: this one, unless the config names replicas."""
        self.writes = 0
        """How often a connection came back that may have written; counted only with replicas."""

    # Opening and closing

    async def fill(self) -> None:
        """Open `min_size` connections, at least one; raises the first one's error."""
        self.release(await self.acquire(self._hosts.max_connect_seconds(self.config.connect_timeout)))
        while len(self.connections) < self.min_size and self.connector.tasks:
            await asyncio.wait(self.connector.tasks, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, timeout: float | None = CLOSE_SECONDS) -> None:
        """Hand out no more connections, wait for those in use, close all; after `timeout` s drop the rest."""
        if self.reads is not self:
            await self.reads.close(timeout)
        self._begin_closing()
        try:
            async with asyncio.timeout(timeout):
                await self._is_drained.wait()
        except TimeoutError:
            warn_of_holders(self.held.values(), self._now())
            self.terminate()
        if self._maintenance.tasks:
            await asyncio.wait(self._maintenance.tasks)
        if self.guard is not None:
            await self.guard.aclose()

    def _begin_closing(self) -> None:
        if self.is_closing:
            return
        self.is_closing = True
        self.housekeeper.stop()
        self.connector.stop()
        self.queue.fail(lambda: ClosedError("the pool is closing"))
        self._retire_idle()
        self.attempt_ended()

    def terminate(self) -> None:
        """Drop all connections now, including those in use."""
        if self.reads is not self:
            self.reads.terminate()
        self._begin_closing()
        self._maintenance.stop()
        for pooled in list(self.connections):
            self.driver.terminate(pooled.connection)
            self.remove(pooled)
        self.held.clear()

    def discard(self) -> None:
        """Drop sockets without awaiting; on a dead loop without a warning too."""
        if asyncio._get_running_loop() is self._loop:
            warn_of_holders(self.held.values(), self._now())
            self.terminate()
            return
        if self.reads is not self:
            self.reads.discard()
        self.is_closing = True
        for pooled in self.connections:
            self.driver.discard(pooled.connection)
        self.connections.clear()
        self.idle.clear()
        self.held.clear()
        self.queue = WaitQueue(self, self._loop, self._now)  # the old futures belong to a dead loop

    def is_healthy(self) -> bool:
        """Return whether the pool can still serve; it reconnects by itself."""
        return not self.is_closing

    # Acquiring and releasing

    def acquire(self, timeout: float | None = None, *, dirty: bool = False) -> Checkout:
        """Return a pending checkout: await it for a connection, or enter it to release on exit.

        `timeout` is in seconds; None: the config's `pool.timeout`. `dirty`: raw SQL will be run, so
        the session is reset in full afterwards. Raises `PoolTimeoutError`, which names the holders,
        `ConnectError` or `AccessError` if there is no connection and none can be opened, `ClosedError`.
        """
        return Checkout(self, timeout, dirty=dirty)

    def release(self, connection: Any) -> Released:
        """Return a connection to the pool; never waits. Raises `UsageError` if it is not checked out."""
        pooled = self.held.pop(connection, None)
        if pooled is None:
            if self.is_closing:
                return RELEASED  # terminated since
            raise UsageError("this connection is not held: released twice, or it is another pool's")
        if self.reads is not self:
            self.writes += not pooled.read_only_use
            pooled.read_only_use = False
        now = self._now()
        self._use_seconds += now - pooled.taken_at
        pooled.holder = None
        if (
            pooled.dirty
            or pooled.interrupted
            or pooled.generation != self.generation
            or now >= pooled.expires_at
            or pooled.checkouts >= self.max_checkouts
            or self.is_closing
            or not self._is_ready(connection)
        ):
            self._maintenance.recycle(pooled)
        elif self.queue:
            self.hand_over(pooled)
        else:
            pooled.idle_since = now
            self.idle.append(pooled)
        return RELEASED

    def take_idle(self) -> Any | None:
        """Check out the connection that was used last, None if it cannot be used without awaiting."""
        if not self.idle or asyncio.get_running_loop() is not self._loop:
            return None
        now = self._now()
        pooled = self.idle[-1]
        connection = pooled.connection
        if now - pooled.idle_since >= self._check_after or not self._is_alive(connection):
            return None
        self.idle.pop()
        self._hold(pooled, asyncio.current_task(self._loop), now)
        return connection

    def _hold(self, pooled: PooledConnection, task: Holder, now: float) -> None:
        pooled.holder = task
        pooled.taken_at = now
        pooled.checkouts += 1
        self._acquired += 1
        if self._captures_stacks:
            pooled.stack = capture_stack()
            pooled.leak_reported = False
        self.held[pooled.connection] = pooled

    async def take(self, timeout: float | None, *, dirty: bool = False, read_only: bool = False) -> Any:
        """Check out a connection and run the `setup` hook; see `acquire`.

        `read_only`: nothing will be written, so replicas need not catch up with this use.
        """
        connection = self.take_idle()
        if connection is None:
            connection = await self._wait(timeout)
        if (pooled := self.held.get(connection)) is None:  # terminated since it was handed over
            raise ClosedError("the pool is closed")
        pooled.dirty |= dirty
        pooled.read_only_use = read_only
        if self.config.pool.setup is not None:
            try:
                await self.config.pool.setup(connection)
            except BaseException:
                # The hook may have left the session in any state.
                self.mark_unusable(connection)
                self.release(connection)
                raise
        return connection

    async def _wait(self, timeout: float | None) -> Any:
        """Check out an idle connection after a health check, or wait in the queue for one."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise UsageError(f"this pool belongs to {self._loop!r} and was used on {loop!r}")
        task = asyncio.current_task(loop)
        started = self._now()
        try:
            while self.idle:
                pooled = self.idle.pop()
                if not self._is_alive(pooled.connection):
                    self._maintenance.recycle(pooled)
                    continue
                self._hold(pooled, task, self._now())
                if started - pooled.idle_since < self._check_after or await self._maintenance.check(pooled):
                    return pooled.connection
            if self.is_closing:
                raise ClosedError("the pool is closed")
            timeout = self.config.pool.timeout if timeout is None else timeout
            return (await self.queue.wait(task, started, timeout)).connection
        finally:
            self._wait_seconds += self._now() - started

    def hand_over(self, pooled: PooledConnection) -> None:
        """Give a clean connection to the first waiter, or keep it idle."""
        now = self._now()
        first = self.queue.pop_first()
        if first is not None:
            waiter, task = first
            self._hold(pooled, task, now)
            waiter.set_result(pooled)
            return
        pooled.idle_since = now
        self.idle.append(pooled)

    # Keeping connections good

    def note_error(self, connection: Any, error: BaseException) -> None:
        """Act on an error met on a held connection: a failover or a stale plan expires the pool."""
        pooled = self.held.get(connection)
        if pooled is None:
            return
        # asyncpg sends no Sync between preparing a statement and running it: what fails there in the client
        # (cancelled, timed out, a value out of range) leaves an implicit transaction, and looks ready.
        pooled.interrupted |= errors.is_client_side(error)
        if errors.is_failover(error) or errors.is_stale_plan(error):
            self.expire(pooled.generation)
        elif errors.is_read_only(error):
            # A standby after a failover, or only a write in a read-only transaction.
            pooled.suspect = pooled.dirty = True

    def expire(self, generation: int | None = None) -> None:
        """Replace all connections: idle ones now, those in use when they come back.

        With `generation` only if that is still the current one, so that many failures at once
        expire it once.
        """
        if generation is not None and generation != self.generation:
            return
        self.generation += 1
        self._retire_idle()
        self.connector.open_more()

    def _retire_idle(self) -> None:
        idle = list(self.idle)
        self.idle.clear()
        for pooled in idle:
            self.retire(pooled)

    def mark_unusable(self, connection: Any) -> None:
        """Have a held connection closed when it comes back."""
        pooled = self.held.get(connection)
        if pooled is not None:
            pooled.generation = -1

    def retire(self, pooled: PooledConnection) -> None:
        """Close a connection that is neither idle nor held any more, in the background."""
        pooled.generation = -1
        self._maintenance.recycle(pooled)

    def remove(self, pooled: PooledConnection) -> None:
        """Forget a connection that is closed, and open another if it is wanted."""
        if pooled in self.connections:
            self.connections.discard(pooled)
            pooled.closed.set()
            self._closed += 1
            self.connector.open_more()
        self.attempt_ended()

    def add(self, pooled: PooledConnection) -> None:
        """Take over a connection that the connector has opened."""
        self.connections.add(pooled)
        self._opened += 1
        self.last_connect_error = None
        self.hand_over(pooled)

    def count_wanted(self, opening: int) -> int:
        """Return how many more connections could be used, given how many are being opened."""
        room = self.max_size - len(self.connections) - opening
        below_min = self.min_size - len(self.connections) - opening
        return min(room, max(len(self.queue) - opening, below_min))

    def is_empty(self) -> bool:
        """Return whether there is no connection at all."""
        return not self.connections

    def report_failure(self, error: Exception, started: float) -> bool:
        """Fail the waiters that a failed attempt was for, unless some connection may come free."""
        self.last_connect_error = error
        if self.connections:
            return False
        self.queue.fail(lambda: errors.connect_error(error), started_by=started)
        return bool(self.queue)

    def attempt_ended(self) -> None:
        """Note whether a closing pool has no connection left."""
        if self.is_closing and not self.connections and not self.connector:
            self._is_drained.set()

    def resize(self, min_size: int, max_size: int) -> None:
        """Change the bounds; surplus idle connections are closed now, those in use when they come back."""
        if not 0 <= min_size <= max_size or max_size < 1:
            raise UsageError(f"sizes must be 0 <= min <= max, max >= 1; got {min_size} and {max_size}")
        self.min_size, self.max_size = min_size, max_size
        leaving = sum(pooled.generation != self.generation for pooled in self.connections)
        surplus = len(self.connections) - leaving - max_size
        for _ in range(min(surplus, len(self.idle))):
            self.retire(self.idle.pop(0))
        self.connector.open_more()

    async def drain(self, timeout: float | None = None) -> None:
        """Expire all connections and wait until the old ones are closed; raises `TimeoutError`."""
        old = [pooled.closed for pooled in self.connections]
        self.expire()
        async with asyncio.timeout(timeout):
            for closed in old:
                await closed.wait()

    def stats(self) -> PoolStats:
        """Return a snapshot of sizes, counters and times."""
        return PoolStats(
            size=len(self.connections),
            idle=len(self.idle),
            in_use=len(self.held),
            waiting=len(self.queue),
            max_size=self.max_size,
            min_size=self.min_size,
            acquired=self._acquired,
            timeouts=self.queue.timeouts,
            opened=self._opened,
            closed=self._closed,
            wait_seconds=self._wait_seconds,
            use_seconds=self._use_seconds,
        )
