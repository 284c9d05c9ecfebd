"""The executor's methods, written once for the database and for a transaction."""

from __future__ import annotations

import abc
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from isthmus._core.capabilities import Capabilities
from isthmus._core.executor import (
    MORE,
    After,
    AggregateRequest,
    AggregateResult,
    CountResult,
    ItemResult,
    Mutation,
    NativePlan,
    Page,
    PageRequest,
    StoredTexts,
    WriteKind,
)
from isthmus._core.modify import Modification
from isthmus._query.ast import Predicate
from isthmus._query.changes import FieldChange
from isthmus._record import Record
from isthmus._values import decode
from isthmus.backends.sqlite import select
from isthmus.backends.sqlite.aggregate import aggregate
from isthmus.backends.sqlite.column_filter import explain_columns
from isthmus.backends.sqlite.columns import read_columns
from isthmus.backends.sqlite.errors import is_missing_column, is_missing_table
from isthmus.backends.sqlite.modify import decode_row, modify, modify_where
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.support import CAPABILITIES, SUPPORT, SQLiteSupport
from isthmus.backends.sqlite.unique import ViolatedError, noting_violations, write_apart, write_unique
from isthmus.backends.sqlite.write import NothingWrittenError
from isthmus.errors import InvalidRecordError

T = TypeVar("T")
Work = Callable[[SQLiteSession, Table], T]
"""A job on one collection's table, run on the thread of a connection."""


class SQLiteExecutor(abc.ABC):
    """Compiles requests and decodes rows; subclasses decide which connection runs the job."""

    @property
    def capabilities(self) -> Capabilities:
        """Return what SQLite can do."""
        return CAPABILITIES

    def support(self, collection: str) -> SQLiteSupport:
        """Return what can be pushed down."""
        return SUPPORT

    @abc.abstractmethod
    async def _run_read(self, collection: str, work: Work[T], *, snapshot: bool = False) -> T:
        """Run queries; with `snapshot` all of them see one state of the database."""

    @abc.abstractmethod
    async def _run_write(self, collection: str, work: Work[T], *, undo: bool) -> T:
        """Run statements that write, all of them or none.

        `undo` is true if the job may fail after some of its statements have succeeded.
        """

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none; one query.

        `for_update` has no effect: there is one writer at a time.
        """
        if len(ids) == 1:

            def read_one(session: SQLiteSession, table: Table) -> list[Record | None]:
                rows = session.rows(select.read_one(table, ids[0]))
                return [decode_row(rows[0])] if rows else [None]

            return await self._run_read(collection, read_one)
        ids_json = orjson.dumps(list(ids)).decode()

        def read_many(session: SQLiteSession, table: Table) -> list[Record | None]:
            found = {row[0]: decode_row(row) for row in session.rows(select.read(table, ids_json))}
            return [found.get(id) for id in ids]

        return await self._run_read(collection, read_many)

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations one after another in one transaction; durable on return.

        Returns one result for each: its id, version or bool, or the error that refused it.
        """
        try:
            try:
                return await self._run_write(
                    collection,
                    lambda session, table: noting_violations(
                        lambda: write_unique(session, table, kind, mutations, atomic=atomic)
                    ),
                    undo=len(mutations) > 1,
                )
            except ViolatedError:  # all of it was undone
                return await self._run_write(
                    collection,
                    lambda session, table: write_apart(session, table, kind, mutations, atomic=atomic),
                    undo=True,
                )
        except NothingWrittenError as refused:
            return refused.results

    async def modify(self, collection: str, modification: Modification) -> ItemResult | None:
        """Apply a modification in one transaction; durable on return.

        Returns None, and changes nothing, if it violates a unique field.
        """
        try:
            return await self._run_write(
                collection,
                lambda session, table: noting_violations(lambda: modify(session, table, modification)),
                undo=False,
            )
        except ViolatedError:
            return None

    async def modify_where(
        self, collection: str, where: Predicate, changes: tuple[FieldChange, ...]
    ) -> int | None:
        """Change the matching records in one transaction and return how many.

        Returns None, and changes nothing, if one of them does not admit a change or violates a
        unique field.
        """
        try:
            return await self._run_write(
                collection,
                lambda session, table: noting_violations(
                    lambda: modify_where(session, table, where, changes)
                ),
                undo=True,
            )
        except (InvalidRecordError, ViolatedError):
            return None

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page of matching records; one query."""
        return await self._run_read(collection, lambda session, table: _fetch(session, table, request))

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Return the number of matching records, always exact; one query."""

        def count(session: SQLiteSession, table: Table) -> CountResult:
            return CountResult(session.rows(select.count(table, where))[0][0])

        return await self._run_read(collection, count)

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Return the states of the groups, from one snapshot.

        Costs one query, and a second one for the records with a list at one of the paths.
        """

        def compute(session: SQLiteSession, table: Table) -> AggregateResult:
            return AggregateResult(aggregate(session, table, request))

        return await self._run_read(collection, compute, snapshot=True)

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many there were; one statement."""
        return await self._run_write(
            collection, lambda session, table: session.run(select.remove(table, where)), undo=False
        )

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the SQL of a page, its query plan and the indexes that it uses."""
        return await self._run_read(collection, lambda session, table: _explain(session, table, request))

    async def refresh(self, collection: str) -> None:  # noqa: B027 - complete, not to be overridden
        """Do nothing: all readers see a write that has returned."""

    async def release(self, collection: str, after: After) -> None:  # noqa: B027 - a default
        """Do nothing: pages hold no resource, except for a consistent stream of the database."""


def run_query(session: SQLiteSession, table: Table, work: Work[T]) -> T:
    """Run queries on a table as it is now; one that was dropped meanwhile is read as an empty one."""
    try:
        return work(session, table)
    except sqlite3.OperationalError as error:
        if table.columns and is_missing_column(error):
            # Another program has dropped declared columns.
            table = replace(table, columns=read_columns(session.connection, table.name))
        elif is_missing_table(error):
            table = table.without_rows()
        else:
            raise
    return work(session, table)


def read_header(session: SQLiteSession) -> None:
    """Read the file's header, the cheapest query that needs the file."""
    session.execute("PRAGMA schema_version").fetchone()


