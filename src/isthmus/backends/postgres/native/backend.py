"""The backend of `layout="native"`, and its transactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isthmus._core.executor import TransactionExecutor
from isthmus.backends.postgres.backend import PooledBackend
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.native.catalog import TABLES, NativeTable
from isthmus.backends.postgres.native.executor import NativeExecutor
from isthmus.backends.postgres.pool_runner import PoolRunner
from isthmus.backends.postgres.transaction import ConnectionTransaction, TransactionRunner
from isthmus.errors import UnsupportedError


class NativePostgresBackend(PooledBackend, NativeExecutor):
    """Tables that others made, in PostgreSQL."""

    def __init__(self, config: PostgresConfig) -> None:
        if config.changes:
            raise UnsupportedError(
                "postgres: changes of a table that others made need triggers, which its owner has to create",
                capability="changes",
            )
        PooledBackend.__init__(self, config, PoolRunner(config, {}))
        NativeExecutor.__init__(self, config, {}, self._pool_runner)

    async def collections(self) -> list[str]:
        """Return the names of the schema's tables that have a primary key, sorted."""
        schema = self._config.schema_name
        rows = await self._pool_runner.run(lambda connection: connection.fetch(TABLES, schema))
        return [row[0] for row in rows]

    def _transaction(self, runner: TransactionRunner, lend: Callable[[], Any]) -> TransactionExecutor:
        return NativeTransaction(self._config, self._tables, runner, lend)


class NativeTransaction(NativeExecutor, ConnectionTransaction):
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
