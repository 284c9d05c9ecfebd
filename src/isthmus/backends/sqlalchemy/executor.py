"""The executor's methods on a connection that a subclass provides: the database's or a transaction's."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

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
from isthmus._query.ast import TRUE, Leaf, Measure, Predicate, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus.backends.sqlalchemy.claims import clear_claims
from isthmus.backends.sqlalchemy.errors import (
    MissingTableError,
    StaleTableError,
    is_lock_timeout,
    translate,
    translate_errors,
)
from isthmus.backends.sqlalchemy.filter import compile_filter, limit_filter, pushdown
from isthmus.backends.sqlalchemy.schema import has_table, id_of, key_of, table_of
from isthmus.backends.sqlalchemy.statements import chunks
from isthmus.backends.sqlalchemy.write import write
from isthmus.errors import DeadlineError, IsthmusError, SerializationError, TransactionError, UnexpectedError
from sqlalchemy import Select, Table, delete, func, select, text

if TYPE_CHECKING:
    from isthmus.backends.sqlalchemy.backend import SQLAlchemyBackend

_MAX_ROWS = 10_000
_DECLARATIONS = 3
"""How often the declarations of a collection may change during one call."""


class SQLAlchemySupport:
    """A prefilter on the JSON text, and order by id."""

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return SUPERSET where the JSON text can be searched for something, else NONE."""
        return pushdown(leaf)

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether the order is by id."""
        return not order

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return False: the core aggregates."""
        return False


_SUPPORT = SQLAlchemySupport()


Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


def with_current_table(method: Method) -> Method:
    """Run a method again if the collection's unique fields are not those that this handle knows."""

    @functools.wraps(method)
    async def run(self: SQLAlchemyExecutor, collection: str, *args: Any, **kwargs: Any) -> Any:
        for _ in range(_DECLARATIONS):
            try:
                return await method(self, collection, *args, **kwargs)
            except StaleTableError:
                await self.read_table(collection)
        return await method(self, collection, *args, **kwargs)

    return cast("Method", run)


class SQLAlchemyExecutor(abc.ABC):
    """Compiles requests and decodes rows. Reads take a table that was dropped for an empty one."""

    def __init__(self, tables: dict[str, Table], capabilities: Capabilities) -> None:
        self._tables = tables
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """Return what the database can do: the same on all but for isolation."""
        return self._capabilities

    def support(self, collection: str) -> SQLAlchemySupport:
        """Return what can be pushed down."""
        return _SUPPORT

    @abc.abstractmethod
    def _connection(
        self, collection: str, *, writes: bool = False
    ) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """Return a connection for one operation, with its errors translated.

        Raises `MissingTableError` if the collection was dropped, at the latest from the statement.
        """

    @abc.abstractmethod
    async def read_table(self, collection: str) -> None:
        """Read the unique fields of a collection whose table is not as this handle knows it."""

    def _table(self, collection: str) -> Table:
        if collection not in self._tables:
            self._tables[collection] = table_of(collection)
        return self._tables[collection]

    @with_current_table
    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none; a query for each 500."""
        source = self._table(collection)
        found: dict[str, Record] = {}
        with contextlib.suppress(MissingTableError):
            async with self._connection(collection) as connection:
                for part in chunks(list({key_of(id) for id in ids})):
                    statement = select(source).where(source.c.key.in_(part))
                    rows = await connection.execute(statement.with_for_update() if for_update else statement)
                    found |= {row.key: _decode(row) for row in rows}
        return [found.get(key_of(id)) for id in ids]

    @with_current_table
    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations of one kind in one transaction; return one result for each."""
        async with self._connection(collection, writes=True) as connection:
            return await write(connection, self._table(collection), kind, mutations, atomic=atomic)

    @with_current_table
    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page in the order of ids; a query for each 10,000 records."""
        source = self._table(collection)
        limit = request.size_up_to(sys.maxsize)
        statement = _select_page(source, request)
        records: list[Record] = []
        more = True
        try:
            async with self._connection(collection) as connection:
                while more and len(records) < limit:
                    size = min(limit - len(records), _MAX_ROWS)
                    # One more row than needed says that there is a next page.
                    rows = (await connection.execute(statement.limit(size + 1))).all()
                    records += [_decode(row) for row in rows[:size]]
                    more = len(rows) > size
                    if more:
                        statement = _select_page(source, request, after=rows[size - 1].key)
        except MissingTableError:
            more = False
        if not more:
            return Page(records, None)
        return Page(records, MORE if request.order is not None else After((records[-1].id,)))

    @with_current_table
    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Return the number of records that match; called without a condition only."""
        source = self._table(collection)
        statement = select(func.count()).select_from(source).where(compile_filter(where, source))
        with contextlib.suppress(MissingTableError):
            async with self._connection(collection) as connection:
                return CountResult((await connection.execute(statement)).scalar_one())
        return CountResult(0)

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Raise `UnexpectedError`: the core aggregates, as `aggregates` accepts nothing."""
        raise UnexpectedError("sqlalchemy: aggregate was called although no aggregate can be pushed down")

    @with_current_table
    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete all records and return how many there were; one statement.

        Raises `UnexpectedError` for a condition, as the capability `delete_where` is false.
        """
        if where != TRUE:
            raise UnexpectedError("sqlalchemy: delete_where was called although it cannot be pushed down")
        with contextlib.suppress(MissingTableError):
            async with self._connection(collection, writes=True) as connection:
                await clear_claims(connection, self._table(collection))
                return (await connection.execute(delete(self._table(collection)))).rowcount
        return 0

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the statement of a page in the server's dialect, and whether it lacks part of the filter."""
        is_whole = limit_filter(request.where) == request.where
        statement = _select_page(self._table(collection), request).limit(request.size_up_to(_MAX_ROWS) + 1)
        sql = str(statement.compile(dialect=await self._dialect()))
        details = (
            {} if is_whole else {"left out": "what is too large for a statement; the client evaluates it"}
        )
        return NativePlan(sql, index="primary key", details=details)

    @abc.abstractmethod
    async def _dialect(self) -> Any:
        """Return the dialect that compiles statements."""

    async def release(self, collection: str, after: After) -> None:  # noqa: B027 - complete
        """Do nothing: a stream holds no resource between pages."""

    async def refresh(self, collection: str) -> None:  # noqa: B027 - complete
        """Do nothing: a commit is visible at once."""


