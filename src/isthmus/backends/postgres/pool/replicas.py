"""The pool for reads outside of transactions: replicas, as far as they have seen what was written here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from isthmus.backends.postgres.checkout import Released
from isthmus.backends.postgres.drivers.session import Hosts
from isthmus.backends.postgres.pool.pool import Pool
from isthmus.backends.postgres.pool.pooled_connection import Slot

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PostgresConfig
    from isthmus.backends.postgres.drivers.protocol import Driver

log = logging.getLogger("isthmus.postgres.pool")

_POSITION = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"
_WAL_PAGE, _LONG_HEADER = 8192, 40
_REACHED = """
SELECT NOT pg_catalog.pg_is_in_recovery()
    OR pg_catalog.pg_last_wal_replay_lsn() >= CAST(CAST($1 AS text) AS pg_lsn)
"""


class ReplicaPool(Pool):
    """Connections to replicas; where those lag behind our own writes, the primary's.

    A write that returned is seen by the next read of the same process: the first read after a
    write asks the primary where its log ends, and each replica's connection, once, whether it is
    there. Reads cost nothing more while nobody writes.
    """

    def __init__(self, config: PostgresConfig, primary: Pool, driver: Driver | None = None) -> None:
        super().__init__(
            config,
            driver,
            hosts=Hosts(config.replica_addresses(), "any", last_resort=config.addresses()),
            attrs="any",
        )
        self._primary = primary
        self._position = (0, "0/0")
        self.plain = False

    async def take(self, timeout: float | None, *, dirty: bool) -> Any:
        """Take a connection that sees what was written here."""
        connection = await super().take(timeout, dirty=dirty)
        if self.held[connection].seen >= self._primary.writes:
            return connection
        try:
            fresh = await self._is_fresh(self.held[connection])
        except BaseException as error:
            self.note(connection, error)
            self.release(connection)
            if not isinstance(error, Exception):
                raise
            log.debug("a replica could not be asked how far it is: %s", error)
        else:
            if fresh:
                return connection
            self.release(connection)
        return await self._primary.take_for_reading(timeout)

    async def _is_fresh(self, slot: Slot) -> bool:
        writes = self._primary.writes
        if self._position[0] < writes:
            asking = await self._primary.take_for_reading(None)
            try:
                self._position = (writes, _replayable(await asking.fetchval(_POSITION)))
            finally:
                self._primary.release(asking)
        covered, position = self._position
        if not await slot.connection.fetchval(_REACHED, position):
            return False
        slot.seen = covered
        return True

    def release(self, connection: Any) -> Released:
        """Give a connection back to where it came from."""
        if connection in self._primary.held:
            return self._primary.release(connection)
        return super().release(connection)

    def note(self, connection: Any, error: BaseException) -> None:
        """Draw conclusions for the pool that the connection came from."""
        if connection in self._primary.held:
            self._primary.note(connection, error)
        else:
            super().note(connection, error)


def _replayable(position: str) -> str:
    """Return the position that a replica reports once it has replayed all up to the one given.

    Where a page has only just begun, the primary counts its header (24 or 40 bytes) and the
    replica does not. No record ends inside of a header, so that nothing is missed.
    """
    high, _, low = position.partition("/")
    number = int(low, 16)
    within = number % _WAL_PAGE
    return f"{high}/{number - within if within <= _LONG_HEADER else number:X}"
