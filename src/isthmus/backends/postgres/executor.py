"""The operations on collections, compiled to statements; where they run is the runner's concern."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

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
from isthmus._core.modify import Modification
from isthmus._core.offload import compile_statement
from isthmus._query.aggregate import Groups
from isthmus._query.ast import Predicate
from isthmus._query.changes import FieldChange
from isthmus._record import Record
from isthmus._value import replace
from isthmus.backends.postgres.columns import missing_in
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.cursors import RowSource, source_of
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.lazy_record import PostgresRecord, texts_of
from isthmus.backends.postgres.lookups import may_merge
from isthmus.backends.postgres.modify import modify, modify_where
from isthmus.backends.postgres.schema import table_of
from isthmus.backends.postgres.sql.aggregate import aggregate
from isthmus.backends.postgres.sql.column_filter import explain_columns
from isthmus.backends.postgres.sql.fields import COLUMNS
from isthmus.backends.postgres.sql.select import delete_where, select_count, select_page
from isthmus.backends.postgres.sql.statement import Statement
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.support import CAPABILITIES, SUPPORT, PostgresSupport
from isthmus.backends.postgres.unique_write import write_unique

R = TypeVar("R")
Work: TypeAlias = Callable[[Connection], Awaitable[R]]


class Runner(Protocol):
    """Runs work on connections: those of a pool, or the one of a transaction.

    A driver's errors are raised as isthmus errors. Another handle or process may have dropped the
    table that work is about; how to handle that depends on where the work runs.
    """

    async def query(self, table: Table | None, work: Work[R], if_missing: R) -> R:
        """Run work that only reads and return its result; `if_missing` if the table does not exist."""
        ...

    async def command(self, table: Table | None, work: Work[R]) -> R:
        """Run work that writes or locks and return its result; create the table if it does not exist."""
        ...

    async def fetch_consistent(self, table: Table | None, source: RowSource, request: PageRequest) -> Page:
        """Return one page of a snapshot that is held between pages."""
        ...

    async def fetch_sorted(self, table: Table | None, source: RowSource, request: PageRequest) -> Page | None:
        """Return one page of a sorted stream by a cursor; None if there is none to be kept."""
        ...

    async def release(self, token: int) -> None:
        """Release the snapshot of an unfinished stream, named by its token."""
        ...


class PostgresExecutor:
    """Compiles operations, has a runner run them, and decodes the results."""

    def __init__(self, config: PostgresConfig, tables: dict[str, Table], runner: Runner) -> None:
        self._config = config
        self._tables = tables
        self._runner = runner

    @property
    def capabilities(self) -> Capabilities:
        """Return what the backend supports."""
        return CAPABILITIES

    def support(self, collection: str) -> PostgresSupport:
        """Return what can be pushed down."""
        return SUPPORT

    def _table(self, collection: str) -> Table:
        table = self._tables.get(collection)
        if table is None:
            table = self._tables[collection] = table_of(self._config, collection)
        return table

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none; one round trip."""
        if not ids:
            return []
        table = self._table(collection)
        if for_update:
            return await self._runner.command(
                table, lambda connection: read_by_id(connection, table, ids, for_update=True)
            )
        return await self._runner.query(
            table, lambda connection: read_by_id(connection, table, ids), [None] * len(ids)
        )

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations of one kind; return one result for each, in order."""
        table = self._table(collection)
        return await self._runner.command(
            table, lambda connection: write_unique(connection, table, kind, mutations, atomic=atomic)
        )

    async def modify(self, collection: str, modification: Modification) -> ItemResult | None:
        """Change part of one record and return its version; None if the core has to look at it."""
        table = self._table(collection)
        return await self._runner.command(table, lambda connection: modify(connection, table, modification))

    async def modify_where(
        self, collection: str, where: Predicate, changes: tuple[FieldChange, ...]
    ) -> int | None:
        """Change the matching records and return how many; None, and none is, if left to the core."""
        table = self._table(collection)
        return await self._runner.command(
            table, lambda connection: modify_where(connection, table, where, changes)
        )

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page; one round trip."""
        table = self._table(collection)
        if request.consistent:
            return await self._runner.fetch_consistent(table, source_of(table), request)
        if request.streamed and request.order:
            page = await self._runner.fetch_sorted(table, source_of(table), request)
            if page is not None:
                return page
        statement = await compile_statement(request.where, lambda: select_page(table, request))
        if request.for_update:
            text, args = statement
            rows = await self._runner.command(table, lambda connection: connection.fetch(text, *args))
        elif may_merge(request):
            rows = await self._fetch_small(table, statement)
        else:
            rows = await self._fetch_rows(table, *statement)
        more = request.size is not None and len(rows) > request.size
        if request.texts:
            return Page([], None, texts=texts_of(rows[: request.size]))
        records = PostgresRecord.wrap(rows[: request.size] if more else rows)
        if not (more and records):
            return Page(records, None)
        return Page(records, After((records[-1].id,)) if request.order is None else MORE)

    async def _fetch_rows(self, table: Table, text: str, args: Sequence[Any]) -> list[Any]:
        return await self._runner.query(table, lambda connection: connection.fetch(text, *args), [])

    async def _fetch_small(self, table: Table, statement: Statement) -> list[Any]:
        """Return the rows of a small search or a count, which may be merged with others."""
        return await self._fetch_rows(table, *statement)

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count the matching records."""
        table = self._table(collection)
        statement = await compile_statement(where, lambda: select_count(table, where))
        rows = await self._fetch_small(table, statement)
        return CountResult(rows[0][0] if rows else 0)

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Compute partial states by group."""
        table = self._table(collection)
        groups = await self._runner.query(
            table, lambda connection: aggregate(connection, table, request), Groups(request.measures)
        )
        return AggregateResult(groups)

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many."""
        table = self._table(collection)
        text, args = await compile_statement(where, lambda: delete_where(table, where))
        status = await self._runner.command(table, lambda connection: connection.execute(text, *args))
        return int(status.rpartition(" ")[2])

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the statement, its arguments and the server's plan for it."""
        table = self._table(collection)
        statement = await compile_statement(request.where, lambda: select_page(table, request))
        plan = await self._runner.query(
            table, lambda connection: explain(connection, statement), NativePlan(statement.text)
        )
        used, missing = explain_columns(table, request), [str(c) for c in missing_in(table, table.columns)]
        if not (used or missing):
            return plan
        return replace(plan, details={**plan.details, "columns": used, "missing_columns": missing})

    async def release(self, collection: str, after: After) -> None:
        """Release the connection of an unfinished consistent stream."""
        await self._runner.release(after.token)

    async def ping(self) -> None:
        """Run an empty query."""
        await self._runner.query(None, lambda connection: connection.execute("SELECT 1"), "")

    async def refresh(self, collection: str) -> None:
        """Do nothing: a commit is visible to all at once."""


