"""The methods of a backend that are about declared columns."""

from __future__ import annotations

import abc
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from isthmus._core.columns import DeclaredColumn, OddRows, check_kinds, join_columns, missing_text
from isthmus._core.loop_pools import LoopBound
from isthmus._path import Path
from isthmus.backends.sqlite.columns import (
    ODD,
    StoredColumn,
    check_column,
    find_odd,
    read_columns,
    write_columns,
)
from isthmus.backends.sqlite.config import SQLiteConfig
from isthmus.backends.sqlite.executor import Work
from isthmus.backends.sqlite.pool import Pool
from isthmus.backends.sqlite.schema import CATALOG, DECLARED_FORMAT, Table
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import quote_name

T = TypeVar("T")
log = logging.getLogger("isthmus.sqlite.schema")


class ColumnMethods(abc.ABC):
    """The methods of `SupportsColumns`, and what an opening does."""

    _config: SQLiteConfig
    _pools: LoopBound[Pool]
    _wanted: dict[str, tuple[DeclaredColumn, ...]]

    @abc.abstractmethod
    async def _run_read(self, collection: str, work: Work[T], *, snapshot: bool = False) -> T: ...

    @abc.abstractmethod
    async def _run_write(self, collection: str, work: Work[T], *, undo: bool) -> T: ...

    def _ensure_columns(
        self, connection: sqlite3.Connection, collection: str
    ) -> tuple[dict[Path, StoredColumn], tuple[DeclaredColumn, ...]]:
        """Return the columns of a collection, and the declared ones that it lacks.

        One without records gets them; one with records is not changed.
        """
        wanted, stored = self._wanted.get(collection, ()), read_columns(connection, collection)
        check_kinds(collection, (column.column for column in stored.values()), wanted)
        missing = tuple(column for column in wanted if column.path not in stored)
        if not missing:
            return stored, ()
        if self._config.create_table != "never":
            filled = connection.execute(f"SELECT 1 FROM {quote_name(collection)} LIMIT 1").fetchone()
            if filled is None:
                return _add(connection, collection, missing), ()
        return stored, missing

    def _has_columns(self, table: Table) -> bool:
        """Return whether a table has the declared columns, or was found to lack them."""
        stored = {column.column for column in table.columns.values()}
        return stored.union(table.missing).issuperset(self._wanted.get(table.name, ()))

    def _note_missing(self, before: Table | None, table: Table) -> Table:
        """Return a table with the columns that any handle misses; those that are new are said in the log."""
        known = () if before is None else before.missing
        if not set(table.missing) <= set(known):
            log.warning("sqlite: %s", missing_text(table.name, table.missing))
        stored = {column.column for column in table.columns.values()}
        return replace(table, missing=tuple({*known, *table.missing} - stored))

    def columns(self, collection: str) -> tuple[tuple[DeclaredColumn, ...], tuple[DeclaredColumn, ...]]:
        """Return the columns that a collection has, and those declared that it lacks; no I/O."""
        pool = self._pools.current()
        table = None if pool is None else pool.tables.get(collection)
        if table is None:
            return (), ()
        wanted = self._wanted.get(collection, ())
        missing = tuple(column for column in wanted if column in table.missing)
        return tuple(column.column for column in table.columns.values()), missing

    async def count_odd(self, collection: str) -> tuple[int, int]:
        """Return how many records there are, and how many do not fit the columns."""

        def count(session: SQLiteSession, table: Table) -> tuple[int, int]:
            if not table.columns:
                return 0, 0
            odd = f"(SELECT count(*) FROM {table.source} WHERE {ODD} = 1)"
            records, found = session.execute(f"SELECT count(*), {odd} FROM {table.source}").fetchone()
            return int(records), int(found)

        return await self._run_read(collection, count)

    async def find_odd(self, collection: str, columns: Sequence[DeclaredColumn]) -> OddRows:
        """Return how many records have something else at the columns' paths; one scan of the table."""
        checked = [check_column(column) for column in columns]
        return await self._run_read(
            collection, lambda session, table: find_odd(session.connection, table.source, checked)
        )

    async def add_columns(self, collection: str, columns: Sequence[DeclaredColumn]) -> None:
        """Add columns, which writes the whole table while writers wait; it then has format 2.

        Raises `ConfigError` for a column that it has in another kind, or that SQLite has no path for.
        """
        checked = [check_column(column) for column in columns]

        def add(session: SQLiteSession, table: Table) -> dict[Path, StoredColumn]:
            stored = read_columns(session.connection, collection)
            check_kinds(collection, (column.column for column in stored.values()), checked)
            missing = [column for column in checked if column.path not in stored]
            return _add(session.connection, collection, missing) if missing else stored

        self._note(collection, await self._run_write(collection, add, undo=True))

    async def drop_columns(self, collection: str, columns: Sequence[Path]) -> None:
        """Drop columns, which writes the whole table; a missing one is not an error."""

        def drop(session: SQLiteSession, table: Table) -> dict[Path, StoredColumn]:
            stored = read_columns(session.connection, collection)
            kept = [column.column for path, column in stored.items() if path not in columns]
            if len(kept) == len(stored):
                return stored
            return write_columns(session.connection, collection, kept)

        self._note(collection, await self._run_write(collection, drop, undo=True))

    def _note(self, collection: str, stored: dict[Path, StoredColumn]) -> None:
        pool = self._pools.current()
        if pool is not None and (table := pool.tables.get(collection)) is not None:
            missing = tuple(column for column in table.missing if column.path not in stored)
            pool.tables[collection] = replace(table, columns=stored, missing=missing)


def _add(
    connection: sqlite3.Connection, collection: str, missing: Sequence[DeclaredColumn]
) -> dict[Path, StoredColumn]:
    stored = (column.column for column in read_columns(connection, collection).values())
    columns = write_columns(connection, collection, join_columns(stored, missing))
    connection.execute(f"UPDATE {CATALOG} SET format = ?2 WHERE name = ?1", (collection, DECLARED_FORMAT))
    return columns
