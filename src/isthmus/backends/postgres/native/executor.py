"""The operations on native tables, compiled to statements; where they run is the runner's concern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

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
from isthmus._core.offload import compile_statement
from isthmus._path import Root
from isthmus._query.ast import Leaf, Measure, Predicate, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus._value import replace
from isthmus.backends._tables.keys import key_of, sort_key_of
from isthmus.backends._tables.writes import refuse_read_only
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.cursors import RowSource
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import is_changed_type, is_undefined_column, is_undefined_table
from isthmus.backends.postgres.executor import Runner, Work, explain
from isthmus.backends.postgres.native.aggregate import aggregate, aggregates
from isthmus.backends.postgres.native.catalog import NativeTable, read_table
from isthmus.backends.postgres.native.errors import is_refusal, refusal_of
from isthmus.backends.postgres.native.filter import pushdown
from isthmus.backends.postgres.native.indexes import missing_indexes
from isthmus.backends.postgres.native.order import sorts
from isthmus.backends.postgres.native.record import RowReader
from isthmus.backends.postgres.native.select import (
    columns_of,
    delete_where,
    select_by_key,
    select_count,
    select_page,
)
from isthmus.backends.postgres.native.write import write
from isthmus.errors import BatchError, ConfigError, InvalidRecordError, UsageError

R = TypeVar("R")

CAPABILITIES = Capabilities(
    durable=True,
    transactions=True,
    savepoints=True,
    isolation=frozenset({"read committed", "repeatable read", "serializable"}),
    for_update=True,
    atomic_batch=True,
    conditional_create=True,
    compare_and_set=True,
    delete_where=True,
    consistent_stream=True,
)


class NativeSupport:
    """What can be pushed down for one table."""

    def __init__(self, table: NativeTable) -> None:
        self._table = table

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return how closely the condition on the column matches a leaf."""
        return pushdown(self._table, leaf)

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether all keys are scalars in columns."""
        return all(key.path.root is not Root.SCORE and sorts(self._table, key.path) for key in order)

    def id_key(self, id: str) -> tuple[Any, ...]:
        """Return what an id sorts by."""
        return sort_key_of(self._table.table, id)

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return whether all paths are scalars in columns, and no measure needs all values."""
        return aggregates(self._table, measures, by)


