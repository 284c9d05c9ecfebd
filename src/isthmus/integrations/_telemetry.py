"""Attributes of calls and metrics of pools for all exporters, named by the semantic conventions.

They never contain values: no record, id, operand, statement or URL, and no error message.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import weakref
from collections.abc import Callable, Mapping
from typing import TypeAlias

from isthmus._core.executor import PoolStats
from isthmus._database import AsyncDatabase
from isthmus._value import Value
from isthmus.layers.trace import Call

# Values of `db.system.name` where the conventions define one.
SYSTEMS = {"postgres": "postgresql", "sqlalchemy": "other_sql"}
DURATION = "db.client.operation.duration"
DURATION_DESCRIPTION = "Duration of database client operations."
# The buckets in seconds that the conventions recommend.
DURATION_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
ERROR = "error.type"
LAG = "isthmus.changes.lag"
LAG_DESCRIPTION = "How old a change can be that a follower was not given."
HELD = "isthmus.changes.held"
HELD_DESCRIPTION = "Whether an open transaction keeps a follower from changes that were committed."
FOLLOWER = "isthmus.follower"
POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
# How many seconds an exporter's thread waits for an event loop.
LOOP_TIMEOUT = 1.0


def call_attributes(call: Call) -> dict[str, str]:
    """Return the attributes of a call: system, operation and collection."""
    return {
        "db.system.name": SYSTEMS.get(call.backend, call.backend),
        "db.operation.name": call.operation,
        "db.collection.name": call.collection,
    }


def most_frequent_error(counts: Mapping[str, int]) -> str:
    """Return the `error.type` of a batch with failed items, from their number by class."""
    return max(counts, key=lambda name: counts[name])


def pool_name(db: AsyncDatabase) -> str:
    """Return the default name of a pool."""
    return f"{db.backend}/{db.collection_name}"


class PoolMetric(Value):
    """One metric of a pool."""

    name: str
    unit: str
    description: str
    values: Callable[[PoolStats], Mapping[str, int]]
    """The values by the attribute `key`; without a key, one value under an empty string."""
    key: str | None = None
    monotonic: bool = False
    """Whether it is a counter."""


POOL_METRICS = (
    PoolMetric(
        name="db.client.connection.count",
        unit="{connection}",
        description="Connections by state.",
        values=lambda s: {"idle": s.idle, "used": s.in_use},
        key=STATE,
    ),
    PoolMetric(
        name="db.client.connection.max",
        unit="{connection}",
        description="Maximum connections of the pool.",
        values=lambda s: {"": s.max_size},
    ),
    PoolMetric(
        name="db.client.connection.idle.min",
        unit="{connection}",
        description="Minimum connections of the pool.",
        values=lambda s: {"": s.min_size},
    ),
    PoolMetric(
        name="db.client.connection.pending_requests",
        unit="{request}",
        description="Calls waiting for a connection.",
        values=lambda s: {"": s.waiting},
    ),
    PoolMetric(
        name="db.client.connection.timeouts",
        unit="{timeout}",
        description="Waits for a connection that ended in PoolTimeoutError.",
        values=lambda s: {"": s.timeouts},
        monotonic=True,
    ),
)

StatsFuture: TypeAlias = "concurrent.futures.Future[PoolStats | None]"


class PoolProbe:
    """Reads the statistics of one event loop's pool from any thread."""

    def __init__(self, db: AsyncDatabase, loop: asyncio.AbstractEventLoop) -> None:
        self._db = weakref.ref(db)
        self._loop = loop

    def __call__(self) -> PoolStats | None:
        """Return the statistics; None if the handle is closed or its loop is stopped or busy for a second."""
        try:
            return self.request().result(LOOP_TIMEOUT)
        except TimeoutError:  # the loop is busy
            return None

    def request(self) -> StatsFuture:
        """Return a future of the statistics, so that a caller can wait for several loops at once."""
        future: StatsFuture = concurrent.futures.Future()
        if asyncio._get_running_loop() is self._loop:
            future.set_result(self._read())
        elif not self._loop.is_running():
            future.set_result(None)
        else:
            try:
                self._loop.call_soon_threadsafe(lambda: future.set_result(self._read()))
            except RuntimeError:  # the loop was closed in the meantime
                future.set_result(None)
        return future

    def observes(self, db: AsyncDatabase, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether it observes this handle on this loop."""
        return self._db() is db and self._loop is loop

    @property
    def finished(self) -> bool:
        """Whether there will be no statistics any more; a closed handle may be opened again."""
        return self._db() is None or self._loop.is_closed()

    def _read(self) -> PoolStats | None:
        db = self._db()
        return None if db is None or db.closed else db.stats().pool
