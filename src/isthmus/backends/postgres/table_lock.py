"""Locks a table to change its definition, without readers that queue behind a lock that is not granted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import sqlstate_of
from isthmus.backends.postgres.sql.table import Table

_ATTEMPTS = 15
_PATIENCE = 1_000
"""Milliseconds of each attempt: while it waits, all that come after it wait too."""
_PAUSE = 1.0
_NOT_AVAILABLE = "55P03"


@contextlib.asynccontextmanager
async def lock_table(
    connection: Connection, table: Table, mode: str = "ACCESS EXCLUSIVE", *, creators: int | None = None
) -> AsyncIterator[None]:
    """Open a transaction that holds a table's lock, and first the advisory lock `creators`, if given.

    Waits half a minute for other transactions, in short attempts between which readers and writers go
    on. Raises the driver's error of SQLSTATE 55P03, a `DeadlineError` to callers, if that does not help.
    """
    locked = False
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            async with connection.transaction():
                if creators is not None:
                    await connection.execute("SELECT pg_advisory_xact_lock($1::int8)", creators)
                await connection.execute(f"SET LOCAL lock_timeout = {_PATIENCE}")
                await connection.execute(f"LOCK TABLE {table.sql} IN {mode} MODE")
                await connection.execute("SET LOCAL lock_timeout TO DEFAULT")
                locked = True
                yield
                return
        except Exception as error:
            # The class of the exception depends on the driver; its SQLSTATE does not.
            if locked or attempt == _ATTEMPTS or sqlstate_of(error) != _NOT_AVAILABLE:
                raise
        await asyncio.sleep(_PAUSE)
