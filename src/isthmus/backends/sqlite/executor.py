"""The executor's verbs, written once for the database and for a transaction."""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Sequence
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
    WriteKind,
)
from isthmus._path import Path
from isthmus._query.ast import RANKED, Leaf, Measure, Predicate, SortKey
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus.backends.sqlite import plugin, select
from isthmus.backends.sqlite.aggregate import aggregate
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.write import NothingWrittenError, write

T = TypeVar("T")
Work = Callable[[SQLiteSession, Table], T]
# A key takes two comparisons for each later one in a cursor's condition.
_MAX_SORT_KEYS = 16


class SQLiteSupport:
    """All that a query can say is exact on SQLite, but for relevance."""

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return EXACT; NONE for what only another store can rank."""
        return Pushdown.NONE if isinstance(leaf, RANKED) else Pushdown.EXACT

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return true for any sensible number of keys."""
        return len(order) <= _MAX_SORT_KEYS

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[Path, ...]) -> bool:
        """Return true: integers are summed exactly, floats are rounded once."""
        # A SELECT has at most 2,000 columns; a measure takes up to four of them.
        return len(measures) <= 200 and len(by) <= 50


SUPPORT = SQLiteSupport()


class SQLiteExecutor(abc.ABC):
    """Compiles and decodes; subclasses say where a job runs."""

    @property
    def capabilities(self) -> Capabilities:
        """Return what can be done here."""
        return plugin.capabilities

    def support(self, collection: str) -> SQLiteSupport:
        """Return what can be pushed down."""
        return SUPPORT

    @abc.abstractmethod
    async def _run_read(self, collection: str, work: Work[T], *, one_state: bool = False) -> T:
        """Run queries; with `one_state` they see the same snapshot."""

    @abc.abstractmethod
    async def _run_write(self, collection: str, work: Work[T], *, undo: bool) -> T:
        """Run changes, all or none; `undo` says that a failure may come after a change was made."""

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order. Rows need no lock: there is one writer."""
        if len(ids) == 1:

            def one(session: SQLiteSession, table: Table) -> list[Record | None]:
                rows = session.rows(select.read_one(table, ids[0]))
                return [_record(rows[0])] if rows else [None]

            return await self._run_read(collection, one)
        wanted = orjson.dumps(list(ids)).decode()

        def many(session: SQLiteSession, table: Table) -> list[Record | None]:
            found = {row[0]: _record(row) for row in session.rows(select.read(table, wanted))}
            return [found.get(id) for id in ids]

        return await self._run_read(collection, many)

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply changes as if one after another, in one transaction; it is durable on return."""
        try:
            return await self._run_write(
                collection,
                lambda session, table: write(session, table, kind, mutations, atomic=atomic),
                undo=len(mutations) > 1,
            )
        except NothingWrittenError as nothing:
            return nothing.results

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page."""
        return await self._run_read(collection, lambda session, table: _page(session, table, request))

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count the matching records."""

        def work(session: SQLiteSession, table: Table) -> CountResult:
            return CountResult(session.rows(select.count(table, where))[0][0])

        return await self._run_read(collection, work)

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Compute the groups' states, from one snapshot."""

        def work(session: SQLiteSession, table: Table) -> AggregateResult:
            return AggregateResult(aggregate(session, table, request))

        return await self._run_read(collection, work, one_state=True)

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many."""
        return await self._run_write(
            collection, lambda session, table: session.run(select.remove(table, where)), undo=False
        )

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the statement and what SQLite's planner says to it."""
        return await self._run_read(collection, lambda session, table: _explain(session, table, request))

    async def refresh(self, collection: str) -> None:  # noqa: B027 - complete, not a part to be filled in
        """Do nothing: a write that returned is seen by all readers."""

    async def release(  # noqa: B027 - a default, not a part to be filled in
        self, collection: str, after: After
    ) -> None:
        """Do nothing: pages hold nothing, but for a consistent stream of the database."""


def read_header(session: SQLiteSession) -> None:
    """Read the file's header, the cheapest query that needs the file."""
    session.execute("PRAGMA schema_version").fetchone()


def _record(row: Any) -> Record:
    id, data, metadata, version, created, updated = row
    return Record.stored(id, data, metadata, str(version), created, updated)


def _page(session: SQLiteSession, table: Table, request: PageRequest) -> Page:
    rows = session.rows(select.page(table, request))
    more = request.size is not None and len(rows) > request.size
    if more:
        del rows[request.size :]
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
    # EXPLAIN does not notice that another connection made an index; running a query does.
    session.rows(select.read_one(table, ""))
    rows = session.rows(statement.with_prefix("EXPLAIN QUERY PLAN "))
    steps = [row[3] for row in rows]
    own = {f"{table.name}.{path}" for path in table.indexed}
    used = [found[1] for step in steps if (found := _INDEX.search(step))]
    named = [name for name in used if not name.startswith("sqlite_autoindex_")]
    index = named[0] if named else ("id" if used else None)
    return NativePlan(
        statement.text,
        index,
        {
            "plan": steps,
            "indexes": sorted(set(named)),
            "declared": sorted(own),
            "arguments": len(statement.args),
        },
    )
