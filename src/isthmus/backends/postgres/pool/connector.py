"""Opens connections in the background: to which host, how many at once, and with which pauses."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from isthmus._core.clock import Clock
from isthmus.backends.postgres.address import Address
from isthmus.backends.postgres.config import PoolConfig
from isthmus.backends.postgres.errors import connect_error
from isthmus.backends.postgres.pool.pooled_connection import PooledConnection
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.backends.postgres.drivers.protocol import Driver

log = logging.getLogger("isthmus.postgres.pool")

# Seconds between attempts. With the longest one a pool serves within two seconds of a server's return.
MIN_PAUSE, MAX_PAUSE = 0.05, 1.5

_CLOSE_SECONDS = 5.0

_TRY_NEXT_HOST = ("57P", "08", "53", "25006")


class Hosts:
    """The hosts of a pool: tried one after another, beginning with the one that served last.

    With `last_resort` they are replicas, which share the load: every connection goes to the next
    one in turn, and to the hosts of `last_resort` if none of them serves. `shuffled`: every
    connection tries the hosts in another order.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        attrs: str,
        *,
        last_resort: Sequence[Address] = (),
        shuffled: bool = False,
    ) -> None:
        self._shuffled = shuffled
        self._addresses = addresses
        self._last_resort = last_resort
        self._passes = ("standby", "any") if attrs == "prefer-standby" else (attrs,)
        self._start = random.randrange(len(addresses)) if last_resort else 0  # noqa: S311

    def max_connect_seconds(self, connect_timeout: float) -> float:
        """Return the seconds that `connect` can take when every host uses its whole timeout."""
        hosts = len(self._addresses) + len(self._last_resort)
        return connect_timeout * (hosts * len(self._passes) + 1)

    async def connect(self, driver: Driver) -> Any:
        """Return a connection to the first host that answers and has the session attributes.

        Raises the last host's error, with the messages of the others, if there is none. As in libpq, a host
        that refuses the credentials ends the search. `prefer-standby` takes any server if no standby answers.
        """
        failures: list[IsthmusError] = []
        for address, attrs in self._candidates():
            try:
                connection = await driver.open(address, attrs)
            except Exception as error:
                failures.append(connect_error(error, address))
                if not _is_worth_another_host(error):
                    raise failures[-1] from error
            else:
                self._remember(address)
                return connection
        assert failures, "there is at least one host"
        raise _name_others(failures[-1], failures[:-1])

    def _candidates(self) -> Iterator[tuple[Address, str]]:
        rotated = [*self._addresses[self._start :], *self._addresses[: self._start]]
        if self._shuffled:
            random.shuffle(rotated)
        for attrs in self._passes:
            for address in (*rotated, *self._last_resort):
                yield address, attrs

    def _remember(self, address: Address) -> None:
        if address in self._addresses:
            index = self._addresses.index(address)
            self._start = (index + 1) % len(self._addresses) if self._last_resort else index


def _name_others(failure: IsthmusError, others: Sequence[IsthmusError]) -> IsthmusError:
    """Return the last host's error with the messages of the hosts that were tried before."""
    messages = dict.fromkeys(str(other) for other in others if str(other) != str(failure))
    if messages:
        failure.args = (f"{failure}; before that: {'; '.join(messages)}", *failure.args[1:])
    return failure


def _is_worth_another_host(error: Exception) -> bool:
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_TRY_NEXT_HOST)
    # psycopg's OperationalError has no SQLSTATE when the server never answered.
    return isinstance(error, OSError | TimeoutError) or type(error).__name__ == "OperationalError"


class Demand(Protocol):
    """A pool, as its connector sees it."""

    generation: int
    is_closing: bool

    def add(self, pooled: PooledConnection) -> None:
        """Take over a new connection."""
        ...

    def count_wanted(self, opening: int) -> int:
        """Return how many more connections could be used, given how many are being opened."""
        ...

    def is_empty(self) -> bool:
        """Return whether the pool has no connection at all."""
        ...

    def report_failure(self, error: Exception, started: float) -> bool:
        """Handle a failed attempt that began at `started`; return whether to try again at once."""
        ...

    def attempt_ended(self) -> None:
        """Handle the end of an attempt, whatever became of it."""
        ...


