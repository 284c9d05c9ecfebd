"""The connections of a pool: what is recorded about each, and checkouts of them."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Collection, Generator, Iterable
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from isthmus.backends.postgres.pool.pool import Pool

log = logging.getLogger("isthmus.postgres.pool")

Holder: TypeAlias = "asyncio.Task[Any] | None"

_MAX_FRAMES = 24
_MAX_NAMED_HOLDERS = 5


class PooledConnection:
    """One driver connection of a pool, with its age, its use and its holder; times are the pool's clock's."""

    def __init__(
        self, connection: Any, generation: int, expires_at: float, *, is_standby: bool | None
    ) -> None:
        self.connection = connection
        self.generation = generation
        """The pool's generation when it was opened; -1: to be closed when it comes back."""
        self.expires_at = expires_at
        self.is_standby = is_standby
        """What the server reported when it was opened; None if it did not."""
        self.checkouts = 0
        self.idle_since = 0.0
        self.taken_at = 0.0
        self.holder: Holder = None
        self.stack: list[tuple[CodeType, int]] | None = None
        """Where it was taken, with `leak_report`."""
        self.leak_reported = False
        self.dirty = False
        """Raw SQL was run: the session needs a full reset before its next use."""
        self.interrupted = False
        """A call was cancelled: the session has to be settled before its next use."""
        self.suspect = False
        """The server refused a write: check whether it has become a standby."""
        self.read_only_use = False
        """The holder writes nothing."""
        self.replayed_writes = 0
        """On a replica: how many of the primary's writes it is known to have replayed."""
        self.closed = asyncio.Event()

    def describe_holder(self, now: float) -> str:
        """Return who holds the connection and for how long, with the stack if it was kept."""
        task = self.holder
        name = "a task that is gone" if task is None else task.get_name()
        if task is not None and task.done():
            name += " (which has ended: the connection was never released)"
        text = f"{name} for {now - self.taken_at:.1f} s"
        if self.stack:
            text += ", taken at\n" + _format_stack(self.stack)
        return text


def describe_holders(held: Iterable[PooledConnection], now: float) -> str:
    """Return the oldest holders as one text; `held` is in the order in which they were taken."""
    oldest: list[str] = []
    more = 0
    for pooled in held:
        if len(oldest) < _MAX_NAMED_HOLDERS:
            oldest.append(pooled.describe_holder(now))
        else:
            more += 1
    if not oldest:
        return "none is held: they are being opened, reset or closed"
    return "held by " + "; ".join(oldest) + (f"; and {more} more" if more else "")


def warn_of_holders(held: Collection[PooledConnection], now: float) -> None:
    """Log who holds connections that are about to be dropped, if anybody does."""
    if held:
        log.warning("dropping connections still in use: %s", describe_holders(held, now))


def capture_stack() -> list[tuple[CodeType, int]]:
    """Return the caller's frames as code and line, without keeping the frames alive."""
    frames: list[tuple[CodeType, int]] = []
    frame = sys._getframe(1)
    while frame is not None and len(frames) < _MAX_FRAMES:
        frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    return frames


def _format_stack(stack: list[tuple[CodeType, int]]) -> str:
    entries = [(code.co_filename, line, code.co_name, None) for code, line in reversed(stack)]
    internal = ("/asyncio/", "/backends/postgres/pool/")
    outside = [entry for entry in entries if not any(part in entry[0] for part in internal)]
    return "".join(traceback.StackSummary.from_list(outside or entries).format()).rstrip()


class Released:
    """The result of `release`, which may be awaited as in asyncpg; that does nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


RELEASED = Released()


class Checkout:
    """A pending checkout: await it for a connection, or enter it to release on exit."""

    __slots__ = ("_connection", "_dirty", "_pool", "_timeout")

    def __init__(self, pool: Pool, timeout: float | None, *, dirty: bool) -> None:
        self._pool = pool
        self._timeout = timeout
        self._dirty = dirty
        self._connection: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._pool.take(self._timeout, dirty=self._dirty).__await__()

    async def __aenter__(self) -> Any:
        pool = self._pool
        connection = pool.take_idle() if pool.direct and not self._dirty else None
        if connection is None:
            connection = await pool.take(self._timeout, dirty=self._dirty)
        self._connection = connection
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if error is not None:
            self._pool.note_error(connection, error)
        self._pool.release(connection)
