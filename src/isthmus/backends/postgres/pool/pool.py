"""A pool of PostgreSQL connections for one event loop: a stack of idle ones and a queue of waiters.

Rules that everything here keeps:

* A connection is in exactly one place: idle, held by a task, or in a background task of the pool.
  While it lives it counts, so the server never sees more than `max_size`.
* Only the pool's own tasks open, mend and close. A caller that is cancelled leaves a place in the
  queue or a connection behind, and both are taken care of without awaiting.
* A connection that comes free goes to the first who waits; newcomers do not overtake.
* What comes back is reused as it is if it is clean; otherwise it is mended in the background first.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from time import monotonic
from typing import TYPE_CHECKING, Any

from isthmus._core.executor import PoolStats
from isthmus.backends.postgres.checkout import RELEASED, Checkout, Released
from isthmus.backends.postgres.drivers.protocol import Driver, driver_for
from isthmus.backends.postgres.drivers.session import Hosts
from isthmus.backends.postgres.failures import (
    opening_failed,
    tells_failover,
    tells_read_only,
    tells_stale_plan,
)
from isthmus.backends.postgres.pool.connector import Openings
from isthmus.backends.postgres.pool.maintenance import Mending, Upkeep
from isthmus.backends.postgres.pool.pooled_connection import Holder, Slot, holders, stack_here
from isthmus.backends.postgres.pool.wait_queue import Waiters
from isthmus.errors import ClosedError, PoolTimeoutError, UsageError

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PostgresConfig

log = logging.getLogger("isthmus.postgres.pool")

CLOSE_SECONDS = 60.0
REPORT_SECONDS = 0.02


class Pool:
    """Connections to one server, or one set of hosts; made by `Pool.open`."""

    def __init__(
        self,
        config: PostgresConfig,
        driver: Driver | None = None,
        *,
        hosts: Hosts | None = None,
        attrs: str | None = None,
    ) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._driver = driver_for(config) if driver is None else driver
        self._driver.stale = self.expire
        self._ready = self._driver.ready
        self._alive = self._driver.alive
        attrs = attrs or config.session_attrs()
        self._hosts = hosts or Hosts(config.addresses(), attrs)
        options = config.pool
        self.min_size, self.max_size = options.min_size, options.max_size
        self._timeout = options.timeout
        self._most_checkouts = options.max_queries
        self._check_after = options.check_after
        self._setup = options.setup
        self._leak_report = options.leak_report
        # Nothing to do at a checkout but to take a connection.
        self.plain = options.setup is None
        self.slots: set[Slot] = set()
        self.idle: list[Slot] = []
        self.held: dict[Any, Slot] = {}
        self.waiters = Waiters(self._loop)
        self._mending = Mending(self, self._driver, options, attrs)
        self._upkeep = Upkeep(self, self._driver, options)
        self.openings = Openings(
            self, self._open_one, limit=options.max_opening, patience=options.reconnect_timeout
        )
        self.generation = 0
        self._closing = False
        self._emptied = asyncio.Event()
        self._last_refusal: Exception | None = None
        self._report: tuple[float, str] = (float("-inf"), "")
        self._acquired = self._timeouts = self._opened = self._closed = 0
        self._wait_seconds = self._use_seconds = 0.0
        self._guard: AsyncGenerator[None, None] | None = None
        self.reads: Pool = self
        """The pool for reads outside of transactions: this one, unless the config names replicas."""
        self.writes = 0
        """How often a connection came back that may have written; counted only beside replicas."""

    # --- a pool's life -------------------------------------------------------------------------

    @classmethod
    async def open(cls, config: PostgresConfig, *, driver: Driver | None = None) -> Pool:
        """Return a pool on the running loop, with `min_size` connections, at least one, unless `lazy`.

        Raises what the first connection fails with, mapped; if only later ones fail, the pool
        works with what it has and goes on trying.
        """
        pool = cls(config, driver)
        if config.replicas:
            from isthmus.backends.postgres.pool.replicas import ReplicaPool

            pool.reads = ReplicaPool(config, pool, driver)
        for each in pool._both():
            each._upkeep.start()
            each._guard = each._until_the_loop_ends()
            await anext(each._guard)
        if not config.pool.lazy:
            try:
                for each in pool._both():
                    await each._fill()
            except BaseException:
                pool.terminate()
                for each in pool._both():
                    await each._guard.aclose()  # type: ignore[union-attr]  # set above
                raise
        return pool

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """Drop everything when the loop shuts its generators down, as `asyncio.run` does at its end.

        It is the only moment that a loop tells before it is closed; afterwards its transports
        can be neither closed properly nor collected without a warning.
        """
        try:
            yield
        finally:
            if not self._closing:
                self.terminate()
                for _ in range(3):  # transports close in the turns after this one
                    await asyncio.sleep(0)

    def _both(self) -> tuple[Pool, ...]:
        return (self,) if self.reads is self else (self, self.reads)

    async def _fill(self) -> None:
        first = await self.acquire(self._hosts.patience(self._config.connect_timeout))
        self.release(first)
        while len(self.slots) < self.min_size and self.openings.tasks:
            await asyncio.wait(self.openings.tasks, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, timeout: float | None = CLOSE_SECONDS) -> None:
        """Hand out no more, wait for what is in use, close everything; after `timeout` drop the rest."""
        if self.reads is not self:
            await self.reads.close(timeout)
        self._begin_closing()
        try:
            async with asyncio.timeout(timeout):
                await self._emptied.wait()
        except TimeoutError:
            log.warning("dropping connections still in use: %s", holders(self.held.values(), monotonic()))
            self.terminate()
        if self._mending.tasks:
            await asyncio.wait(self._mending.tasks)
        if self._guard is not None:
            await self._guard.aclose()

    def _begin_closing(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._upkeep.stop()
        self.openings.stop()
        self.waiters.refuse(lambda: ClosedError("the pool is closing"))
        self._retire_idle()
        self._look_empty()

    def terminate(self) -> None:
        """Drop all connections now, those in use included."""
        if self.reads is not self:
            self.reads.terminate()
        self._begin_closing()
        self._mending.stop()
        for slot in list(self.slots):
            self._driver.terminate(slot.connection)
            self.gone(slot)
        self.held.clear()

    def discard(self) -> None:
        """Drop sockets without awaiting and without a warning; the loop may be dead."""
        if self.reads is not self:
            self.reads.discard()
        self._closing = True
        for slot in list(self.slots):
            self._driver.discard(slot.connection)
        self.slots.clear()
        self.idle.clear()
        self.held.clear()
        self.waiters = Waiters(self._loop)  # theirs is a dead loop: nobody is told

    def healthy(self) -> bool:
        """Return whether the pool can still serve; it reconnects by itself."""
        return not self._closing

    # --- taking and giving back ----------------------------------------------------------------

    def acquire(self, timeout: float | None = None, *, dirty: bool = False) -> Checkout:
        """Return a connection when awaited, or for the length of an `async with`.

        `timeout` None is the config's `pool.timeout`. `dirty` says that raw SQL will be run on
        it: the session is put back to its first state afterwards. Raises `PoolTimeoutError` that
        names the holders, `ConnectError` or `AccessError` if there is no connection and none can
        be made, `ClosedError`.
        """
        return Checkout(self, timeout, dirty=dirty)

    def release(self, connection: Any) -> Released:
        """Give a connection back; never waits. Raises `UsageError` if nobody holds it."""
        slot = self.held.pop(connection, None)
        if slot is None:
            if self._closing:
                return RELEASED  # terminated meanwhile
            raise UsageError("this connection is not held: released twice, or it is another pool's")
        if self.reads is not self:
            self.writes += not slot.reading
            slot.reading = False
        now = monotonic()
        self._use_seconds += now - slot.taken
        slot.task = None
        if (
            slot.dirty
            or slot.generation != self.generation
            or now >= slot.expires
            or slot.checkouts >= self._most_checkouts
            or self._closing
            or not self._ready(connection)
        ):
            self._mending.retire(slot)
        elif self.waiters:
            self.give(slot)
        else:
            slot.idle_since = now
            self.idle.append(slot)
        return RELEASED

    def pop(self) -> Any | None:
        """Take the connection that was used last, if it can be used at once."""
        if not self.idle:
            return None
        if asyncio.get_running_loop() is not self._loop:
            return None  # the slow way refuses it
        now = monotonic()
        slot = self.idle[-1]
        connection = slot.connection
        if now - slot.idle_since >= self._check_after or not self._alive(connection):
            return None  # the slow way looks closer
        self.idle.pop()
        self._hold(slot, asyncio.current_task(self._loop), now)
        return connection

    def _hold(self, slot: Slot, task: Holder, now: float) -> None:
        slot.task = task
        slot.taken = now
        slot.checkouts += 1
        self._acquired += 1
        if self._leak_report is not None:
            slot.stack = stack_here()
            slot.reported = False
        self.held[slot.connection] = slot

    async def take(self, timeout: float | None, *, dirty: bool) -> Any:
        """Take a connection, mark it, and run the `setup` hook; for `Checkout`."""
        connection = self.pop()
        if connection is None:
            connection = await self.wait(timeout)
        if dirty:
            self.held[connection].dirty = True
        if self._setup is not None:
            try:
                await self._setup(connection)
            except BaseException:
                # What the hook did to the session is unknown.
                self.spoil(connection)
                self.release(connection)
                raise
        return connection

    async def take_for_reading(self, timeout: float | None) -> Any:
        """Take a connection that will write nothing: replicas need not catch up with it."""
        connection = await self.take(timeout, dirty=False)
        self.held[connection].reading = True
        return connection

    async def wait(self, timeout: float | None) -> Any:
        """Take an idle connection after a check, or queue for one."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise UsageError(f"this pool belongs to {self._loop!r} and was used on {loop!r}")
        task = asyncio.current_task(loop)
        began = monotonic()
        try:
            while self.idle:
                slot = self.idle.pop()
                if not self._alive(slot.connection):
                    self._mending.retire(slot)
                    continue
                self._hold(slot, task, monotonic())
                if began - slot.idle_since < self._check_after or await self._mending.check(slot):
                    return slot.connection
            if self._closing:
                raise ClosedError("the pool is closed")
            slot = await self._queue(task, began, self._timeout if timeout is None else timeout)
            return slot.connection
        finally:
            self._wait_seconds += monotonic() - began

    async def _queue(self, task: Holder, began: float, timeout: float | None) -> Slot:
        limit = self._config.pool.max_waiting
        # Those for whom a connection is about to be opened do not count as waiting.
        if limit is not None and len(self.waiters) >= limit + self.max_size - len(self.slots):
            self._timeouts += 1
            raise PoolTimeoutError(f"{limit} callers wait for a connection already; {self._situation()}")
        waiter = self.waiters.join(task, began)
        alarm = None if timeout is None else self._loop.call_later(timeout, self._give_up, waiter, timeout)
        self.openings.more(called=True)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # Cancelled in the very moment of the hand-over: on to the next one.
                self.release(waiter.result().connection)
            else:
                self.waiters.leave(waiter)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()

    def _give_up(self, waiter: asyncio.Future[Slot], timeout: float) -> None:
        if waiter.done():
            return
        self.waiters.leave(waiter)
        self._timeouts += 1
        waiter.set_exception(
            PoolTimeoutError(f"no connection became free within {timeout:g} s; {self._situation()}")
        )

    def _situation(self) -> str:
        """Return sizes and holders; made once for the many that time out together."""
        now = monotonic()
        made, text = self._report
        if now - made > REPORT_SECONDS:
            text = (
                f"{len(self.slots)} of {self.max_size} open, {len(self.idle)} idle, "
                f"{len(self.waiters)} waiting; {holders(self.held.values(), now)}"
            )
            if len(self.slots) < self.max_size and self._last_refusal is not None:
                text += f"; the last attempt to open one failed: {self._last_refusal}"
            self._report = (now, text)
        return text

    def give(self, slot: Slot) -> None:
        """Hand a clean connection to the first who waits, or keep it."""
        now = monotonic()
        first = self.waiters.first()
        if first is not None:
            waiter, task = first
            self._hold(slot, task, now)
            waiter.set_result(slot)
            return
        slot.idle_since = now
        self.idle.append(slot)

    # --- looking after connections -------------------------------------------------------------

    def note(self, connection: Any, error: BaseException) -> None:
        """Draw conclusions from an error met with a connection; `async with acquire()` does it by itself."""
        slot = self.held.get(connection)
        if slot is None:
            return
        if tells_failover(error) or tells_stale_plan(error):
            self.expire(slot.generation)
        elif tells_read_only(error):
            # A standby after a failover, or only a write in a read-only transaction.
            slot.suspect = True
            slot.dirty = True

    def expire(self, generation: int | None = None) -> None:
        """Close idle connections now and those in use when they come back; new ones replace them.

        With `generation` only if that is still the current one, so that many who fail together
        expire it once.
        """
        if generation is not None and generation != self.generation:
            return
        self.generation += 1
        self._retire_idle()
        self.openings.more()

    def _retire_idle(self) -> None:
        idle = list(self.idle)
        self.idle.clear()
        for slot in idle:
            self.drop(slot)

    def keeps(self, slot: Slot) -> bool:
        """Return whether a connection is worth cleaning: neither old nor surplus."""
        return (
            not self._closing
            and slot.generation == self.generation
            and monotonic() < slot.expires
            and slot.checkouts < self._most_checkouts
            and len(self.slots) <= self.max_size
        )

    def drop(self, slot: Slot) -> None:
        """Close a connection that is neither idle nor held any more."""
        slot.generation = -1
        self._mending.retire(slot)

    def gone(self, slot: Slot) -> None:
        if slot in self.slots:
            self.slots.discard(slot)
            slot.ended.set()
            self._closed += 1
            self.openings.more()
        self._look_empty()

    def _look_empty(self) -> None:
        if self._closing and not self.slots and not self.openings:
            self._emptied.set()

    # --- opening -------------------------------------------------------------------------------

    async def _open_one(self) -> None:
        generation = self.generation
        connection = await self._hosts.connect(self._driver)
        try:
            if self._config.pool.init is not None:
                await self._config.pool.init(connection)
            if self._closing or generation != self.generation:
                raise ConnectionAbortedError("the pool's connections were expired meanwhile")
        except BaseException:
            self._driver.terminate(connection)
            raise
        lifetime = self._config.pool.max_lifetime
        # Jitter: connections opened together do not end together.
        ends = float("inf") if lifetime is None else monotonic() + lifetime * random.uniform(0.9, 1.0)  # noqa: S311
        slot = Slot(connection, generation, ends)
        slot.standby = self._driver.standby(connection)
        self.slots.add(slot)
        self._opened += 1
        self._last_refusal = None
        self.give(slot)

    def wanted(self, opening: int) -> int:
        """Return how many more connections could be of use, for `Openings`."""
        room = self.max_size - len(self.slots) - opening
        floor = self.min_size - len(self.slots) - opening
        return min(room, max(len(self.waiters) - opening, floor))

    def alone(self) -> bool:
        """Return whether there is no connection at all, for `Openings`."""
        return not self.slots

    def refused(self, error: Exception, began: float) -> bool:
        """Tell those who have waited since before a failed opening, unless some connection may come free."""
        self._last_refusal = error
        if self.slots:
            return False
        self.waiters.refuse(lambda: opening_failed(error), since=began)
        return bool(self.waiters)

    def ended(self) -> None:
        """Take note that an opening is over, for `Openings`."""
        self._look_empty()

    def resize(self, min_size: int, max_size: int) -> None:
        """Change the bounds; surplus idle connections are closed, those in use when they come back."""
        if not 0 <= min_size <= max_size or max_size < 1:
            raise UsageError(f"sizes must be 0 <= min <= max, max >= 1; got {min_size} and {max_size}")
        self.min_size, self.max_size = min_size, max_size
        while self.idle and len(self.slots) - self._leaving() > max_size:
            self.drop(self.idle.pop(0))
        self.openings.more()

    def _leaving(self) -> int:
        return sum(slot.generation != self.generation for slot in self.slots)

    async def drain(self, timeout: float | None = None) -> None:
        """Expire all connections and wait until the old ones are gone; raises `TimeoutError`."""
        old = {slot.ended for slot in self.slots}
        self.expire()
        async with asyncio.timeout(timeout):
            for ended in old:
                await ended.wait()

    def spoil(self, connection: Any) -> None:
        """Have a held connection closed when it comes back."""
        slot = self.held.get(connection)
        if slot is not None:
            slot.generation = -1

    def set_connect_args(self, **arguments: Any) -> None:
        """Override arguments of the driver's `connect` for connections to come."""
        self._driver.set_connect_args(**arguments)

    # --- reading -------------------------------------------------------------------------------

    @property
    def config(self) -> PostgresConfig:
        """The config that the pool was made with."""
        return self._config

    @property
    def driver(self) -> Driver:
        """The driver that opens the connections."""
        return self._driver

    @property
    def closing(self) -> bool:
        """Whether the pool hands out no more."""
        return self._closing

    def stats(self) -> PoolStats:
        """Return a snapshot of sizes and counters."""
        return PoolStats(
            size=len(self.slots),
            idle=len(self.idle),
            in_use=len(self.held),
            waiting=len(self.waiters),
            max_size=self.max_size,
            min_size=self.min_size,
            acquired=self._acquired,
            timeouts=self._timeouts,
            opened=self._opened,
            closed=self._closed,
            wait_seconds=self._wait_seconds,
            use_seconds=self._use_seconds,
        )
