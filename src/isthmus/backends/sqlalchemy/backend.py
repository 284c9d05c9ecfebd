"""The SQLAlchemy backend: one table a collection, a prefilter at the store, the rest in the core."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

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
    PoolStats,
    TransactionOptions,
    WriteKind,
)
from isthmus._core.loop_pools import LoopBound, secret_digest
from isthmus._path import Path
from isthmus._query.aggregate import Groups
from isthmus._query.ast import TRUE, Leaf, Measure, Predicate, SortKey
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus._value import replace
from isthmus.backends.sqlalchemy import CAPABILITIES
from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig
from isthmus.backends.sqlalchemy.engine import EnginePool, begin_write, dialect_of, open_engine
from isthmus.backends.sqlalchemy.errors import translate_errors
from isthmus.backends.sqlalchemy.filter import compile_filter, pushdown
from isthmus.backends.sqlalchemy.schema import id_of, key_of, table
from isthmus.backends.sqlalchemy.write import chunks, write
from isthmus.errors import ConfigError, SerializationError, TransactionError, UnexpectedError
from sqlalchemy import Select, Table, delete, func, inspect, select, text

# SQLite has one level, and a transaction that writes has the database to itself.
_SQLITE = replace(CAPABILITIES, isolation=frozenset({"serializable"}))
_MOST_ROWS = 10_000
_REPEATS = 5


class _Support:
    def pushdown(self, leaf: Leaf) -> Pushdown:
        return pushdown(leaf)

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        return not order

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[Path, ...]) -> bool:
        return False


class _Executor:
    """The verbs on a connection that a subclass provides."""

    def __init__(self, tables: dict[str, Table], capabilities: Capabilities) -> None:
        self._tables = tables
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """Return what the database can do; all SQL databases do the same but for isolation."""
        return self._capabilities

    def support(self, collection: str) -> _Support:
        """Return the prefilter, and order by id."""
        return _Support()

    def _connection(
        self, collection: str, *, writes: bool = False
    ) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        raise NotImplementedError

    def _table(self, collection: str) -> Table:
        if collection not in self._tables:
            self._tables[collection] = table(collection)
        return self._tables[collection]

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records by id, 500 to a statement."""
        source = self._table(collection)
        found: dict[str, Record] = {}
        async with self._connection(collection) as connection:
            for part in chunks(list({key_of(wanted) for wanted in ids})):
                statement = select(source).where(source.c.key.in_(part))
                rows = await connection.execute(statement.with_for_update() if for_update else statement)
                for row in rows:
                    found[row.key] = _record(row)
        return [found.get(key_of(wanted)) for wanted in ids]

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply the changes in one transaction."""
        async with self._connection(collection, writes=True) as connection:
            return await write(connection, self._table(collection), kind, mutations, atomic=atomic)

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page by key; large requests take several statements of bounded size."""
        statement = self._page(collection, request)
        size, limit = request.size_up_to(_MOST_ROWS), request.size_up_to(sys.maxsize)
        async with self._connection(collection) as connection:
            # One row more than the page holds tells that there is a next page.
            rows = (await connection.execute(statement.limit(size + 1))).all()
            records = [_record(row) for row in rows[:size]]
            more = len(rows) > size
            while more and len(records) < limit:
                source = self._table(collection)
                onward = self._page(collection, request, beyond=rows[size - 1].key, source=source)
                size = min(limit - len(records), _MOST_ROWS)
                rows = (await connection.execute(onward.limit(size + 1))).all()
                records += [_record(row) for row in rows[:size]]
                more = len(rows) > size
        if not more:
            return Page(records, None)
        return Page(records, MORE if request.order is not None else After((records[-1].id,)))

    def _page(
        self, collection: str, request: PageRequest, beyond: str | None = None, source: Table | None = None
    ) -> Select[Any]:
        source = self._table(collection) if source is None else source
        statement = select(source).where(compile_filter(request.where, source)).order_by(source.c.key)
        if beyond is None and request.after is not None and request.after.position is not None:
            beyond = key_of(request.after.position[-1])
        elif beyond is None and request.offset:
            statement = statement.offset(request.offset)
        if beyond is not None:
            statement = statement.where(source.c.key > beyond)
        return statement.with_for_update() if request.for_update else statement

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count; only the whole table is exact here."""
        source = self._table(collection)
        async with self._connection(collection) as connection:
            statement = select(func.count()).select_from(source).where(compile_filter(where, source))
            return CountResult((await connection.execute(statement)).scalar_one())

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Refuse: the core aggregates, since no aggregate is exact here."""
        raise UnexpectedError(f"aggregate was asked of a backend that has none: {Groups(request.measures)}")

    async def remove(self, collection: str, where: Predicate) -> int:
        """Clear the table."""
        if where != TRUE:
            raise UnexpectedError("delete_where was asked of a backend that has none")
        async with self._connection(collection, writes=True) as connection:
            return (await connection.execute(delete(self._table(collection)))).rowcount

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the statement in the server's dialect."""
        statement = self._page(collection, request).limit(request.size_up_to(_MOST_ROWS) + 1)
        async with self._connection(collection) as connection:
            shown = str(statement.compile(dialect=connection.dialect))
        return NativePlan(shown, index="primary key")

    async def release(self, collection: str, after: After) -> None:
        """Do nothing: a stream holds nothing between pages."""

    async def refresh(self, collection: str) -> None:
        """Do nothing: a commit is visible at once."""


