"""The declared columns of collections: which there are, and adding and dropping them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from isthmus._core.columns import DeclaredColumn, OddRows
from isthmus._path import Path
from isthmus.backends.postgres.columns import add_columns, count_odd, drop_columns, find_odd, missing_in
from isthmus.backends.postgres.executor import PostgresExecutor
from isthmus.backends.postgres.schema import DECLARED_FORMAT, mark_format


class DeclaredColumns(PostgresExecutor, ABC):
    """The part of the backend that is about declared columns."""

    @abstractmethod
    async def open(self, collection: str) -> None:
        """Make a collection ready, and note which columns it has."""

    def columns(self, collection: str) -> tuple[tuple[DeclaredColumn, ...], tuple[DeclaredColumn, ...]]:
        """Return the columns that a collection has, and those declared that it lacks; no I/O."""
        table = self._table(collection)
        stored = tuple(column.column for column in table.columns.values())
        return stored, tuple(missing_in(table, table.columns))

    async def count_odd(self, collection: str) -> tuple[int, int]:
        """Return about how many records there are, and how many do not fit the columns."""
        table = self._table(collection)
        if not table.columns:
            return 0, 0
        return await self._runner.query(table, lambda connection: count_odd(connection, table), (0, 0))

    async def find_odd(self, collection: str, columns: Sequence[DeclaredColumn]) -> OddRows:
        """Return how many records have something else at the columns' paths; one scan of the table."""
        table = self._table(collection)
        return await self._runner.query(
            table, lambda connection: find_odd(connection, table, columns), OddRows(0, {})
        )

    async def add_columns(self, collection: str, columns: Sequence[DeclaredColumn]) -> None:
        """Add columns, which rewrites the table while others wait; it then has format 2.

        Raises `ConfigError` for a column that it has in another kind, or if it cannot have more.
        """
        table = self._table(collection)
        mark = mark_format(table, DECLARED_FORMAT)
        await self._runner.command(table, lambda connection: add_columns(connection, table, columns, mark))
        # Its indexes went with the column that says which rows are odd.
        await self.open(collection)

    async def drop_columns(self, collection: str, columns: Sequence[Path]) -> None:
        """Drop columns, while others wait; a missing one is not an error."""
        table = self._table(collection)
        await self._runner.command(table, lambda connection: drop_columns(connection, table, columns))
        self._tables[collection] = replace(table, columns={})
        await self.open(collection)
