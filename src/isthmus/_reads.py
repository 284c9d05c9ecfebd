"""The methods that read: by id, by query, page by page, as a stream, and aggregates."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from isthmus._arguments import check_count
from isthmus._core.apply import not_found
from isthmus._core.executor import After, AggregateRequest, NativePlan, PageRequest
from isthmus._core.offload import run_in_thread
from isthmus._core.op import Aggregate, Count, Explain, Fetch, Read
from isthmus._ids import check_id, check_ids
from isthmus._path import Path, Root
from isthmus._query.ast import FALSE, RANKED, TRUE, And, Predicate, SortKey, leaves
from isthmus._query.columns import (
    Column,
    GroupNames,
    check_first,
    finish_rows,
    group_keys_by_label,
    measures,
)
from isthmus._query.evaluate import select
from isthmus._query.field import FieldName, as_path
from isthmus._query.normalize import flatten
from isthmus._query.query import Query, as_predicate, as_query
from isthmus._query.split import split
from isthmus._record import Record, project
from isthmus._search_hit import Hit
from isthmus._session import SessionBound
from isthmus._stream import RecordStream
from isthmus._value import Value, replace
from isthmus.errors import NotFoundError, QueryError

if TYPE_CHECKING:
    from isthmus._explain import Explanation

Find: TypeAlias = "Query | Predicate | None"

PAGE_SIZE = 100
STREAM_PAGE = 2_000
MAX_PAGE = 10_000
# Of an aggregate: each takes some 10 us to finish and to order.
_MANY_GROUPS = 500
_BY_SCORE = (SortKey(Path(Root.SCORE, ()), descending=True),)


class CursorPage(Value):
    """One page of a search, and the cursor that continues it (None on the last page).

    The cursor is text that survives restarts; it fits only the same conditions and order.
    """

    records: list[Record]
    cursor: str | None


class ReadMethods(SessionBound):
    """The methods that read one collection."""

    # By id

    async def get(self, id: str, *, for_update: bool = False) -> Record | None:
        """Return the record with an id, or None if there is none; an outage raises `StoreError`.

        `for_update` locks it until the transaction ends. One round trip; gets of one loop
        iteration may share it.
        """
        records = await self._run(Read(self.collection_name, (check_id(id),), for_update))
        return records[0]

    async def require(self, id: str, *, for_update: bool = False) -> Record:
        """Return the record with an id; raises `NotFoundError` if there is none."""
        record = await self.get(id, for_update=for_update)
        if record is None:
            raise not_found(id)
        return record

    async def exists(self, what: str | Query | Predicate) -> bool:
        """Return whether there is a record with an id, or any record that matches a query."""
        if isinstance(what, str):
            return await self.get(what) is not None
        return await self.find_one(what) is not None

    async def get_batch(self, ids: Iterable[str]) -> list[Record | None]:
        """Return the records with these ids in order, None where there is none; ids may repeat."""
        wanted = check_ids(list(ids))
        records = await self._run(Read(self.collection_name, wanted))
        return records if len(set(wanted)) == len(wanted) else _copy_repeated(records)

    async def require_batch(self, ids: Iterable[str]) -> list[Record]:
        """Return the records with these ids in order; raises `NotFoundError` if one is missing."""
        wanted = list(ids)
        records = await self.get_batch(wanted)
        missing = [id for id, record in zip(wanted, records, strict=True) if record is None]
        if missing:
            raise NotFoundError(
                f"{len(missing)} ids have no record, {missing[0]!r} first", record_id=missing[0]
            )
        return records  # type: ignore[return-value]

    async def exists_batch(self, ids: Iterable[str]) -> list[bool]:
        """Return for each id whether there is a record."""
        return [record is not None for record in await self.get_batch(ids)]

    # Finding

    async def search(self, query: Find = None, *, for_update: bool = False) -> list[Record]:
        """Return the matching records in the query's order, by id without one.

        All of them are held in memory; `stream` holds a page. `for_update` locks them until the
        transaction ends. Raises `QueryError` for a query that the backend cannot serve exactly.
        """
        found = as_query(query)
        if found.count == 0:
            return []
        where = flatten(found.where)
        # As plain as most searches are, it costs less.
        request = PageRequest(where, found.order, found.count)
        if found.skip or found.fields is not None or for_update:
            request = replace(request, offset=found.skip, select=found.fields, for_update=for_update)
        return (await self._run(Fetch(self.collection_name, request))).records

    async def hits(
        self,
        query: Query | Predicate,
        *,
        highlights: Iterable[FieldName] = (),
        passages: Iterable[FieldName] = (),
    ) -> list[Hit]:
        """Return records with their scores, best first unless the query has a sort.

        The query needs a `match()` or a `nearest()`, else `QueryError`. For each field in
        `highlights`, a hit carries the matching snippets with the offsets of the words; `passages`
        is the name of that parameter in 0.1.0.
        """
        found = as_query(query)
        if not any(isinstance(leaf, RANKED) for leaf in leaves(found.where)):
            raise QueryError("hits() ranks by match() or nearest(), and the query has neither")
        if found.count == 0:
            return []
        request = PageRequest(
            found.where,
            found.order or _BY_SCORE,
            found.count,
            offset=found.skip,
            select=found.fields,
            ranked=True,
            highlight=tuple(map(as_path, (*highlights, *passages))),
        )
        page = await self._run(Fetch(self.collection_name, request))
        return [
            replace(hit, record=record) if (hit := page.hits.get(record.id or "")) else Hit(record)
            for record in page.records
        ]

    async def find_one(self, query: Find = None) -> Record | None:
        """Return the first matching record in the query's order, by id without one; None if none matches."""
        records = await self.search(as_query(query).limit(1))
        return records[0] if records else None

    async def count(self, query: Find = None) -> int:
        """Return how many records match.

        Costs one request, or a scan for what the store cannot evaluate exactly. Raises `QueryError` for a
        query with a limit or offset.
        """
        return (await self._run(Count(self.collection_name, _conditions(query)))).count

    def stream(
        self, query: Find = None, *, consistent: bool = False, page_size: int = STREAM_PAGE
    ) -> RecordStream:
        """Return the matching records as a stream in bounded memory, with one page requested ahead.

        `page_size` is the number of records of a page, 1 to 10,000; by default 2,000, and with a sort
        growing to 10,000, since each page may cost a sort of what is left: PostgreSQL and SQLite keep a
        cursor instead, as long as nobody waits for its connection. Without a sort the order is the
        store's. `consistent=True` reads one snapshot where the backend can
        (`capabilities.consistent_stream`); use it with `async with`, which releases the snapshot.
        """
        found = as_query(query)
        check_count("page_size", page_size, MAX_PAGE)
        session = self._session
        # Without an order, a limit or offset still has to mean what it means to search.
        ordered = bool(found.order or found.count is not None or found.skip)
        size: int | None = page_size
        if ordered and not session.executor.support(self.collection_name).orders(found.order):
            size = None  # sorted client-side: one scan, not one for each page
        request = PageRequest(
            found.where,
            found.order if ordered else None,
            size,
            offset=found.skip,
            select=found.fields,
            consistent=consistent,
            streamed=bool(found.order) and not consistent,
        )
        return RecordStream(
            session,
            self.collection_name,
            request,
            limit=found.count,
            # Where no index serves the order, each page costs a sort of all that follows.
            largest_page=MAX_PAGE if found.order and page_size == STREAM_PAGE else 0,
        )

    async def page(
        self, query: Find = None, *, size: int | None = None, cursor: str | None = None
    ) -> CursorPage:
        """Return one page and the cursor of the next; pages never overlap and can be resumed.

        `size` is the number of records, by default the query's limit or 100. Raises `QueryError`
        for a cursor that was altered or belongs to another query or order.
        """
        found = as_query(query)
        wanted = size if size is not None else found.count if found.count is not None else PAGE_SIZE
        check_count("page(): size", wanted, error=QueryError)
        if found.skip:
            raise QueryError("page() goes on by cursor; use search() for an offset")
        from isthmus._query.cursor import decode_cursor, encode_cursor, fits_order  # loads hashing

        secret = self._session.cursor_secret
        after = None if cursor is None else decode_cursor(cursor, found, self.collection_name, secret)
        if after is not None and not fits_order(after, found.order):
            raise QueryError("cursor: it belongs to another order")
        start = None if after is None else After(after)
        request = PageRequest(found.where, found.order, wanted, after=start, select=None)
        page = await self._run(Fetch(self.collection_name, request))
        token = None
        if page.after is not None and page.after.position is not None:
            token = encode_cursor(page.after.position, found, self.collection_name, secret)
        records = page.records if found.fields is None else _project_all(page.records, found)
        return CursorPage(records, token)

    async def aggregate(
        self,
        query: Find = None,
        *,
        by: GroupNames = (),
        **columns: Column,
    ) -> list[dict[str, Any]]:
        """Return one row for each group, in the order of the groups' keys or of the query.

        `aggregate(by="city", n="count", oldest=("max", "age"), p95=("percentile", "price", 95))`

        Each column is `"count"`, or a tuple of a function (count, sum, avg, min, max, count_distinct,
        percentile) and a field, for `percentile` with a number above 0 and up to 100: the nearest rank.
        `by` has fields or buckets (`field("at").by("day")`), or names for them:
        `by={"day": field("at").by("day")}`. Without `by` there is one row. `sum` and `avg` take numbers
        only and are None without any; a record without a value is in the None group, a record with a
        list in each value's group.

        The query's sort (by the names of columns) and limit choose the first groups, ties by key:
        `aggregate(Query().sort("n", "desc").limit(10), by="city", n="count")`. Without a value comes last.

        What the store cannot compute exactly is computed here, from every matching record; of the values
        of count_distinct and percentile at most `sort_cap` are held, else `UnsupportedError`.
        """
        keys = group_keys_by_label(by)
        computed = measures(columns)
        if not computed:
            raise QueryError("aggregate() needs at least one column such as n='count'")
        if clash := keys.keys() & {m.name for m in computed}:
            raise QueryError(f"aggregate(): two columns are named {min(clash)!r}")
        found = as_query(query)
        check_first(found, [*keys, *(m.name for m in computed)])
        request = AggregateRequest(found.where, computed, tuple(keys.values()))
        answer = await self._run(Aggregate(self.collection_name, request))
        finish = partial(finish_rows, answer.groups, tuple(keys.items()), computed, found)
        return await run_in_thread(finish) if len(answer.groups) > _MANY_GROUPS else finish()

    async def explain(self, query: Find = None, *, by: GroupNames = (), **columns: Column) -> Explanation:
        """Return what runs where, the native query and the index used, without running the query.

        With the arguments of `aggregate`, it also says where that is computed, and by which columns;
        the native query then is that of the records.
        """
        from isthmus._explain import build_explanation, explain_aggregate

        found = as_query(query)
        if columns:
            groups, computed = tuple(group_keys_by_label(by).values()), measures(columns)
            plan = await self.explain(found.where)
            return explain_aggregate(self._session.executor, self.collection_name, plan, computed, groups)
        session = self._session
        support = session.executor.support(self.collection_name)
        where = found.where if session.scope == TRUE else And((session.scope, found.where))
        parts = split(where, support.pushdown)
        exact = parts.residual == TRUE and support.orders(found.order)
        request = PageRequest(
            parts.pushed,
            found.order if support.orders(found.order) else None,
            found.count if found.count is not None and exact else PAGE_SIZE,
            offset=found.skip if exact else 0,
        )
        if parts.pushed == FALSE:
            native = NativePlan("none: no record can match")
        else:
            native = await session.run(Explain(self.collection_name, request))
        return build_explanation(session.backend_name, support, where, found.order, parts, native)

    async def refresh(self) -> None:
        """Make earlier writes visible to searches by other handles; a no-op where they are already."""
        await self._session.refresh(self.collection_name)


def _copy_repeated(records: list[Record | None]) -> list[Record | None]:
    """Return the records with copies in place of repeated objects, so that changing one changes one."""
    seen: set[int] = set()
    separate: list[Record | None] = []
    for record in records:
        separate.append(copy.deepcopy(record) if id(record) in seen else record)
        seen.add(id(record))
    return separate


def _conditions(query: Find) -> Predicate:
    return TRUE if query is None else flatten(as_predicate(query))


def _project_all(records: list[Record], query: Query) -> list[Record]:
    return [project(record, select(record.data, query.fields or ())) for record in records]