class SQLAlchemyTransaction(SQLAlchemyExecutor):
    """An executor inside one transaction."""

    def __init__(self, backend: SQLAlchemyBackend, connection: AsyncConnection, *, read_only: bool) -> None:
        super().__init__(backend._tables, backend.capabilities)
        self._backend = backend
        self._held = connection
        self._read_only = read_only
        self._found: set[str] = set()
        self.lost = False
        """Whether the server has rolled back all of it, as it does with a deadlock's victim."""
        self._failed = False  # or may have

    @property
    def native(self) -> AsyncConnection:
        """The connection, for SQL of the user; its errors are not seen here."""
        self._failed = True
        return self._held

    def conflict_of(self, error: Exception) -> SerializationError | None:
        """Return the isthmus error for a conflict, or a lock not granted in time, in SQL of the user."""
        if not isinstance(error, DBAPIError):
            return None
        failure = translate(error, "in a transaction")
        if is_lock_timeout(error):
            return SerializationError(str(failure))
        return failure if isinstance(failure, SerializationError) else None

    @contextlib.asynccontextmanager
    async def _connection(self, collection: str, *, writes: bool = False) -> AsyncIterator[AsyncConnection]:
        if writes and self._read_only:
            raise TransactionError("this transaction is read-only")
        if self.lost:
            raise TransactionError("the server has undone this transaction; run it again")
        await self._backend.make_ready(collection, self._held)
        try:
            with translate_errors("in a transaction"):
                if not writes:
                    await self._find_table(collection)
                yield self._held
        except SerializationError:
            self.lost = True
            raise
        except DeadlineError as error:
            if not is_lock_timeout(error):
                self._failed = True
                raise
            # The holder may wait for a lock of ours: all is undone, so that it may be repeated.
            self.lost = True
            raise SerializationError(f"{error}; the transaction is undone") from error
        except IsthmusError:
            self._failed = True
            raise

    async def check_commit(self) -> None:
        """Raise if the transaction has failed although its block goes on: by an error that was caught.

        PostgreSQL answers COMMIT with a rollback then, which its drivers do not report.
        """
        if self.lost:
            raise SerializationError("the server has undone this transaction; run it again")
        if self._failed and self._held.dialect.name == "postgresql":
            await self.ping()

    async def read_table(self, collection: str) -> None:
        """Read the unique fields of a collection whose table is not as this handle knows it.

        Raises `SerializationError` on PostgreSQL, where the statement that failed ended the transaction.
        """
        if self._held.dialect.name == "postgresql":
            await self._backend.read_table(collection)
            self.lost = True
            raise SerializationError(f"the unique fields of {collection!r} were changed; run it again")
        with translate_errors("in a transaction"):
            await self._backend.find_table(collection, self._held)

    async def _find_table(self, collection: str) -> None:
        """Raise `MissingTableError` before a query would: on PostgreSQL that ends the transaction."""
        if self._held.dialect.name != "postgresql" or collection in self._found:
            return
        if not await self._held.run_sync(has_table, collection):
            raise MissingTableError(f"there is no table {collection!r}")
        self._found.add(collection)

    async def _dialect(self) -> Any:
        return self._held.dialect

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations of one kind; return one result for each. A dropped table is created again."""
        try:
            return await super().write(collection, kind, mutations, atomic=atomic)
        except MissingTableError:
            await self._backend.make_ready(collection, self._held, dropped=True)
        return await super().write(collection, kind, mutations, atomic=atomic)

    async def open(self, collection: str) -> None:
        """Create the table if it is missing; MySQL and MariaDB do that outside of the transaction."""
        await self._backend.make_ready(collection, self._held)

    async def ping(self) -> None:
        """Run SELECT 1."""
        with translate_errors("in a transaction"):
            await self._held.execute(text("SELECT 1"))

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Open a savepoint: leaving it by an exception undoes the writes since."""
        with translate_errors("at a savepoint"):
            nested = await self._held.begin_nested()
        try:
            yield
        except BaseException:
            # Shielded: half a rollback would leave the outer transaction with undone and other writes.
            if not self.lost and nested.is_active:
                with translate_errors("rolling back to a savepoint"):
                    await asyncio.shield(asyncio.ensure_future(nested.rollback()))
            raise
        with translate_errors("at a savepoint"):
            await nested.commit()


def _select_page(source: Table, request: PageRequest, after: str | None = None) -> Select[Any]:
    """Return the query of a page, or of its rest after a key."""
    where = compile_filter(limit_filter(request.where), source)
    statement = select(source).where(where).order_by(source.c.key)
    if after is None and request.after is not None and request.after.position is not None:
        after = key_of(request.after.position[-1])
    elif after is None and request.offset:
        statement = statement.offset(request.offset)
    if after is not None:
        statement = statement.where(source.c.key > after)
    return statement.with_for_update() if request.for_update else statement


def _decode(row: Any) -> Record:
    return Record.stored(
        id_of(row.key), row.data, row.metadata, str(row.version), row.created_at, row.updated_at
    )
