"""The methods of a backend by which the changes of its collections are read, on the primary."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from isthmus._core.changes import (
    ChangePage,
    HeldChanges,
    Position,
    StoredChange,
    missing_changes,
    other_source,
)
from isthmus.backends.postgres.change_delay import find_held
from isthmus.backends.postgres.change_tables import ChangeNames, end_changes, make_changes
from isthmus.backends.postgres.changes import current_position, origin_of, read_changes, read_records
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import is_undefined_table
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import ConfigError, SerializationError

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PostgresConfig
    from isthmus.backends.postgres.pool_runner import PoolRunner

R = TypeVar("R")
_ATTEMPTS = 5


class ChangeMethods:
    """The methods of `SupportsChanges`."""

    _config: PostgresConfig
    _pool_runner: PoolRunner
    _tables: dict[str, Table]

    if TYPE_CHECKING:

        def _table(self, collection: str) -> Table: ...

    async def changes_position(self, collection: str) -> Position:
        """Return the position of now; one round trip."""
        origin = origin_of(self._table(collection))
        return await self._pool_runner.read_primary(lambda connection: current_position(connection, origin))

    async def read_changes(self, collection: str, position: Position, limit: int) -> ChangePage:
        """Return at most `limit` changes after a position; two round trips."""
        table = self._table(collection)
        page = await self._continue(
            table, lambda connection: read_changes(connection, table, position, limit)
        )
        self._pool_runner.prune_soon(collection)
        return page

    async def read_records(
        self, collection: str, position: Position, limit: int
    ) -> tuple[list[StoredChange], bool]:
        """Return records after an id, by id, and whether there are more; two round trips."""
        table = self._table(collection)
        return await self._continue(
            table, lambda connection: read_records(connection, table, position, limit)
        )

    async def _continue(self, table: Table, work: Callable[[Connection], Awaitable[R]]) -> R:
        """Read on after a position; raises `ChangesExpiredError` if the table or its changes are gone."""
        attempts = 0
        while True:
            attempts += 1
            try:
                return await self._pool_runner.read_primary(work)
            except SerializationError:  # a deadlock with one that drops the tables
                if attempts == _ATTEMPTS:
                    raise
            except ConfigError as error:
                if not is_undefined_table(error):
                    raise
                break
        exists = "SELECT to_regclass($1::text) IS NOT NULL"
        if await self._pool_runner.read_primary(lambda connection: connection.fetchval(exists, table.sql)):
            raise missing_changes(table.name)
        raise other_source(table.name)

    async def wait_for_changes(self, collection: str, position: Position, seconds: float) -> None:
        """Sleep: the server wakes no reader, which would cost every writer more than polling costs."""
        await asyncio.sleep(seconds)

    async def find_held_changes(self, collection: str) -> HeldChanges | None:
        """Return what cannot be read yet, and for whom it waits; two round trips."""
        names = ChangeNames.of(self._table(collection))
        return await self._pool_runner.read_primary(lambda connection: find_held(connection, names))

    async def make_changes(self, collection: str) -> None:
        """Keep the changes of a table from now on; it is rewritten while readers and writers wait."""
        table = self._table(collection)
        await self._pool_runner.command(table, lambda connection: make_changes(connection, table))
        self._tables[collection] = replace(table, has_changes=True)

    async def end_changes(self, collection: str) -> None:
        """Remove the changes of a table, and what keeps them."""
        table = self._table(collection)
        await self._pool_runner.command(table, lambda connection: end_changes(connection, table))
        self._tables[collection] = replace(table, has_changes=False)
