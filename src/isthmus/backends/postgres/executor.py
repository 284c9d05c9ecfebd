"""The verbs over one connection at a time; the backend and a transaction share them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

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
from isthmus._query.ast import Predicate
from isthmus._record import Record
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.explain import explained
from isthmus.backends.postgres.lazy_record import records
from isthmus.backends.postgres.read import by_id
from isthmus.backends.postgres.schema import table_of
from isthmus.backends.postgres.sql.aggregate import totals
from isthmus.backends.postgres.sql.select import counting, page, removal
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.support import CAPABILITIES, SUPPORT, PostgresSupport
from isthmus.backends.postgres.write import write

R = TypeVar("R")


class PostgresExecutor:
    """Compiles, runs, decodes. Subclasses say which connection it is run on."""

    def __init__(self, config: PostgresConfig, tables: dict[str, Table]) -> None:
        self._config = config
        self._tables = tables

    async def _run(self, work: Callable[[Connection], Awaitable[R]], *, writes: bool = False) -> R:
        """Do work on a connection and return its result; the driver's errors come out as ours."""
        raise NotImplementedError

    @property
    def capabilities(self) -> Capabilities:
        """Return what can be done here."""
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
        """Return the records of these ids in order, None where there is none."""
        if not ids:
            return []
        table = self._table(collection)
        return await self._run(
            lambda connection: by_id(connection, table, ids, for_update=for_update), writes=for_update
        )

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply changes of one kind; one result for each, in order."""
        table = self._table(collection)
        return await self._run(
            lambda connection: write(connection, table, kind, mutations, atomic=atomic), writes=True
        )

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page."""
        table = self._table(collection)
        if request.consistent:
            return await self._consistent(table, request)
        text, args = page(table, request)
        rows = await self._run(lambda connection: connection.fetch(text, *args), writes=request.for_update)
        more = request.size is not None and len(rows) > request.size
        found = records(rows[: request.size] if more else rows)
        if request.order is None:
            return Page(found, After((found[-1].id,)) if more and found else None)
        return Page(found, MORE if more and found else None)

    async def _consistent(self, table: Table, request: PageRequest) -> Page:
        """Return one page of a snapshot that is held between pages."""
        raise NotImplementedError

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count the matching records."""
        text, args = counting(self._table(collection), where)
        return CountResult(await self._run(lambda connection: connection.fetchval(text, *args)))

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Compute partial states by group."""
        table = self._table(collection)
        return AggregateResult(await self._run(lambda connection: totals(connection, table, request)))

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many."""
        text, args = removal(self._table(collection), where)
        status = await self._run(lambda connection: connection.execute(text, *args), writes=True)
        return int(status.rpartition(" ")[2])

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the statement and what the server's planner makes of it."""
        statement = page(self._table(collection), request)
        return await self._run(lambda connection: explained(connection, statement))

    async def release(self, collection: str, after: After) -> None:
        """Give back the connection of an unfinished consistent stream."""
        await self._release(after.token)

    async def ping(self) -> None:
        """Run an empty query."""
        await self._run(lambda connection: connection.execute("SELECT 1"))

    async def refresh(self, collection: str) -> None:
        """Do nothing: a commit is visible to all at once."""

    async def _release(self, token: int) -> None:
        raise NotImplementedError