class Connector:
    """Runs a pool's attempts to open connections, at most `max_opening` at once.

    After a failure attempts pause, twice as long each time. When they have failed for
    `reconnect_timeout` seconds and the pool is empty, the next caller starts them again.
    """

    def __init__(
        self, demand: Demand, hosts: Hosts, driver: Driver, options: PoolConfig, clock: Clock
    ) -> None:
        self._demand = demand
        self._hosts = hosts
        self._driver = driver
        self._options = options
        self._now = clock.now
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._failures = 0
        self._failing_since = 0.0
        self._stopped = False
        self._gave_up = False

    def __len__(self) -> int:
        """Return how many attempts are running."""
        return len(self._tasks)

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """The running attempts."""
        return frozenset(self._tasks)

    def open_more(self, *, urgent: bool = False) -> None:
        """Start as many attempts as are wanted and allowed.

        `urgent`: for a caller that waits. When the pool is empty it ends the pause after a failure,
        so that the caller gets its connection, or the error, at once.
        """
        if self._stopped or (self._gave_up and not urgent):
            return
        self._gave_up = False
        if self._pause is not None:
            if not (urgent and self._demand.is_empty()):
                return
            self._pause.cancel()
            self._pause = None
        while (
            len(self._tasks) < self._options.max_opening and self._demand.count_wanted(len(self._tasks)) > 0
        ):
            task = asyncio.get_running_loop().create_task(self._run(), name="isthmus-postgres-open")
            self._tasks.add(task)

    async def _run(self) -> None:
        started = self._now()
        failure: Exception | None = None
        try:
            self._demand.add(await self._open())
        except Exception as error:  # of any kind: the waiters get it, and the next attempt is paused
            failure = error
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)
            self._demand.attempt_ended()
        if self._stopped:
            return
        if failure is None:
            self._failures = 0
            self.open_more()
        else:
            self._back_off(failure, started)

    async def _open(self) -> PooledConnection:
        generation = self._demand.generation
        connection = await self._hosts.connect(self._driver)
        options = self._options
        try:
            if options.init is not None:
                await options.init(connection)
            if self._demand.is_closing or generation != self._demand.generation:
                raise ConnectionAbortedError("the pool's connections were expired meanwhile")
        except BaseException:
            self._driver.terminate(connection)
            raise
        expires_at = float("inf")
        if options.max_lifetime is not None:
            # Jitter: connections opened together do not end together.
            expires_at = self._now() + options.max_lifetime * random.uniform(0.9, 1.0)  # noqa: S311
        standby = self._driver.is_standby(connection)
        return PooledConnection(connection, generation, expires_at, is_standby=standby)

    @asynccontextmanager
    async def open_apart(self) -> AsyncIterator[Any]:
        """Open a connection that the pool does not count and nobody waits for; close it at the end."""
        connection = (await self._open()).connection
        try:
            if self._options.setup is not None:
                await self._options.setup(connection)
            yield connection
            await self._driver.close(connection, _CLOSE_SECONDS)
        except BaseException:
            self._driver.terminate(connection)
            raise

    def _back_off(self, error: Exception, started: float) -> None:
        now = self._now()
        if self._failures == 0:
            self._failing_since = now
        self._failures += 1
        log.debug("opening a connection failed (%d in a row): %s", self._failures, error)
        if self._demand.report_failure(error, started):
            self.open_more(urgent=True)
        elif self._demand.is_empty() and now - self._failing_since > self._options.reconnect_timeout:
            self._failures = 0
            self._gave_up = True
        elif self._pause is None:
            pause = min(MAX_PAUSE, MIN_PAUSE * 2.0 ** min(self._failures - 1, 10))
            # Jitter: the processes of one service lose their server at the same moment.
            pause *= random.uniform(0.5, 1.0)  # noqa: S311
            self._pause = asyncio.get_running_loop().call_later(pause, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self.open_more()

    def stop(self) -> None:
        """Start no more attempts and cancel the running ones."""
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for task in list(self._tasks):
            task.cancel()
