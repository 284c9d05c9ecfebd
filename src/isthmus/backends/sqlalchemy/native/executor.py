"""The executor's methods on tables that others made, for the database and for a transaction."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.executor import (
    AggregateRequest,
    AggregateResult,
    CountResult,
    ItemResult,
    Mutation,
    NativePlan,
    Page,
    PageRequest,
    WriteKind,
)
from isthmus._core.modify import Modification
from isthmus._query.ast import Leaf, Measure, Predicate, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.changes import FieldChange
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus.backends._tables.keys import sort_key_of
from isthmus.backends._tables.writes import refuse_read_only
from isthmus.backends.sqlalchemy.errors import MissingTableError, StaleTableError
from isthmus.backends.sqlalchemy.executor import SQLAlchemyExecutor
from isthmus.backends.sqlalchemy.native.explain import explain
from isthmus.backends.sqlalchemy.native.filter import pushdown
from isthmus.backends.sqlalchemy.native.modify import modify, modify_where
from isthmus.backends.sqlalchemy.native.order import sorts
from isthmus.backends.sqlalchemy.native.read import condition, count, fetch, read_by_ids
from isthmus.backends.sqlalchemy.native.refusals import is_refusal, refusal_of
from isthmus.backends.sqlalchemy.native.statement import ValueBinder, execute
from isthmus.backends.sqlalchemy.native.table import ReflectedTable
from isthmus.backends.sqlalchemy.native.write import write
from isthmus.errors import BatchError, ConfigError, UnexpectedError, UnsupportedError, UsageError
from sqlalchemy import exc

T = TypeVar("T")
TableWork = Callable[[AsyncConnection, ReflectedTable], Awaitable[T]]
"""Statements on one table, all on one connection."""


class ReflectedSupport:
    """What can be pushed down for one table."""

    def __init__(self, table: ReflectedTable) -> None:
        self._table = table

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return how closely the condition on the column matches a leaf."""
        return pushdown(self._table, leaf)

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether the store sorts by all keys as is meant, by id last."""
        return sorts(self._table, order)

    def id_key(self, id: str) -> tuple[Any, ...]:
        """Return what an id sorts by."""
        return sort_key_of(self._table.table, id)

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return False: the core aggregates."""
        return False


class ReflectedExecutor(SQLAlchemyExecutor):
    """Compiles requests and decodes rows; subclasses decide which connection runs the statements."""

    @abc.abstractmethod
    async def _write_table(self, collection: str, work: TableWork[T]) -> T:
        """Run statements that write, all of them or none."""

    @property
    @abc.abstractmethod
    def native_tables(self) -> Mapping[str, ReflectedTable]:
        """The tables that were opened."""

    def support(self, collection: str) -> ReflectedSupport:  # type: ignore[override]
        """Return what can be pushed down."""
        return ReflectedSupport(self._native_table(collection))

    def _native_table(self, collection: str) -> ReflectedTable:
        table = self.native_tables.get(collection)
        if table is None:
            raise UsageError(f"sqlalchemy: the table {collection!r} was not opened")
        return table

    @contextlib.asynccontextmanager
    async def _open_connection(
        self, collection: str, *, writes: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        """Return a connection; a table or column that is gone was changed under the handle."""
        try:
            async with self._connection(collection, writes=writes) as connection:
                yield connection
        except (MissingTableError, StaleTableError) as error:
            raise ConfigError(
                f"sqlalchemy: the table {collection!r} was changed or dropped since this handle opened it:"
                f" {error}; open a new handle"
            ) from error

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none; a query for each 500.

        Raises `InvalidRecordError` for two rows with one key, which a view may have.
        """
        table = self._native_table(collection)
        async with self._open_connection(collection) as connection:
            found = await read_by_ids(connection, table, ids, lock=for_update)
        return [found.get(id) for id in ids]

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page of matching records; one query."""
        table = self._native_table(collection)
        async with self._open_connection(collection) as connection:
            return await fetch(connection, table, request)

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Return the number of matching records; one query."""
        table = self._native_table(collection)
        async with self._open_connection(collection) as connection:
            return await count(connection, table, where)

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Raise `UnexpectedError`: the core aggregates, as `aggregates` accepts nothing."""
        raise UnexpectedError("sqlalchemy: aggregate was called although no aggregate can be pushed down")

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations one after another in one transaction; return one result for each.

        A result is an id, a version (empty where the table has none) or bool, or the error that refused it.
        """
        self._check_writable(collection, mutations)
        return await self._write_table(
            collection, lambda connection, table: write(connection, table, kind, mutations, atomic=atomic)
        )

    async def modify(self, collection: str, modification: Modification) -> ItemResult | None:
        """Apply a modification in one transaction."""
        [result] = await self.modify_batch(collection, [modification], atomic=False)
        return result

    async def modify_batch(
        self, collection: str, modifications: Sequence[Modification], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply modifications one after another in one transaction; results as those of `write`."""
        self._check_writable(collection, modifications)
        return await self._write_table(
            collection, lambda connection, table: modify(connection, table, modifications, atomic=atomic)
        )

    async def modify_where(
        self, collection: str, where: Predicate, changes: tuple[FieldChange, ...]
    ) -> int | None:
        """Change the matching records in one transaction and return how many.

        Raises `BatchError` with the outcomes, and changes nothing, if one of them does not admit a change.
        """
        self._check_writable(collection, ())
        return await self._write_table(
            collection, lambda connection, table: modify_where(connection, table, where, changes)
        )

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many there were; one statement.

        Raises `BatchError` if the table refuses to let one go: then none is deleted.
        """
        self._check_writable(collection, ())

        async def delete(connection: AsyncConnection, table: ReflectedTable) -> int:
            binder = ValueBinder()
            text = f"DELETE FROM {table.sql}{condition(table, where, binder)}"
            try:
                async with connection.begin_nested():
                    return (await execute(connection, binder.statement(text))).rowcount
            except exc.DBAPIError as error:
                if not is_refusal(error):
                    raise
                refused = refusal_of(error, table, None, creates=False)
                raise BatchError(f"nothing was deleted: {refused}", outcomes=[refused]) from error

        return await self._write_table(collection, delete)

    def _check_writable(self, collection: str, items: Sequence[Mutation]) -> None:
        table = self._native_table(collection)
        refuse_read_only(table.table)
        if table.table.version is None and any(item.if_version is not None for item in items):
            raise UnsupportedError(
                f"if_version: {table.name!r} has no version; name its column by the setting `version`",
                capability="compare_and_set",
            )

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the statement of a page, its plan and the indexes that it uses."""
        table = self._native_table(collection)
        async with self._open_connection(collection) as connection:
            return await explain(connection, table, request)
