"""The backend of `layout="native"`, and its transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from isthmus._core.capabilities import Capabilities
from isthmus._core.changes import ChangePage, HeldChanges, Position, StoredChange, other_source
from isthmus._core.executor import TransactionExecutor
from isthmus._value import replace
from isthmus.backends.postgres.backend import PooledBackend
from isthmus.backends.postgres.change_delay import find_held
from isthmus.backends.postgres.change_tables import ChangeNames
from isthmus.backends.postgres.changes import current_position
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.errors import is_undefined_table
from isthmus.backends.postgres.executor import Work
from isthmus.backends.postgres.native import changes
from isthmus.backends.postgres.native.catalog import TABLES, NativeTable
from isthmus.backends.postgres.native.executor import CAPABILITIES, NativeExecutor
from isthmus.backends.postgres.pool_runner import PoolRunner
from isthmus.backends.postgres.transaction import ConnectionTransaction, TransactionRunner
from isthmus.errors import ConfigError, UnsupportedError

R = TypeVar("R")


class NativePostgresBackend(PooledBackend, NativeExecutor):
    """Tables that others made, in PostgreSQL."""

    def __init__(self, config: PostgresConfig) -> None:
        PooledBackend.__init__(self, config, PoolRunner(config, {}))
        NativeExecutor.__init__(self, config, {}, self._pool_runner)

    @property
    def capabilities(self) -> Capabilities:
        """Return what the backend supports."""
        return replace(CAPABILITIES, changes=self._config.changes)

    async def open(self, collection: str) -> None:
        """Read the description of the table.

        Raises `ConfigError` if it cannot serve records, and `UnsupportedError` if it has not the
        triggers that `changes=True` needs.
        """
        await NativeExecutor.open(self, collection)
        if self._config.changes:
            await self.changes_position(collection)

    async def change_statements(self, collection: str) -> list[str]:
        """Return the statements by which a table's owner lets it keep its changes."""
        await NativeExecutor.open(self, collection)
        return changes.change_statements(self._table(collection))

    async def changes_position(self, collection: str) -> Position:
        """Return the position of now; one round trip."""
        origin = changes.origin_of(self._table(collection))
        return await self._pool_runner.read_primary(lambda connection: current_position(connection, origin))

    async def read_changes(self, collection: str, position: Position, limit: int) -> ChangePage:
        """Return at most `limit` changes after a position; two round trips."""
        table = self._table(collection)
        page = await self._continue(
            table, lambda connection: changes.read_changes(connection, table, position, limit)
        )
        self._pool_runner.prune_soon(collection)
        return page

    async def read_records(
        self, collection: str, position: Position, limit: int
    ) -> tuple[list[StoredChange], bool]:
        """Return records after an id, by key, and whether there are more; two round trips."""
        table = self._table(collection)
        return await self._continue(
            table, lambda connection: changes.read_records(connection, table, position, limit)
        )

    async def _continue(self, table: NativeTable, work: Work[R]) -> R:
        try:
            return await self._pool_runner.read_primary(work)
        except ConfigError as error:
            if not is_undefined_table(error):
                raise
        raise other_source(table.name)

    async def wait_for_changes(self, collection: str, position: Position, seconds: float) -> None:
        """Sleep: the server wakes no reader."""
        await asyncio.sleep(seconds)

    async def find_held_changes(self, collection: str) -> HeldChanges | None:
        """Return what cannot be read yet, and for whom it waits; two round trips."""
        names = ChangeNames.of(self._table(collection))
        return await self._pool_runner.read_primary(lambda connection: find_held(connection, names))

    async def make_changes(self, collection: str) -> None:
        """Raise `UnsupportedError`: a table of others is never changed."""
        raise changes.missing_triggers(collection)

    async def end_changes(self, collection: str) -> None:
        """Raise `UnsupportedError`: a table of others is never changed."""
        raise UnsupportedError("a native layout drops no trigger; its owner does", capability="changes")

    async def collections(self) -> list[str]:
        """Return the names of the schema's tables that have a primary key, sorted."""
        schema = self._config.schema_name
        rows = await self._pool_runner.run(lambda connection: connection.fetch(TABLES, schema))
        return [row[0] for row in rows]

    def _transaction(self, runner: TransactionRunner, lend: Callable[[], Any]) -> TransactionExecutor:
        return TableTransaction(self._config, self._tables, runner, lend)


class TableTransaction(NativeExecutor, ConnectionTransaction):
    """The operations on native tables inside one transaction."""

    def __init__(
        self,
        config: PostgresConfig,
        tables: dict[str, NativeTable],
        runner: TransactionRunner,
        lend: Callable[[], Any],
    ) -> None:
        NativeExecutor.__init__(self, config, tables, runner)
        ConnectionTransaction.__init__(self, runner, lend)

    async def describe(self, collection: str) -> None:
        """Read the description of the table, once for the handle."""
        if collection not in self._tables:
            await self.open(collection)
