"""What all exporters of telemetry tell: a call's names, a pool's figures, by the semantic conventions.

Never values: no record, id, operand, statement or URL, and no error's message.
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

# The conventions' names where they have one.
SYSTEMS = {"postgres": "postgresql", "sqlalchemy": "other_sql"}
DURATION = "db.client.operation.duration"
DURATION_TEXT = "Duration of database client operations."
# What the conventions advise for it.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
ERROR = "error.type"
POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
# An exporter's thread waits this long for the loop to answer.
PATIENCE = 1.0


def names_of(call: Call) -> dict[str, str]:
    """Return a call's attributes: what it was, and on what."""
    return {
        "db.system.name": SYSTEMS.get(call.backend, call.backend),
        "db.operation.name": call.operation,
        "db.collection.name": call.collection,
    }


def most_frequent(items: Mapping[str, int]) -> str:
    """Return the `error.type` of a batch of which items failed: the class of most of them."""
    return max(items, key=lambda name: items[name])


def pool_name(db: AsyncDatabase) -> str:
    """Return what a pool is called unless the application says otherwise."""
    return f"{db.backend}/{db.collection_name}"


class Figure(Value):
    """One metric of a pool."""

    name: str
    unit: str
    text: str
    values: Callable[[PoolStats], Mapping[str, int]]
    """By the attribute `key`, or one value under an empty text."""
    key: str | None = None
    grows: bool = False
    """Whether it only grows, as a counter does."""


FIGURES = (
    Figure(
        name="db.client.connection.count",
        unit="{connection}",
        text="Connections by state.",
        values=lambda s: {"idle": s.idle, "used": s.in_use},
        key=STATE,
    ),
    Figure(
        name="db.client.connection.max",
        unit="{connection}",
        text="Connections that the pool may have.",
        values=lambda s: {"": s.max_size},
    ),
    Figure(
        name="db.client.connection.idle.min",
        unit="{connection}",
        text="Connections that the pool keeps.",
        values=lambda s: {"": s.min_size},
    ),
    Figure(
        name="db.client.connection.pending_requests",
        unit="{request}",
        text="Calls that wait for a connection.",
        values=lambda s: {"": s.waiting},
    ),
    Figure(
        name="db.client.connection.timeouts",
        unit="{timeout}",
        text="Waits for a connection that ended by PoolTimeoutError.",
        values=lambda s: {"": s.timeouts},
        grows=True,
    ),
)

Answer: TypeAlias = "concurrent.futures.Future[PoolStats | None]"


class Look:
    """Takes a snapshot of one loop's pool from whatever thread an exporter runs on."""

    def __init__(self, db: AsyncDatabase, loop: asyncio.AbstractEventLoop) -> None:
        self._db = weakref.ref(db)
        self._loop = loop

    def __call__(self) -> PoolStats | None:
        """Return the figures, or None if the handle is closed or its loop does not answer."""
        try:
            return self.asked().result(PATIENCE)
        except TimeoutError:  # a loop that is busy
            return None

    def asked(self) -> Answer:
        """Return the answer to come, for one who asks several loops before waiting for any."""
        answer: Answer = concurrent.futures.Future()
        if asyncio._get_running_loop() is self._loop:
            answer.set_result(self._read())
        elif not self._loop.is_running():
            answer.set_result(None)
        else:
            try:
                self._loop.call_soon_threadsafe(lambda: answer.set_result(self._read()))
            except RuntimeError:  # closed just now
                answer.set_result(None)
        return answer

    def sees(self, db: AsyncDatabase, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether it looks at this handle on this loop."""
        return self._db() is db and self._loop is loop

    @property
    def over(self) -> bool:
        """Whether there will never be an answer again; a closed handle may be opened again."""
        return self._db() is None or self._loop.is_closed()

    def _read(self) -> PoolStats | None:
        db = self._db()
        return None if db is None or db.closed else db.stats().pool
