"""Operations on a table of JSON documents, the same in a transaction and outside."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import duckdb

from isthmus import spi
from isthmus_duckdb.filter import predicate_sql, pushdown

T = TypeVar("T")
Connection = duckdb.DuckDBPyConnection
Row = tuple[Any, ...]

# One table for all collections: DuckDB's names of tables ignore case, those of collections do not.
SCHEMA = """
create table if not exists collections (name varchar primary key);
create table if not exists records (
    collection varchar, id varchar, data json, metadata json, version varchar,
    created_at bigint, updated_at bigint, primary key (collection, id)
);
"""
_SELECT = "select id, data, metadata, version, created_at, updated_at from records where collection = ?"
_READ = f"{_SELECT} and id = any(?::varchar[])"
_DELETE = "delete from records where collection = ?"
_UPSERT = """
insert into records select ?, unnest(?::varchar[]), unnest(?::varchar[]), unnest(?::varchar[]),
    unnest(?::varchar[]), unnest(?::bigint[]), unnest(?::bigint[])
on conflict do update set data = excluded.data, metadata = excluded.metadata,
    version = excluded.version, created_at = excluded.created_at, updated_at = excluded.updated_at
"""
_STREAM_PAGE = 1_000


class Rows:
    """The records that a batch touches, changed by `apply_in_order` and then stored."""

    def __init__(self, found: list[Row]) -> None:
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
        old = spi.Record.stored(*self._rows[id])
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


class Executor(ABC):
    """The operations; a subclass says where they run."""

    def __init__(self, capabilities: spi.Capabilities) -> None:
        self.capabilities = capabilities

    @abstractmethod
    async def run(self, work: Callable[[Connection], T], *, write: bool = False) -> T:
        """Run blocking work on a connection, in one transaction if it writes."""

    async def query(self, sql: str, args: Sequence[Any] = (), *, write: bool = False) -> list[Row]:
        """Run one statement."""
        return await self.run(lambda connection: connection.execute(sql, args).fetchall(), write=write)

    def support(self, collection: str) -> spi.Support:
        return self

    def pushdown(self, leaf: spi.Leaf) -> spi.Pushdown:
        return pushdown(leaf)

    def orders(self, order: tuple[spi.SortKey, ...]) -> bool:
        return not order

    def aggregates(self, measures: tuple[spi.Measure, ...], by: tuple[spi.Path, ...]) -> bool:
        return False

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[spi.Record | None]:
        rows = await self.query(_READ, [collection, list(ids)])
        records = {row[0]: spi.Record.stored(*row) for row in rows}
        return [records.get(id) for id in ids]

    async def write(
        self, collection: str, kind: spi.WriteKind, mutations: Sequence[spi.Mutation], *, atomic: bool
    ) -> list[spi.ItemResult]:
        def work(connection: Connection) -> list[spi.ItemResult]:
            ids = [mutation.id for mutation in mutations]
            rows = Rows(connection.execute(_READ, [collection, ids]).fetchall())
            results = spi.apply_in_order(rows, kind, mutations)
            refused = spi.refuse_batch(mutations, results) if atomic else None
            if refused is None:
                rows.store(connection, collection)
            return refused or results

        return await self.run(work, write=True)

    async def fetch(self, collection: str, request: spi.PageRequest) -> spi.Page:
        size = request.size if request.order is not None else request.size_up_to(_STREAM_PAGE)
        rows = await self.query(*_page_sql(collection, request, size))
        records = [spi.Record.stored(*row) for row in rows[:size]]
        if len(rows) == len(records):
            return spi.Page(records, None)
        return spi.Page(records, spi.After((records[-1].id,)) if request.order is None else spi.MORE)

    async def count(self, collection: str, where: spi.Predicate) -> spi.CountResult:
        args: list[Any] = [collection]
        sql = f"select count(*) from records where collection = ? and {predicate_sql(where, args)}"
        return spi.CountResult((await self.query(sql, args))[0][0])

    async def aggregate(self, collection: str, request: spi.AggregateRequest) -> spi.AggregateResult:
        raise AssertionError("`aggregates` accepts none")

    async def remove(self, collection: str, where: spi.Predicate) -> int:
        args: list[Any] = [collection]
        rows = await self.query(f"{_DELETE} and {predicate_sql(where, args)}", args, write=True)
        return int(rows[0][0])

    async def explain(self, collection: str, request: spi.PageRequest) -> spi.NativePlan:
        return spi.NativePlan(_page_sql(collection, request, request.size)[0], index=None)

    async def open(self, collection: str) -> None:
        return None  # the table is there

    async def release(self, collection: str, after: spi.After) -> None:
        return None  # no page holds anything

    async def refresh(self, collection: str) -> None:
        return None  # what is committed is visible

    async def ping(self) -> None:
        await self.query("select 1")
