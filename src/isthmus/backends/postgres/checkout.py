"""What `acquire` and `release` return: things that can be awaited, or entered, as asyncpg's users write."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.backends.postgres.pool.pool import Pool


class Released:
    """What `release` returns: awaiting it is allowed, as asyncpg's users do, and does nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


RELEASED = Released()


class Checkout:
    """A connection to be: awaited it is the connection, entered it is released on leaving."""

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
        if pool.plain and not self._dirty:
            connection = pool.pop()
            if connection is None:
                connection = await pool.wait(self._timeout)
        else:
            connection = await pool.take(self._timeout, dirty=self._dirty)
        self._connection = connection
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if error is not None:
            self._pool.note(connection, error)
        self._pool.release(connection)
