"""The executor's methods on tables that others made, for the database and for a transaction."""

from __future__ import annotations

import abc
import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

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
from isthmus._query.ast import Predicate
from isthmus._query.changes import FieldChange
from isthmus._record import Record
from isthmus.backends._tables.writes import refuse_read_only
from isthmus.backends.sqlite.executor import SQLiteExecutor
from isthmus.backends.sqlite.native.aggregate import aggregate
from isthmus.backends.sqlite.native.constraints import refusal_of
from isthmus.backends.sqlite.native.filter import CellFilter
from isthmus.backends.sqlite.native.modify import modify, modify_where
from isthmus.backends.sqlite.native.read import count, explain, fetch, read_by_ids
from isthmus.backends.sqlite.native.table import SQLiteTable
from isthmus.backends.sqlite.native.write import write
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import Binder
from isthmus.backends.sqlite.write import NothingWrittenError
from isthmus.errors import InvalidRecordError, UnsupportedError

T = TypeVar("T")
TableWork = Callable[[SQLiteSession, SQLiteTable], T]
"""A job on one table, run on the thread of a connection."""


class TableExecutor(SQLiteExecutor):
    """Compiles requests and decodes rows; subclasses decide which connection runs the job."""

    @abc.abstractmethod
    async def _read_table(self, collection: str, work: TableWork[T], *, snapshot: bool = False) -> T:
        """Run queries; with `snapshot` all of them see one state of the database."""

    @abc.abstractmethod
    async def _write_table(self, collection: str, work: TableWork[T]) -> T:
        """Run statements that write, all of them or none."""

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none; a query for each 200."""
        found = await self._read_table(collection, lambda session, table: read_by_ids(session, table, ids))
        return [found.get(id) for id in ids]

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations one after another in one transaction; durable on return.

        Returns one result for each: its id, version (empty where the table has none) or bool, or the
        error that refused it.
        """
        conditional = any(mutation.if_version is not None for mutation in mutations)

        def work(session: SQLiteSession, table: SQLiteTable) -> list[ItemResult]:
            check_writable(table, conditional=conditional)
            return write(session, table, kind, mutations, atomic=atomic)

        return await self._write_items(collection, work, len(mutations))

    async def _write_items(
        self, collection: str, work: TableWork[list[ItemResult]], count: int
    ) -> list[ItemResult]:
        try:
            return await self._write_table(collection, work)
        except NothingWrittenError as refused:
            return refused.results
        except InvalidRecordError as error:  # a deferred constraint, which COMMIT has checked
            return [error] * count

    async def modify(self, collection: str, modification: Modification) -> ItemResult | None:
        """Apply a modification in one transaction; durable on return."""
        [result] = await self.modify_batch(collection, [modification], atomic=False)
        return result

    async def modify_batch(
        self, collection: str, modifications: Sequence[Modification], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply modifications one after another in one transaction; results as those of `write`."""
        conditional = any(item.if_version is not None for item in modifications)

        def work(session: SQLiteSession, table: SQLiteTable) -> list[ItemResult]:
            check_writable(table, conditional=conditional)
            return modify(session, table, modifications, atomic=atomic)

        return await self._write_items(collection, work, len(modifications))

    async def modify_where(
        self, collection: str, where: Predicate, changes: tuple[FieldChange, ...]
    ) -> int | None:
        """Change the matching records in one transaction and return how many.

        Raises `BatchError` with the outcomes, and changes nothing, if one of them does not admit a change.
        """

        def work(session: SQLiteSession, table: SQLiteTable) -> int:
            check_writable(table)
            return modify_where(session, table, where, changes)

        return await self._write_table(collection, work)

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page of matching records, from one state of the database."""
        return await self._read_table(
            collection, lambda session, table: fetch(session, table, request), snapshot=bool(request.order)
        )

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Return the number of matching records, always exact; one query."""
        return await self._read_table(collection, lambda session, table: count(session, table, where))

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Return the states of the groups; one query."""
        return await self._read_table(collection, lambda session, table: aggregate(session, table, request))

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many there were; one statement."""

        def remove(session: SQLiteSession, table: SQLiteTable) -> int:
            check_writable(table)
            binder = Binder()
            condition = CellFilter(table, binder).sql(where)
            try:
                return session.run(binder.statement(f"DELETE FROM {table.source} WHERE {condition}"))
            except sqlite3.IntegrityError as error:
                raise refusal_of(session, table, error, "", {}) from error

        return await self._write_table(collection, remove)

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the SQL of a page, its query plan and the indexes that it uses."""
        return await self._read_table(collection, lambda session, table: explain(session, table, request))


def check_writable(table: SQLiteTable, *, conditional: bool = False) -> None:
    """Raise `UnsupportedError` for a table that is read-only, or has no version to be compared."""
    refuse_read_only(table)
    if conditional and table.version is None:
        raise UnsupportedError(
            f"if_version: {table.name!r} has no version; name its column by the setting `version`",
            capability="compare_and_set",
        )
