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
from collections import OrderedDict
from collections.abc import Coroutine, Generator
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from isthmus._executor import PoolStats
from isthmus.backends.postgres.connect import Hosts
from isthmus.backends.postgres.driver import Driver, driver_for
from isthmus.backends.postgres.failures import opening_failed, tells_failover, tells_read_only, tells_stale_plan
from isthmus.backends.postgres.openings import Openings
from isthmus.backends.postgres.slots import Slot, holder, holders, stack_here
from isthmus.errors import ClosedError, PoolTimeoutError, UsageError

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PostgresConfig

log = logging.getLogger("isthmus.postgres.pool")

MEND_SECONDS = 5.0
CHECK_SECONDS = 5.0
GOODBYE_SECONDS = 2.0
CLOSE_SECONDS = 60.0
QUICKEST_TICK, SLOWEST_TICK = 0.02, 5.0
REPORT_SECONDS = 0.02


class _Released:
    """What `release` returns: awaiting it is allowed, as asyncpg's users do, and does nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


RELEASED = _Released()


class Checkout:
    """A connection to be: awaited it is the connection, entered it is released on leaving."""

    __slots__ = ("_connection", "_dirty", "_pool", "_timeout")

    def __init__(self, pool: Pool, timeout: float | None, dirty: bool) -> None:  # noqa: FBT001
        self._pool = pool
        self._timeout = timeout
        self._dirty = dirty
        self._connection: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._pool._take(self._timeout, self._dirty).__await__()

    async def __aenter__(self) -> Any:
        pool = self._pool
        if pool._plain and not self._dirty:
            connection = pool._pop()
            if connection is None:
                connection = await pool._wait(self._timeout)
        else:
            connection = await pool._take(self._timeout, self._dirty)
        self._connection = connection
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if error is not None:
            self._pool.note(connection, error)
        self._pool.release(connection)


class Pool:
    """Connections to one server, or one set of hosts; made by `Pool.open`."""

    def __init__(
        self, config: PostgresConfig, driver: Driver | None = None, *, for_reads: bool = False
    ) -> None:
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._driver = driver_for(config) if driver is None else driver
        self._ready = self._driver.ready
        self._alive = self._driver.alive
        self._attrs = "any" if for_reads else config.session_attrs()
        if for_reads:
            self._hosts = Hosts(config.replica_addresses(), "any", last_resort=config.addresses())
        else:
            self._hosts = Hosts(config.addresses(), self._attrs)
        options = config.pool
        self._min, self._max = options.min_size, options.max_size
        self._timeout = options.timeout
        self._max_queries = options.max_queries
        self._check_after = options.check_after
        self._setup = options.setup
        self._leak_report = options.leak_report
        # Nothing to do at a checkout but to take a connection.
        self._plain = options.setup is None
        self._slots: set[Slot] = set()
        self._idle: list[Slot] = []
        self._held: dict[Any, Slot] = {}
        self._waiters: OrderedDict[asyncio.Future[Slot], tuple[asyncio.Task[Any], float]] = OrderedDict()
        self._background: set[asyncio.Task[None]] = set()
        self._openings = Openings(
            self, self._open_one, limit=options.max_opening, patience=options.reconnect_timeout
        )
        self._generation = 0
        self._closing = False
        self._emptied = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None
        self._last_refusal: Exception | None = None
        self._report: tuple[float, str] = (float("-inf"), "")
        self._acquired = self._timeouts = self._opened = self._closed = 0
        self._wait_seconds = self._use_seconds = 0.0
        self.reads: Pool = self
        """The pool for reads outside of transactions: this one, unless the config names replicas."""

    # --- a pool's life -------------------------------------------------------------------------

    @classmethod
    async def open(cls, config: PostgresConfig, *, driver: Driver | None = None) -> Pool:
        """Return a pool on the running loop, with `min_size` connections, at least one, unless `lazy`.

        Raises what the first connection fails with, mapped; if only later ones fail, the pool
        works with what it has and goes on trying.
        """
        pool = cls(config, driver)
        if config.replicas:
            pool.reads = cls(config, driver, for_reads=True)
        for each in pool._both():
            each._schedule_tick()
        if not config.pool.lazy:
            try:
                for each in pool._both():
                    await each._fill()
            except BaseException:
                pool.terminate()
                raise
        return pool

    def _both(self) -> tuple[Pool, ...]:
        return (self,) if self.reads is self else (self, self.reads)

    async def _fill(self) -> None:
        first = await self.acquire(self._hosts.patience(self._config.connect_timeout))
        self.release(first)
        while len(self._slots) < self._min and self._openings.tasks:
            await asyncio.wait(self._openings.tasks, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, timeout: float | None = CLOSE_SECONDS) -> None:
        """Hand out no more, wait for what is in use, and close everything; the rest is dropped after `timeout`."""
        if self.reads is not self:
            await self.reads.close(timeout)
        self._begin_closing()
        try:
            async with asyncio.timeout(timeout):
                await self._emptied.wait()
        except TimeoutError:
            log.warning("dropping connections still in use: %s", holders(self._held.values(), monotonic()))
            self.terminate()
        if self._background:
            await asyncio.wait(set(self._background))

    def _begin_closing(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._tick is not None:
            self._tick.cancel()
        self._openings.stop()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(ClosedError("the pool is closing"))
        self._waiters.clear()
        self._retire_idle()
        self._look_empty()

    def terminate(self) -> None:
        """Drop all connections now, those in use included."""
        if self.reads is not self:
            self.reads.terminate()
        self._begin_closing()
        for task in list(self._background):
            task.cancel()
        for slot in list(self._slots):
            self._driver.terminate(slot.connection)
            self._gone(slot)
        self._held.clear()

    def abandon(self) -> None:
        """Drop sockets without awaiting and without a warning; the loop may be dead."""
        if self.reads is not self:
            self.reads.abandon()
        self._closing = True
        for slot in list(self._slots):
            self._driver.abandon(slot.connection)
        self._slots.clear()
        self._idle.clear()
        self._held.clear()
        self._waiters.clear()

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
        return Checkout(self, timeout, dirty)

    def release(self, connection: Any) -> _Released:
        """Give a connection back; never waits. Raises `UsageError` if nobody holds it."""
        slot = self._held.pop(connection, None)
        if slot is None:
            if self._closing:
                return RELEASED  # terminated meanwhile
            raise UsageError("this connection is not held: released twice, or it is another pool's")
        now = monotonic()
        self._use_seconds += now - slot.taken
        slot.task = None
        if (
            slot.dirty
            or slot.generation != self._generation
            or now >= slot.expires
            or slot.checkouts >= self._max_queries
            or self._closing
            or not self._ready(connection)
        ):
            self._retire(slot)
        elif self._waiters:
            self._give(slot)
        else:
            slot.idle_since = now
            self._idle.append(slot)
        return RELEASED

    def _pop(self) -> Any | None:
        """Take the connection that was used last, if it can be used at once."""
        if not self._idle:
            return None
        task = asyncio.current_task(self._loop)
        now = monotonic()
        slot = self._idle[-1]
        connection = slot.connection
        if task is None or now - slot.idle_since >= self._check_after or not self._alive(connection):
            return None  # the slow way looks closer
        self._idle.pop()
        self._hold(slot, task, now)
        return connection

    def _hold(self, slot: Slot, task: asyncio.Task[Any], now: float) -> None:
        slot.task = task
        slot.taken = now
        slot.checkouts += 1
        self._acquired += 1
        if self._leak_report is not None:
            slot.stack = stack_here()
            slot.reported = False
        self._held[slot.connection] = slot

    async def _take(self, timeout: float | None, dirty: bool) -> Any:  # noqa: FBT001
        connection = self._pop()
        if connection is None:
            connection = await self._wait(timeout)
        if dirty:
            self._held[connection].dirty = True
        if self._setup is not None:
            try:
                await self._setup(connection)
            except BaseException:
                # What the hook did to the session is unknown.
                self._held[connection].generation = -1
                self.release(connection)
                raise
        return connection

    async def _wait(self, timeout: float | None) -> Any:
        """Take an idle connection after a check, or queue for one."""
        task = asyncio.current_task(self._loop)
        if task is None:
            raise UsageError(
                f"this pool belongs to {self._loop!r} and was used on {asyncio.get_running_loop()!r}"
            )
        began = monotonic()
        try:
            while self._idle:
                slot = self._idle.pop()
                if not self._alive(slot.connection):
                    self._retire(slot)
                    continue
                self._hold(slot, task, monotonic())
                if began - slot.idle_since < self._check_after or await self._check(slot):
                    return slot.connection
            if self._closing:
                raise ClosedError("the pool is closed")
            slot = await self._queue(task, began, self._timeout if timeout is None else timeout)
            return slot.connection
        finally:
            self._wait_seconds += monotonic() - began

    async def _queue(self, task: asyncio.Task[Any], began: float, timeout: float | None) -> Slot:
        limit = self._config.pool.max_waiting
        # Those for whom a connection is about to be opened do not count as waiting.
        if limit is not None and len(self._waiters) >= limit + self._max - len(self._slots):
            self._timeouts += 1
            raise PoolTimeoutError(f"{limit} callers wait for a connection already; {self._situation()}")
        waiter: asyncio.Future[Slot] = self._loop.create_future()
        self._waiters[waiter] = (task, began)
        alarm = None if timeout is None else self._loop.call_later(timeout, self._give_up, waiter, timeout)
        self._openings.more(called=True)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # Cancelled in the very moment of the hand-over: on to the next one.
                self.release(waiter.result().connection)
            else:
                self._waiters.pop(waiter, None)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()

    def _give_up(self, waiter: asyncio.Future[Slot], timeout: float) -> None:
        if waiter.done():
            return
        self._waiters.pop(waiter, None)
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
                f"{len(self._slots)} of {self._max} open, {len(self._idle)} idle, "
                f"{len(self._waiters)} waiting; {holders(self._held.values(), now)}"
            )
            if len(self._slots) < self._max and self._last_refusal is not None:
                text += f"; the last attempt to open one failed: {self._last_refusal}"
            self._report = (now, text)
        return text

    def _give(self, slot: Slot) -> None:
        """Hand a clean connection to the first who waits, or keep it."""
        now = monotonic()
        while self._waiters:
            waiter, (task, _) = self._waiters.popitem(last=False)
            if not waiter.done():
                self._hold(slot, task, now)
                waiter.set_result(slot)
                return
        slot.idle_since = now
        self._idle.append(slot)

    # --- looking after connections -------------------------------------------------------------

    async def _check(self, slot: Slot) -> bool:
        """Ask a connection that was idle for long whether it still serves what we want."""
        connection = slot.connection
        try:
            standby = await self._driver.in_recovery(connection, CHECK_SECONDS)
        except BaseException as error:
            slot.generation = -1
            self.release(connection)
            if not isinstance(error, Exception):
                raise
            log.debug("an idle connection did not answer: %s", error)
            if isinstance(error, TimeoutError):
                # Silence, not refusal: the way is cut, and it is for the others as well.
                self.expire()
            return False
        if self._fits(slot, standby):
            return True
        generation = slot.generation
        self.release(connection)
        self.expire(generation)
        return False

    def _fits(self, slot: Slot, standby: bool) -> bool:  # noqa: FBT001
        match self._attrs:
            case "read-write" | "primary":
                return not standby
            case "standby" | "read-only":
                return standby
            case _:
                return not standby or slot.standby is not False

    def note(self, connection: Any, error: BaseException) -> None:
        """Draw conclusions from an error met with a connection; `async with acquire()` does it by itself."""
        slot = self._held.get(connection)
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
        if generation is not None and generation != self._generation:
            return
        self._generation += 1
        self._retire_idle()
        self._openings.more()

    def _retire_idle(self) -> None:
        idle = list(self._idle)
        self._idle.clear()
        for slot in idle:
            self._retire(slot)

    def _retire(self, slot: Slot) -> None:
        """Mend a connection or close it, in the background."""
        if not self._alive(slot.connection):
            self._driver.terminate(slot.connection)
            self._gone(slot)
        else:
            self._spawn(self._mend(slot))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work, name="isthmus-postgres-mend")
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _mend(self, slot: Slot) -> None:
        clean = False
        try:
            if self._keeps(slot):
                async with asyncio.timeout(MEND_SECONDS):
                    await self._clean(slot)
                clean = self._keeps(slot) and self._ready(slot.connection)
            if not clean:
                await self._driver.close(slot.connection, GOODBYE_SECONDS)
        except Exception as error:  # of any kind: the connection is dropped, which mends everything
            log.debug("a connection could not be mended: %s", error)
        finally:
            if clean:
                slot.dirty = False
                self._give(slot)
            else:
                self._driver.terminate(slot.connection)
                self._gone(slot)

    async def _clean(self, slot: Slot) -> None:
        connection = slot.connection
        if slot.suspect:
            slot.suspect = False
            await self._driver.settle(connection)
            if not self._fits(slot, await self._driver.in_recovery(connection, CHECK_SECONDS)):
                self.expire(slot.generation)
                return
        if not slot.dirty:
            await self._driver.settle(connection)
        elif self._config.pool.reset is not None:
            await self._driver.settle(connection)
            await self._config.pool.reset(connection)
        else:
            await self._driver.reset(connection)

    def _keeps(self, slot: Slot) -> bool:
        return (
            not self._closing
            and slot.generation == self._generation
            and monotonic() < slot.expires
            and slot.checkouts < self._max_queries
            and len(self._slots) <= self._max
        )

    def _gone(self, slot: Slot) -> None:
        if slot in self._slots:
            self._slots.discard(slot)
            self._closed += 1
            self._openings.more()
        self._look_empty()

    def _look_empty(self) -> None:
        if self._closing and not self._slots and not self._openings:
            self._emptied.set()

    # --- opening -------------------------------------------------------------------------------

    async def _open_one(self) -> None:
        generation = self._generation
        connection = await self._hosts.connect(self._driver)
        try:
            if self._config.pool.init is not None:
                await self._config.pool.init(connection)
            if self._closing or generation != self._generation:
                raise ConnectionAbortedError("the pool's connections were expired meanwhile")
        except BaseException:
            self._driver.terminate(connection)
            raise
        lifetime = self._config.pool.max_lifetime
        # Jitter: connections opened together do not end together.
        ends = float("inf") if lifetime is None else monotonic() + lifetime * random.uniform(0.9, 1.0)
        slot = Slot(connection, generation, ends)
        slot.standby = self._driver.standby(connection)
        self._slots.add(slot)
        self._opened += 1
        self._last_refusal = None
        self._give(slot)

    def wanted(self, opening: int) -> int:
        """Return how many more connections could be of use, for `Openings`."""
        room = self._max - len(self._slots) - opening
        floor = self._min - len(self._slots) - opening
        return min(room, max(len(self._waiters) - opening, floor))

    def alone(self) -> bool:
        """Return whether there is no connection at all, for `Openings`."""
        return not self._slots

    def refused(self, error: Exception, began: float) -> bool:
        """Tell those who have waited since before a failed opening, unless some connection may come free."""
        self._last_refusal = error
        if self._slots:
            return False
        while self._waiters:
            waiter, (_, since) = next(iter(self._waiters.items()))
            if since > began:
                return True
            del self._waiters[waiter]
            if not waiter.done():
                waiter.set_exception(opening_failed(error))
        return False

    def ended(self) -> None:
        """Take note that an opening is over, for `Openings`."""
        self._look_empty()

    # --- upkeep --------------------------------------------------------------------------------

    def _schedule_tick(self) -> None:
        options = self._config.pool
        spans = [s for s in (options.max_idle, options.max_lifetime, options.leak_report) if s is not None]
        pause = min(SLOWEST_TICK, max(QUICKEST_TICK, min(spans, default=SLOWEST_TICK) / 4))
        self._tick = self._loop.call_later(pause, self._on_tick)

    def _on_tick(self) -> None:
        now = monotonic()
        max_idle = self._config.pool.max_idle
        kept = []
        spare = len(self._slots) - self._min
        for slot in self._idle:  # from the one that was idle for the longest
            idle_too_long = max_idle is not None and now - slot.idle_since >= max_idle and spare > 0
            if idle_too_long or now >= slot.expires or not self._alive(slot.connection):
                spare -= 1
                slot.generation = -1
                self._retire(slot)
            else:
                kept.append(slot)
        self._idle[:] = kept
        self._report_leaks(now)
        self._openings.more()
        self._schedule_tick()

    def _report_leaks(self, now: float) -> None:
        if self._leak_report is None:
            return
        for slot in self._held.values():
            if not slot.reported and now - slot.taken >= self._leak_report:
                slot.reported = True
                log.warning("a connection is held by %s", holder(slot, now))

    def resize(self, min_size: int, max_size: int) -> None:
        """Change the bounds; surplus idle connections are closed, those in use when they come back."""
        if not 0 <= min_size <= max_size or max_size < 1:
            raise UsageError(f"sizes must be 0 <= min <= max, max >= 1; got {min_size} and {max_size}")
        self._min, self._max = min_size, max_size
        while self._idle and len(self._slots) - self._leaving() > max_size:
            slot = self._idle.pop(0)
            slot.generation = -1
            self._retire(slot)
        self._openings.more()

    def _leaving(self) -> int:
        return sum(slot.generation != self._generation for slot in self._slots)

    async def drain(self, timeout: float | None = None) -> None:
        """Expire all connections and wait until the old ones are gone; raises `TimeoutError`."""
        old = set(self._slots)
        self.expire()
        async with asyncio.timeout(timeout):
            while old & self._slots:
                await asyncio.sleep(0.005)

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
            size=len(self._slots),
            idle=len(self._idle),
            in_use=len(self._held),
            waiting=len(self._waiters),
            max_size=self._max,
            min_size=self._min,
            acquired=self._acquired,
            timeouts=self._timeouts,
            opened=self._opened,
            closed=self._closed,
            wait_seconds=self._wait_seconds,
            use_seconds=self._use_seconds,
        )