class _Transaction(_Executor):
    """The verbs inside one transaction."""

    def __init__(self, backend: SQLAlchemyBackend, connection: AsyncConnection, *, read_only: bool) -> None:
        super().__init__(backend._tables, backend.capabilities)
        self._backend = backend
        self._held = connection
        self._read_only = read_only
        self.lost = False
        """Whether the server has undone all of it, as it does with a deadlock's victim."""

    @contextlib.asynccontextmanager
    async def _connection(self, collection: str, *, writes: bool = False) -> AsyncIterator[AsyncConnection]:
        if writes and self._read_only:
            raise TransactionError("this transaction is read-only")
        if self.lost:
            raise TransactionError("the server has undone this transaction; run it again")
        await self._backend.make_ready(collection, self._held)
        try:
            with translate_errors("in a transaction"):
                yield self._held
        except SerializationError:
            self.lost = True
            raise

    async def open(self, collection: str) -> None:
        """Make the table if it is missing; MySQL and MariaDB do that outside of the transaction."""
        await self._backend.make_ready(collection, self._held)

    async def ping(self) -> None:
        """Run SELECT 1."""
        with translate_errors("in a transaction"):
            await self._held.execute(text("SELECT 1"))

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo what was done since, if the block raises."""
        with translate_errors("at a savepoint"):
            nested = await self._held.begin_nested()
        try:
            yield
        except BaseException:
            # Shielded: half a rollback would leave the outer transaction with what was to be undone.
            if not self.lost and nested.is_active:
                with translate_errors("undoing a savepoint"):
                    await asyncio.shield(asyncio.ensure_future(nested.rollback()))
            raise
        with translate_errors("at a savepoint"):
            await nested.commit()


class SQLAlchemyBackend(_Executor):
    """A database behind SQLAlchemy."""

    name = "sqlalchemy"

    def __init__(self, config: SQLAlchemyConfig) -> None:
        self._dialect = dialect_of(config)
        super().__init__({}, _SQLITE if self._dialect == "sqlite" else CAPABILITIES)
        self._config = config
        self.default_collection = config.table
        address = None if config.address is None else config.address.get_secret_value()
        key = ("sqlalchemy", secret_digest(address), id(config.engine), config.pool)
        self._pools = LoopBound(key, self._open_pool)
        self._ready: set[str] = set()

    async def _open_pool(self) -> EnginePool:
        return open_engine(self._config)

    @contextlib.asynccontextmanager
    async def _connection(self, collection: str, *, writes: bool = False) -> AsyncIterator[AsyncConnection]:
        engine = (await self._pools.pool()).engine
        with translate_errors("at the store"):
            async with engine.connect() as connection:
                if writes:
                    await begin_write(connection)
                yield connection
                if writes:
                    with translate_errors("while committing", commits=True):
                        await connection.commit()

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply the changes in one transaction, again if the server chose it as a deadlock's victim."""
        for attempt in itertools.count(1):
            try:
                return await super().write(collection, kind, mutations, atomic=atomic)
            except SerializationError:
                if attempt == _REPEATS:
                    raise
            await asyncio.sleep(0.005 * 2**attempt)
        raise AssertionError  # the loop above has no end

    async def open(self, collection: str) -> None:
        """Connect, and make the table if it is not there; a table of other columns is refused."""
        async with self._connection(collection, writes=True) as connection:
            await self._create_table(collection, connection)
        self._ready.add(collection)

    async def ping(self) -> None:
        """Run SELECT 1."""
        async with self._connection(self.default_collection) as connection:
            await connection.execute(text("SELECT 1"))

    async def make_ready(self, collection: str, held: AsyncConnection) -> None:
        """Open a collection that is first used inside a transaction."""
        if collection in self._ready:
            return
        if self._dialect == "sqlite":  # one writer at a time, and that is this transaction
            with translate_errors("opening"):
                await self._create_table(collection, held)
        else:  # MySQL and MariaDB commit what is open when a table is made
            await self.open(collection)

    async def _create_table(self, collection: str, connection: AsyncConnection) -> None:
        source = self._table(collection)
        for _ in range(_REPEATS):
            columns = await connection.run_sync(functools.partial(_columns, name=collection))
            if columns is not None:
                break
            if not self._config.create_table:
                raise ConfigError(f"sqlalchemy: there is no table {collection!r}, and create_table is false")
            try:
                async with connection.begin_nested():
                    await connection.run_sync(functools.partial(source.create, checkfirst=True))
            except (ProgrammingError, OperationalError, IntegrityError):
                # Another process made it between the check and the creation, or it is a real
                # failure, which the next round finds out.
                if await connection.run_sync(functools.partial(_columns, name=collection)) is None:
                    raise
        if columns is not None and columns != {column.name for column in source.columns}:
            raise ConfigError(
                f"sqlalchemy: the table {collection!r} is not ours: its columns are {sorted(columns)}"
            )

    async def close(self) -> None:
        """Give back the engine; the last handle disposes of it."""
        await self._pools.close()

    async def collections(self) -> list[str]:
        """Return the tables that have our columns."""
        async with self._connection(self.default_collection) as connection:
            return await connection.run_sync(_ours)

    async def drop(self, collection: str) -> None:
        """Drop the table."""
        self._ready.discard(collection)
        async with self._connection(collection, writes=True) as connection:
            await connection.run_sync(functools.partial(self._table(collection).drop, checkfirst=True))

    @contextlib.asynccontextmanager
    async def begin(self, options: TransactionOptions) -> AsyncIterator[_Transaction]:
        """Run a transaction on a connection of its own; what the caller's block raises passes as it is."""
        engine = (await self._pools.pool()).engine
        async with contextlib.AsyncExitStack() as stack:
            with translate_errors("opening a transaction"):
                connection = await stack.enter_async_context(engine.connect())
                if options.isolation is not None:
                    await connection.execution_options(isolation_level=options.isolation.upper())
                if not options.read_only:
                    await begin_write(connection)
            transaction = _Transaction(self, connection, read_only=options.read_only)
            yield transaction
            if transaction.lost:
                raise SerializationError("the server has undone this transaction; run it again")
            with translate_errors("while committing", commits=True):
                await connection.commit()

    def stats(self) -> PoolStats:
        """Return the sizes of the engine's pool."""
        held = self._pools.current()
        pool: Any = None if held is None else held.engine.pool
        if pool is None or not hasattr(pool, "checkedout"):
            return PoolStats()
        idle, busy = pool.checkedin(), pool.checkedout()
        most = self._config.pool.size + self._config.pool.max_overflow
        return PoolStats(size=idle + busy, idle=idle, in_use=busy, max_size=most)

    async def native(self) -> AsyncEngine:
        """Return this loop's AsyncEngine."""
        return (await self._pools.pool()).engine


def _record(row: Any) -> Record:
    return Record.stored(
        id_of(row.key), row.data, row.metadata, str(row.version), row.created_at, row.updated_at
    )


def _columns(connection: Any, name: str) -> set[str] | None:
    inspector = inspect(connection)
    return {column["name"] for column in inspector.get_columns(name)} if inspector.has_table(name) else None


def _ours(connection: Any) -> list[str]:
    inspector = inspect(connection)
    wanted = {column.name for column in table("records").columns}
    names = inspector.get_table_names()
    return sorted(name for name in names if {c["name"] for c in inspector.get_columns(name)} == wanted)