async def read_by_id(
    connection: Connection, table: Table, ids: Sequence[str], *, for_update: bool = False
) -> list[Record | None]:
    """Return the records of these ids in order, None where there is none."""
    lock = " FOR UPDATE" if for_update else ""
    if len(ids) == 1:
        row = await connection.fetchrow(
            f"SELECT {COLUMNS} FROM {table.sql} AS t WHERE t.id = $1{lock}", ids[0]
        )
        return [None] if row is None else [*PostgresRecord.wrap((row,))]
    # All lock in one order, so that two batches never wait for each other in a circle.
    order = " ORDER BY t.id" if for_update else ""
    rows = await connection.fetch(
        f"SELECT {COLUMNS} FROM {table.sql} AS t WHERE t.id = ANY($1::text[]){order}{lock}", list(ids)
    )
    by_id = {row[0]: record for row, record in zip(rows, PostgresRecord.wrap(rows), strict=True)}
    return [by_id.get(id) for id in ids]


async def explain(connection: Connection, statement: Statement) -> NativePlan:
    """Return a statement with its arguments, the server's plan, and the indexes that this uses."""
    text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement.text}", *statement.args)
    plan = (orjson.loads(text) if isinstance(text, str) else text)[0]["Plan"]
    used = dict.fromkeys(node["Index Name"] for node in _plan_nodes(plan) if "Index Name" in node)
    details = {
        "arguments": list(statement.args),
        "plan": _plan_lines(plan, 0),
        "cost": plan.get("Total Cost"),
    }
    return NativePlan(statement.text, ", ".join(used) or None, details)


def _plan_nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _plan_nodes(inner)


def _plan_lines(plan: dict[str, Any], depth: int) -> list[str]:
    text = plan["Node Type"]
    if "Index Name" in plan:
        text += f" using {plan['Index Name']}"
    elif "Relation Name" in plan:
        text += f" on {plan['Relation Name']}"
    lines = ["  " * depth + f"{text} (about {plan.get('Plan Rows')} rows)"]
    for inner in plan.get("Plans", ()):
        lines += _plan_lines(inner, depth + 1)
    return lines
