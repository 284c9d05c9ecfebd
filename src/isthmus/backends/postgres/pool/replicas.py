"""The pool for reads outside of transactions: replicas that have replayed this process's writes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from isthmus._core.clock import Clock
from isthmus.backends.postgres.drivers.protocol import Driver
from isthmus.backends.postgres.pool.connector import Hosts
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.backends.postgres.pool.pooled_connection import PooledConnection, Released

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PostgresConfig

log = logging.getLogger("isthmus.postgres.pool")

_POSITION = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"
_WAL_PAGE, _LONG_HEADER = 8192, 40
_REACHED = """
SELECT NOT pg_catalog.pg_is_in_recovery()
    OR pg_catalog.pg_last_wal_replay_lsn() >= CAST(CAST($1 AS text) AS pg_lsn)
"""


class ReplicaPool(Pool):
    """Connections to replicas; the primary's where a replica lags behind this process's writes.

    A write that returned is seen by the next read of the same process: the first read after a
    write asks the primary for the end of its log, and each replica connection once whether it has
    replayed so much. While nobody writes, reads cost nothing more.
    """

    def __init__(self, config: PostgresConfig, driver: Driver, primary: Pool, *, clock: Clock) -> None:
        hosts = Hosts(config.replica_addresses(), "any", last_resort=config.addresses())
        super().__init__(config, driver, clock=clock, hosts=hosts, attrs="any")
        self._primary = primary
        self._position = (0, "0/0")
        """A number of writes, and the position in the primary's log that has them all."""
        self.direct = False

    async def take(self, timeout: float | None, *, dirty: bool = False, read_only: bool = False) -> Any:
        """Check out a connection that sees this process's writes."""
        connection = await super().take(timeout, dirty=dirty, read_only=read_only)
        if self.held[connection].replayed_writes >= self._primary.writes:
            return connection
        try:
            is_fresh = await self._is_fresh(self.held[connection])
        except BaseException as error:
            self.note_error(connection, error)
            self.release(connection)
            if not isinstance(error, Exception):
                raise
            log.debug("the replay position of a replica is not known: %s", error)
        else:
            if is_fresh:
                return connection
            self.release(connection)
        return await self._primary.take(timeout, read_only=True)

    async def _is_fresh(self, pooled: PooledConnection) -> bool:
        writes = self._primary.writes
        if self._position[0] < writes:
            connection = await self._primary.take(None, read_only=True)
            try:
                self._position = (writes, _replayable(await connection.fetchval(_POSITION)))
            finally:
                self._primary.release(connection)
        covered, position = self._position
        if not await pooled.connection.fetchval(_REACHED, position):
            return False
        pooled.replayed_writes = covered
        return True

    def release(self, connection: Any) -> Released:
        """Return a connection to the pool that it came from."""
        if connection in self._primary.held:
            return self._primary.release(connection)
        return super().release(connection)

    def note_error(self, connection: Any, error: BaseException) -> None:
        """Act on an error in the pool that the connection came from."""
        if connection in self._primary.held:
            self._primary.note_error(connection, error)
        else:
            super().note_error(connection, error)


def _replayable(position: str) -> str:
    """Return the position that a replica reports once it has replayed all up to the given one.

    Where a page has only just begun, the primary counts its header (24 or 40 bytes) and the
    replica does not. No record ends inside of a header, so nothing is missed.
    """
    high, _, low = position.partition("/")
    number = int(low, 16)
    offset = number % _WAL_PAGE
    return f"{high}/{number - offset if offset <= _LONG_HEADER else number:X}"
