"""The backend of `layout="native"`, and its transactions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.capabilities import Capabilities
from isthmus._index_annotation import Declarations
from isthmus._value import replace
from isthmus.backends.sqlalchemy.backend import SQLAlchemyBackend
from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig
from isthmus.backends.sqlalchemy.errors import translate_errors
from isthmus.backends.sqlalchemy.executor import SQLAlchemyTransaction
from isthmus.backends.sqlalchemy.native.executor import ReflectedExecutor, TableWork
from isthmus.backends.sqlalchemy.native.mysql import read_table
from isthmus.backends.sqlalchemy.native.table import ReflectedTable
from isthmus.errors import ConfigError, SerializationError, UnsupportedError
from sqlalchemy import inspect

T = TypeVar("T")
_ATTEMPTS = 5
DIALECTS = ("mysql", "mariadb")


class NativeSQLAlchemyBackend(ReflectedExecutor, SQLAlchemyBackend):
    """Tables that others made, in a database behind SQLAlchemy."""

    def __init__(self, config: SQLAlchemyConfig) -> None:
        SQLAlchemyBackend.__init__(self, config)
        if self._dialect_name not in DIALECTS:
            raise ConfigError(
                f"sqlalchemy: layout 'native' serves tables of {' and '.join(DIALECTS)} here, not of"
                f" {self._dialect_name}; those of PostgreSQL and SQLite are served by layout='native' of the"
                " backends postgres and sqlite"
            )
        # Of the handle, not of the pool: settings such as `key` are the handle's.
        self._native: dict[str, ReflectedTable] = {}

    @property
    def native_tables(self) -> Mapping[str, ReflectedTable]:
        """The tables that were opened."""
        return self._native

    @property
    def capabilities(self) -> Capabilities:
        """Return what the default table admits; before it was opened, what most tables do."""
        table = self._native.get(self._config.table)
        groups = (self._config, *self._config.collections.values())
        return replace(
            self._capabilities,
            writes=table is None or not table.table.read_only,
            compare_and_set=any(group.version is not None for group in groups),
            delete_where=True,
            modify=True,
            unique=False,
            drop=False,
        )

    async def open(self, collection: str) -> None:
        """Read the table's description; changes nothing.

        Raises `ConfigError` if there is no such table, or if it cannot serve records.
        """
        async with self._connection(collection) as connection:
            await self.read_description(collection, connection)

    async def read_description(self, collection: str, connection: AsyncConnection) -> None:
        """Read the table's description on a connection."""
        self._native[collection] = await read_table(connection, self._config, collection)

    async def make_ready(self, collection: str, held: AsyncConnection, *, dropped: bool = False) -> None:
        """Read the description of a table that is first used inside a transaction."""
        if collection not in self._native:
            with translate_errors("opening"):
                await self.read_description(collection, held)

    def declare(self, collection: str, indexes: Declarations) -> bool:
        """Return False: the indexes of a table are its owner's."""
        return False

    async def collections(self) -> list[str]:
        """Return the names of the tables that have a primary key, sorted."""
        async with self._connection(self.default_collection) as connection:
            keys = await connection.run_sync(lambda sync: inspect(sync).get_multi_pk_constraint())
        return sorted(name for (_, name), key in keys.items() if key and key["constrained_columns"])

    async def drop(self, collection: str) -> None:
        """Raise `UnsupportedError`: a table of others is never dropped."""
        raise UnsupportedError("a native layout never drops a table", capability="drop")

    async def _write_table(self, collection: str, work: TableWork[T]) -> T:
        """Run statements in one transaction; again, up to five times, if it was a deadlock's victim."""
        for attempt in itertools.count(1):
            try:
                async with self._open_connection(collection, writes=True) as connection:
                    return await work(connection, self._native_table(collection))
            except SerializationError:
                if attempt == _ATTEMPTS:
                    raise
            await asyncio.sleep(0.005 * 2**attempt)
        raise AssertionError  # the loop above has no end

    def _transaction(self, connection: AsyncConnection, *, read_only: bool) -> SQLAlchemyTransaction:
        return ReflectedTransaction(self, connection, read_only=read_only)


class ReflectedTransaction(ReflectedExecutor, SQLAlchemyTransaction):
    """An executor inside one transaction; used by one task at a time."""

    def __init__(
        self, backend: NativeSQLAlchemyBackend, connection: AsyncConnection, *, read_only: bool
    ) -> None:
        SQLAlchemyTransaction.__init__(self, backend, connection, read_only=read_only)
        self._tables_of = backend

    @property
    def native_tables(self) -> Mapping[str, ReflectedTable]:
        """The tables that were opened."""
        return self._tables_of.native_tables

    async def describe(self, collection: str) -> None:
        """Read the description of the table, once for the handle."""
        await self._tables_of.make_ready(collection, self._held)

    async def _write_table(self, collection: str, work: TableWork[T]) -> T:
        table = self._native_table(collection)
        async with self._open_connection(collection, writes=True) as connection:
            return await work(connection, table)
