"""The backend: each call runs in a thread, on a connection and in a transaction of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from threading import Lock
from typing import Any, TypeVar

import duckdb

from isthmus import errors, spi
from isthmus.spi import ItemResult, Mutation, Record
from isthmus_duckdb import capabilities
from isthmus_duckdb.config import DuckDBConfig
from isthmus_duckdb.filter import predicate_sql, pushdown

T = TypeVar("T")
Connection = duckdb.DuckDBPyConnection

# One table for all collections: DuckDB's names of tables ignore case, those of collections do not.
_SCHEMA = """create table if not exists records (collection varchar, id varchar, data json, metadata json,
    version varchar, created_at bigint, updated_at bigint, primary key (collection, id))"""
_SELECT = "select id, data, metadata, version, created_at, updated_at from records where collection = ?"
_READ = f"{_SELECT} and id = any(?::varchar[])"
_DELETE = "delete from records where collection = ?"
_COLUMNS = ", ".join(["unnest(?::varchar[])"] * 4 + ["unnest(?::bigint[])"] * 2)
_UPSERT = f"insert or replace into records select ?, {_COLUMNS}"
_STREAM_PAGE = 1_000
# Two connections of the process that create the table, or write the same record, at once would conflict.
_exclusive = Lock()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    # A write has looked for its ids in its snapshot: one that is there all the same was committed since.
    except (duckdb.TransactionException, duckdb.ConstraintException) as error:
        raise errors.SerializationError(f"another transaction came first: {error}") from error
    except duckdb.IOException as error:
        # Perhaps from the commit.
        raise errors.UnavailableError(f"DuckDB failed: {error}", applied=errors.Applied.MAYBE) from error
    except duckdb.Error as error:
        raise errors.UnexpectedError(f"DuckDB failed: {error}") from error


class _Rows:
    """The records that a batch touches, changed by `apply_in_order` and then stored."""

    def __init__(self, found: list[tuple[Any, ...]]) -> None:
        self._before = {row[0]: row for row in found}
        self._rows = dict(self._before)

    def version(self, id: str) -> str | None:
        return self._rows[id][3] if id in self._rows else None

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        now, version = time.time_ns() // 1_000, str(spi.new_version())
        created = self._rows[id][4] if id in self._rows else now
        self._rows[id] = (id, data.decode(), metadata.decode(), version, created, now)
        return version

    def merge(self, id: str, data: bytes, metadata: bytes) -> str:
        old = Record.stored(*self._rows[id])
        return self.put(id, *spi.merge_documents(old.data, old.metadata, data, metadata))

    def delete(self, id: str) -> None:
        del self._rows[id]

    def store(self, connection: Connection, collection: str) -> None:
        """Write the differences."""
        if gone := list(self._before.keys() - self._rows.keys()):
            connection.execute(f"{_DELETE} and id = any(?::varchar[])", [collection, gone])
        if changed := [row for id, row in self._rows.items() if row is not self._before.get(id)]:
            connection.execute(_UPSERT, [collection, *map(list, zip(*changed, strict=True))])


def _page_sql(collection: str, request: spi.PageRequest, size: int | None) -> tuple[str, list[Any]]:
    """Return the query of a page by id; one record more than it holds tells that there is another page."""
    args: list[Any] = [collection]
    sql = f"{_SELECT} and {predicate_sql(request.where, args)}"
    if request.after is not None and request.after.position is not None:
        sql += " and id > ?"
        args.append(request.after.position[-1])
    limit = "" if size is None else f" limit {size + 1}"
    return f"{sql} order by id{limit} offset {request.offset}", args


class DuckDBBackend:
    """A database, and its own `Support`; it belongs to no event loop."""

    name = "duckdb"
    pushdown = staticmethod(pushdown)

    def __init__(self, config: DuckDBConfig) -> None:
        self.capabilities = capabilities(durable=not config.path.startswith(":memory:"))
        self.default_collection = config.table
        self._path = config.path
        self._database: Connection | None = None
        self._readers = ThreadPoolExecutor(4)
        # Writes, which wait for each other, do so in one thread and leave the others to reads.
        self._writer = ThreadPoolExecutor(1)

    def support(self, collection: str) -> spi.Support:
        return self

    def orders(self, order: tuple[spi.SortKey, ...]) -> bool:
        return not order

    def aggregates(self, measures: tuple[spi.Measure, ...], by: tuple[spi.GroupKey, ...]) -> bool:
        return False

    async def open(self, collection: str) -> None:
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        with _exclusive, _translated():
            if self._database is None:
                try:
                    database = duckdb.connect(self._path)
                except duckdb.IOException as error:
                    raise errors.ConnectError(f"cannot open {self._path}: {error}") from error
                database.execute(_SCHEMA)
                self._database = database

    async def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            # A call that still runs has its own connection to the database.
            await asyncio.to_thread(database.close)

    # --8<-- [start:run]
    async def _run(self, work: Callable[[Connection], T], *, write: bool = False) -> T:
        """Run blocking work in one transaction; if cancelled, interrupt it and wait for its end."""

        def run() -> T:
            with _translated(), _exclusive if write else nullcontext():
                connection.execute("begin")
                result = work(connection)
                connection.execute("commit")
                return result

        with self.native().cursor() as connection:
            job = (self._writer if write else self._readers).submit(run)
            done = asyncio.wrap_future(job)
            try:
                return await asyncio.shield(done)
            except asyncio.CancelledError:
                if not job.cancel():
                    connection.interrupt()
                while not done.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait([done])
                raise

    # --8<-- [end:run]
    async def _query(self, sql: str, *args: Any, write: bool = False) -> list[tuple[Any, ...]]:
        return await self._run(lambda connection: connection.execute(sql, args).fetchall(), write=write)

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        rows = await self._query(_READ, collection, list(ids))
        records = {row[0]: Record.stored(*row) for row in rows}
        return [records.get(id) for id in ids]

    async def write(
        self, collection: str, kind: spi.WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        def work(connection: Connection) -> list[ItemResult]:
            rows = _Rows(connection.execute(_READ, [collection, [m.id for m in mutations]]).fetchall())
            results = spi.apply_in_order(rows, kind, mutations)
            refused = spi.refuse_batch(mutations, results) if atomic else None
            if refused is None:
                rows.store(connection, collection)
            return refused or results

        return await self._run(work, write=True)

    async def fetch(self, collection: str, request: spi.PageRequest) -> spi.Page:
        size = request.size if request.order is not None else request.size_up_to(_STREAM_PAGE)
        sql, args = _page_sql(collection, request, size)
        rows = await self._query(sql, *args)
        records = [Record.stored(*row) for row in rows[:size]]
        if len(rows) == len(records):
            return spi.Page(records, None)
        return spi.Page(records, spi.MORE if request.order is not None else spi.After((records[-1].id,)))

    async def count(self, collection: str, where: spi.Predicate) -> spi.CountResult:
        args: list[Any] = [collection]
        sql = f"select count(*) from records where collection = ? and {predicate_sql(where, args)}"
        return spi.CountResult((await self._query(sql, *args))[0][0])

    async def aggregate(self, collection: str, request: spi.AggregateRequest) -> spi.AggregateResult:
        raise AssertionError("`aggregates` accepts none")

    async def remove(self, collection: str, where: spi.Predicate) -> int:
        args: list[Any] = [collection]
        sql = f"{_DELETE} and {predicate_sql(where, args)}"
        return int((await self._query(sql, *args, write=True))[0][0])

    async def drop(self, collection: str) -> None:
        await self.remove(collection, spi.TRUE)

    async def explain(self, collection: str, request: spi.PageRequest) -> spi.NativePlan:
        return spi.NativePlan(_page_sql(collection, request, request.size)[0])

    async def collections(self) -> list[str]:
        return [row[0] for row in await self._query("select distinct collection from records order by 1")]

    async def ping(self) -> None:
        await self._query("select 1")

    async def release(self, collection: str, after: spi.After) -> None:
        """Nothing: no page holds anything in the store."""

    async def refresh(self, collection: str) -> None:
        """Nothing: what is committed is visible."""

    def begin(self, options: spi.TransactionOptions) -> AbstractAsyncContextManager[spi.TransactionExecutor]:
        raise errors.UnsupportedError("no transactions", capability="transactions")

    def stats(self) -> spi.PoolStats:
        return spi.PoolStats()

    def native(self) -> Connection:
        if self._database is None:
            raise errors.ClosedError("the DuckDB database is closed")
        return self._database
