"""Declarations of indexes and columns: those of models, and adding and dropping columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from isthmus._core.columns import COLUMNS_OF, DeclaredColumn, OddRows, columns_in, join_columns
from isthmus._core.executor import (
    AggregateRequest,
    AggregateResult,
    CountResult,
    ItemResult,
    NativePlan,
    Page,
    PageRequest,
)
from isthmus._core.modify import Modification
from isthmus._core.unique import unique_of
from isthmus._index_annotation import Declarations
from isthmus._path import Path
from isthmus._query.ast import Predicate
from isthmus._query.changes import FieldChange
from isthmus.backends.postgres.collection_settings import Indexes
from isthmus.backends.postgres.columns import add_columns, count_odd, drop_columns, find_odd, missing_in
from isthmus.backends.postgres.errors import is_undefined_column
from isthmus.backends.postgres.executor import PostgresExecutor
from isthmus.backends.postgres.indexes import paths_to_index
from isthmus.errors import ConfigError

R = TypeVar("R")


class DeclaredColumns(PostgresExecutor, ABC):
    """The part of the backend that is about declarations."""

    @abstractmethod
    async def open(self, collection: str) -> None:
        """Make a collection ready, and note which columns it has."""

    async def _repeat_without(self, collection: str, call: Callable[[], Awaitable[R]]) -> R:
        """Run a call; repeat it without declared columns if the table has lost them since it was opened.

        Another handle has dropped them, or the table with them. The statement failed, so nothing was applied.
        """
        try:
            return await call()
        except ConfigError as error:
            table = self._table(collection)
            if not (table.columns and is_undefined_column(error)):
                raise
        self._tables[collection] = replace(table, columns={})
        return await call()

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page; one round trip."""
        return await self._repeat_without(collection, partial(super().fetch, collection, request))

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count the matching records."""
        return await self._repeat_without(collection, partial(super().count, collection, where))

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Compute partial states by group."""
        return await self._repeat_without(collection, partial(super().aggregate, collection, request))

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many."""
        return await self._repeat_without(collection, partial(super().remove, collection, where))

    async def modify(self, collection: str, modification: Modification) -> ItemResult | None:
        """Change part of one record and return its version; None if the core has to look at it."""
        return await self._repeat_without(collection, partial(super().modify, collection, modification))

    async def modify_where(
        self, collection: str, where: Predicate, changes: tuple[FieldChange, ...]
    ) -> int | None:
        """Change the matching records and return how many; None, and none is, if left to the core."""
        return await self._repeat_without(
            collection, partial(super().modify_where, collection, where, changes)
        )

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the statement, its arguments and the server's plan for it."""
        return await self._repeat_without(collection, partial(super().explain, collection, request))

    def declare(self, collection: str, indexes: Declarations) -> bool:
        """Record a model's indexes, to be built at the next opening; return whether any is new."""
        table = self._table(collection)
        kinds = COLUMNS_OF.values()
        settings = Indexes.model_validate({k: paths for k, paths in indexes.items() if k not in kinds})
        indexed, unique = table.indexed | paths_to_index(settings), table.unique | unique_of(settings.unique)
        has_unique = table.has_unique or bool(unique)
        columns = join_columns(table.declared, columns_in(indexes))
        self._tables[collection] = replace(
            table, indexed=indexed, unique=unique, has_unique=has_unique, declared=columns
        )
        return indexed != table.indexed or unique != table.unique or columns != table.declared

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
        await self._runner.command(table, lambda connection: add_columns(connection, table, columns))
        # Its indexes went with the column that says which rows are odd.
        await self.open(collection)

    async def drop_columns(self, collection: str, columns: Sequence[Path]) -> None:
        """Drop columns, while others wait; a missing one is not an error."""
        table = self._table(collection)
        await self._runner.command(table, lambda connection: drop_columns(connection, table, columns))
        self._tables[collection] = replace(table, columns={})
        await self.open(collection)