def _fetch(session: SQLiteSession, table: Table, request: PageRequest) -> Page:
    rows = session.rows(select.page(table, request))
    more = request.size is not None and len(rows) > request.size
    if more:
        del rows[request.size :]
    if request.texts:
        return Page([], None, texts=StoredTexts([row[0] for row in rows], [row[1] for row in rows], decode))
    return make_page(rows, request, more=more)


def make_page(rows: Sequence[tuple[Any, ...]], request: PageRequest, *, more: bool) -> Page:
    """Return the page of some rows; `more`: others follow."""
    stored = Record.stored
    records = [
        stored(id, data, metadata, str(version), created, updated)
        for id, data, metadata, version, created, updated in rows
    ]
    if not more:
        return Page(records, None)
    return Page(records, After((records[-1].id,)) if request.order is None else MORE)


_INDEX = re.compile(r"USING (?:COVERING )?INDEX (.+?)(?: \(|$)")


def _explain(session: SQLiteSession, table: Table, request: PageRequest) -> NativePlan:
    statement = select.page(table, request)
    # EXPLAIN does not notice that another connection has created an index; running a query does.
    session.rows(select.read_one(table, ""))
    steps = [row[3] for row in session.rows(statement.with_prefix("EXPLAIN QUERY PLAN "))]
    used = [found[1] for step in steps if (found := _INDEX.search(step))]
    named = [name for name in used if not name.startswith("sqlite_autoindex_")]
    details = {
        "plan": steps,
        "indexes": sorted(set(named)),
        "declared": sorted(f"{table.name}.{path}" for path in table.indexed),
        "arguments": len(statement.args),
        "columns": explain_columns(table, request),
        "missing_columns": [str(column) for column in table.missing],
    }
    return NativePlan(statement.text, named[0] if named else ("id" if used else None), details)