class NativeExecutor:
    """Compiles operations, has a runner run them, and decodes the results."""

    def __init__(self, config: PostgresConfig, tables: dict[str, NativeTable], runner: Runner) -> None:
        self._config = config
        self._tables = tables
        self._runner = runner
        self._readers: dict[str, RowReader] = {}

    @property
    def capabilities(self) -> Capabilities:
        """Return what the backend supports."""
        return CAPABILITIES

    def support(self, collection: str) -> NativeSupport:
        """Return what can be pushed down."""
        return NativeSupport(self._table(collection))

    def _table(self, collection: str) -> NativeTable:
        table = self._tables.get(collection)
        if table is None:
            raise UsageError(f"postgres: the table {collection!r} was not opened")
        return table

    def _reader(self, table: NativeTable, names: list[str] | None = None) -> RowReader:
        if names is not None:
            return RowReader(table, names)
        reader = self._readers.get(table.name)
        if reader is None or reader.table is not table:
            reader = self._readers[table.name] = RowReader(table)
        return reader

    async def open(self, collection: str) -> None:
        """Read the description of the table; raises `ConfigError` if it cannot serve records."""
        self._tables[collection] = await self._read(
            lambda connection: read_table(connection, self._config, collection)
        )

    async def _read(self, work: Work[R]) -> R:
        # Of no table of isthmus, so nothing is returned in place of a missing one.
        return await self._runner.query(None, work, cast("R", None))

    async def _query(self, table: NativeTable, work: Work[R]) -> R:
        with _Changed(table):
            return await self._read(work)

    async def _command(self, table: NativeTable, work: Work[R]) -> R:
        with _Changed(table):
            return await self._runner.command(None, work)

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none; one round trip.

        Raises `InvalidRecordError` for two rows with one key, which a view may have.
        """
        found = await self._read_rows(collection, ids, for_update=for_update)
        if for_update and self._table(collection).has_policies and None in found:
            # The server locks no row that a policy does not let be changed; the write then is refused.
            missing = [place for place, record in enumerate(found) if record is None]
            shown = await self._read_rows(collection, [ids[place] for place in missing], for_update=False)
            for place, record in zip(missing, shown, strict=True):
                found[place] = record
        return found

    async def _read_rows(
        self, collection: str, ids: Sequence[str], *, for_update: bool
    ) -> list[Record | None]:
        table = self._table(collection)
        keys = {id: key for id in ids if (key := key_of(table.table, id)) is not None}
        if not keys:
            return [None] * len(ids)
        reader = self._reader(table)
        statement = select_by_key(table, reader, list(keys.values()), for_update=for_update)
        work: Work[list[Any]] = lambda connection: connection.fetch(statement.text, *statement.args)  # noqa: E731
        rows = await (self._command(table, work) if for_update else self._query(table, work))
        by_id: dict[str, Record] = {}
        for record in reader.wrap(rows):
            if not table.is_keyed and record.id in by_id:
                raise _double_key_error(table, record.id)
            by_id[record.id or ""] = record
        return [by_id.get(id) for id in ids]

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations of one kind; return one result for each, in order."""
        table = self._table(collection)
        return await self._command(
            table, lambda connection: write(connection, table, kind, mutations, atomic=atomic)
        )

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page; one round trip."""
        table = self._table(collection)
        reader = self._reader(table, columns_of(request))
        source = RowSource(lambda whole: select_page(table, reader, whole), reader.wrap)
        if request.consistent:
            with _Changed(table):
                return await self._runner.fetch_consistent(None, source, request)
        if request.streamed and request.order and table.is_keyed:
            with _Changed(table):
                page = await self._runner.fetch_sorted(None, source, request)
            if page is not None:
                return page
        text, args = await compile_statement(request.where, lambda: select_page(table, reader, request))
        work: Work[list[Any]] = lambda connection: connection.fetch(text, *args)  # noqa: E731
        rows = await (self._command(table, work) if request.for_update else self._query(table, work))
        if not table.is_keyed:
            _refuse_doubled(table, reader, rows)
        more = request.size is not None and len(rows) > request.size
        records = reader.wrap(rows[: request.size] if more else rows)
        if not (more and records):
            return Page(records, None)
        return Page(records, After((records[-1].id,)) if request.order is None else MORE)

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count the matching records."""
        table = self._table(collection)
        text, args = await compile_statement(where, lambda: select_count(table, where))
        return CountResult(await self._query(table, lambda connection: connection.fetchval(text, *args)))

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Compute partial states by group."""
        table = self._table(collection)
        return AggregateResult(
            await self._query(table, lambda connection: aggregate(connection, table, request))
        )

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many.

        Raises `BatchError` if the table refuses to let one go: then none is deleted.
        """
        table = self._table(collection)
        refuse_read_only(table.table)
        text, args = await compile_statement(where, lambda: delete_where(table, where))

        async def delete(connection: Connection) -> int:
            try:
                async with connection.transaction():
                    status = await connection.execute(text, *args)
            except Exception as error:  # the driver's classes
                if not is_refusal(error):
                    raise
                refused = refusal_of(error, table, None)
                raise BatchError(f"nothing was deleted: {refused}", outcomes=[refused]) from error
            return int(status.rpartition(" ")[2])

        return await self._command(table, delete)

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the statement, its arguments and the server's plan for it."""
        table = self._table(collection)
        reader = self._reader(table, columns_of(request))
        statement = await compile_statement(request.where, lambda: select_page(table, reader, request))

        async def work(connection: Connection) -> NativePlan:
            plan = await explain(connection, statement)
            missing = await missing_indexes(connection, table, request)
            return replace(plan, details={**plan.details, "would_serve": missing})

        return await self._query(table, work)

    async def release(self, collection: str, after: After) -> None:
        """Release the connection of an unfinished consistent stream."""
        await self._runner.release(after.token)

    async def ping(self) -> None:
        """Run an empty query."""
        await self._runner.query(None, lambda connection: connection.execute("SELECT 1"), "")

    async def refresh(self, collection: str) -> None:
        """Do nothing: a commit is visible to all at once."""


def _refuse_doubled(table: NativeTable, reader: RowReader, rows: Sequence[Any]) -> None:
    seen: set[str] = set()
    for row in rows:
        id = reader.id(row)
        if id in seen:
            raise _double_key_error(table, id)
        seen.add(id)


def _double_key_error(table: NativeTable, id: str | None) -> InvalidRecordError:
    error = InvalidRecordError(
        f"two rows of {table.name!r} have the key {id!r}: `key` has to name columns that tell rows apart",
        path="id",
        record_id=id,
    )
    error.stored = True
    return error


_CHANGES = (is_undefined_table, is_undefined_column, is_changed_type)


class _Changed:
    """A block in which a table or column that is gone is explained: it was changed under the handle."""

    __slots__ = ("_table",)

    def __init__(self, table: NativeTable) -> None:
        self._table = table

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and any(is_change(error) for is_change in _CHANGES):
            raise ConfigError(
                f"postgres: the table {self._table.sql} was changed or dropped since this handle opened it:"
                f" {error.__cause__}; open a new handle"
            ) from error
