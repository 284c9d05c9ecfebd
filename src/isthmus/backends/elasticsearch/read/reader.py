"""Reads of one index: by id in real time, ordered pages, streams of one state, counts.

A search has main records, for which the server's response is exact, and recheck candidates: records
with a value that the index does not hold as it is, at a path of the query, which the core evaluates
client-side. Both must come from one state of the index, or a record that changed from one to the
other in between would be in neither. So the candidates are searched before and after the main
records, in one request; only if they changed, or are many, a point in time holds the state.
"""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from isthmus._core.executor import MORE, After, CountResult, NativePlan, Page, PageRequest
from isthmus._path import Path
from isthmus._query.ast import Predicate, SortKey
from isthmus._record import Record
from isthmus._value import replace
from isthmus._values import INT_MAX
from isthmus.backends.elasticsearch.client import FOUND, ClientPool, json_text
from isthmus.backends.elasticsearch.errors import translate_response
from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.layout import WINDOW
from isthmus.backends.elasticsearch.read.documents import get_many, records_of
from isthmus.backends.elasticsearch.read.filter import NONE, Compiler, either
from isthmus.backends.elasticsearch.read.highlights import Highlights, TextFields
from isthmus.backends.elasticsearch.read.plan import SearchPlan, plan_search
from isthmus.backends.elasticsearch.read.point_in_time import (
    MAX_PAGE,
    PointInTime,
    SlicedScan,
    require_all_shards,
    shard_order,
)
from isthmus.errors import QueryError

# Candidates that one response may hold; more are read from a point in time.
_MAX_CANDIDATES = 1_000
_SCAN_PAGE = 5_000

Hits = list[dict[str, Any]]


class IndexReader:
    """Reads of one index.

    A reader stays with its `index`, also when the name stands for another one since. `keep_alive` is how
    long a point in time outlives its last request, in Elasticsearch's notation; `slices` the number of
    parts that a stream reads concurrently.
    """

    def __init__(self, pool: ClientPool, index: CollectionIndex, *, keep_alive: str, slices: int = 1) -> None:
        self._pool = pool
        self.index = index
        self._slices = slices
        self._window = WINDOW
        self._keep_alive = keep_alive
        self._action = f"search in {index.name}"

    async def plan(
        self,
        where: Predicate,
        order: Sequence[SortKey] = (),
        value_paths: Sequence[Path] = (),
        *,
        ranked: bool = False,
    ) -> SearchPlan:
        """Return the native parts of a search; see `plan_search`."""
        return await plan_search(self._pool, self.index, where, order, value_paths, ranked=ranked)

    async def confirm(self) -> None:
        """Check that the name still stands for the index that was read, where nothing else tells."""
        await self.index.confirm_read(self._pool)

    def records(self, hits: Sequence[Mapping[str, Any]]) -> Sequence[Record]:
        """Return the records of hits."""
        return records_of(hits, self.index.uuid)

    def _text_fields(self) -> TextFields:
        return Compiler(self.index.types, self.index.fulltext)

    # By id

    async def by_id(self, ids: Sequence[str]) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none; in real time."""
        hits = await get_many(self._pool, self.index, ids)
        records = iter(self.records([hit for hit in hits if hit is not None]))
        return [None if hit is None else next(records) for hit in hits]

    # Pages

    async def page(self, request: PageRequest) -> Page:
        """Return one ordered page: one request, unless it is long or candidates have changed."""
        plan = await self.plan(request.where, request.order or (), ranked=request.ranked)
        if request.after is not None and plan.sort.scored:
            raise QueryError("an order by _score has no cursors: use limit and offset")
        if request.size == 0:
            return Page([], None)
        if request.consistent:
            return await self._consistent_page(plan, request)
        if request.ranked:
            return await self._page_with_hits(plan, request)
        # Most searches without a limit find little: one request tells.
        reach = request.size_up_to(MAX_PAGE - 1) + 1
        short = request.size is not None and request.size < MAX_PAGE
        from_start = request.after is None and not request.offset
        if request.offset + reach <= self._window and (not request.offset or request.after is None):
            if not short and from_start and plan.is_mergeable:
                page = await self._whole_page(plan, reach - 1)
            else:
                page = await self._short_page(plan, replace(request, size=reach - 1))
            if short or page.after is None:
                return page
        async with self.point_in_time() as pit:
            recheck = await self.candidates(plan, pit)
            return self._make_page(await self._long_page(plan, request, pit), request.size, recheck)

    async def _page_with_hits(self, plan: SearchPlan, request: PageRequest) -> Page:
        """Return one ordered page with scores and highlights, all of it from one response."""
        size = request.size_up_to(self._window - 1 - request.offset)
        if request.after is not None or size < 0:
            raise QueryError(f"hits() reaches {self._window} hits and has no cursors: use limit and offset")
        highlights = Highlights(request.highlight, self._text_fields())
        body = plan.body(size + 1) | highlights.clause() | {"track_scores": True}
        if request.offset:
            body["from"] = request.offset
        response, recheck = await self._search_with_candidates(plan, body)
        found = response["hits"]["hits"]
        if len(found) > size and size != request.size:
            raise QueryError(f"hits() reaches {self._window} hits at most: use a limit")
        page = self._make_page(found, size, recheck)
        return replace(page, hits=highlights.hits(found, page.records))

    async def _consistent_page(self, plan: SearchPlan, request: PageRequest) -> Page:
        """Return one ordered page of a point in time, which the token names with the position in it."""
        size = request.size_up_to(MAX_PAGE)
        pit, position = await self._resume(request.after)
        keep = False
        try:
            body = plan.body(size)
            if position is not None:
                body["search_after"] = position
            # With every page: the core merges those that lie within it.
            recheck = await self.candidates(plan, pit)
            hits = (await pit.search(body))["hits"]["hits"]
            keep = len(hits) == size
        finally:
            if not keep:
                await pit.release()
        after = After(token=(pit.id, hits[-1]["sort"], self.index)) if keep else None
        return Page(list(self.records(hits)), after, recheck)

    async def _short_page(self, plan: SearchPlan, request: PageRequest) -> Page:
        body = plan.body(request.size_up_to(MAX_PAGE) + 1)
        if request.offset:
            body["from"] = request.offset
        if (position := _position(request)) is not None:
            body["search_after"] = plan.sort.after(position)
        response, recheck = await self._search_with_candidates(plan, body)
        return self._make_page(response["hits"]["hits"], request.size, recheck)

    async def _whole_page(self, plan: SearchPlan, size: int) -> Page:
        """Return all records from one response, which is one state of the index; `MORE` if it cannot."""
        response = await self._search(plan.body(size + 1) | {"query": either([plan.main, plan.recheck])})
        hits = response["hits"]["hits"]
        if len(hits) > size:
            return Page([], MORE)
        main: Hits = []
        candidates: Hits = []
        for hit in hits:
            (candidates if plan.is_candidate(hit["_source"]) else main).append(hit)
        return self._make_page(main, None, records_of(candidates, self.index.uuid))

    async def _long_page(self, plan: SearchPlan, request: PageRequest, pit: PointInTime) -> Hits:
        """Return the hits of a page that is too long or starts too far for one request."""
        start = _position(request)
        position = None if start is None else [*plan.sort.after(start), INT_MAX]
        skip, wanted = request.offset, request.size_up_to(sys.maxsize) + 1
        hits: Hits = []
        while wanted > 0:
            skipping = skip > 0
            size = min(skip if skipping else wanted, MAX_PAGE)
            body = plan.body(size)
            if skipping:
                body["_source"] = False
            if position is not None:
                body["search_after"] = position
            found = (await pit.search(body))["hits"]["hits"]
            if skipping:
                skip -= len(found)
            else:
                hits += found
                wanted -= len(found)
            if len(found) < size:
                break
            position = found[-1]["sort"]
        return hits

    def _make_page(self, hits: Hits, size: int | None, recheck: Sequence[Record]) -> Page:
        more = size is not None and len(hits) > size
        return Page(list(self.records(hits[:size])), MORE if more else None, recheck)

    # Streams

    async def stream(self, request: PageRequest) -> Page:
        """Return one page in any order, of a point in time that the token names."""
        size = request.size_up_to(MAX_PAGE)
        recheck: Sequence[Record] = ()
        pit, positions = await self._resume(request.after)
        keep = False
        try:
            # Planned after the point in time was opened: a field that was mapped in between is known.
            plan = await self.plan(request.where)
            if positions is None:
                recheck = await self.candidates(plan, pit)
            # The k nearest are found among all records, not by slice.
            scan = SlicedScan(positions, 1 if plan.knn is not None else self._slices)
            hits = await scan.page(pit, plan.clause(), size)
            keep = scan.has_more
        finally:
            if not keep:
                await pit.release()
        after = After(token=(pit.id, scan.positions, self.index)) if keep else None
        return Page(list(self.records(hits)), after, recheck)

    async def _resume(self, after: After | None) -> tuple[PointInTime, Any]:
        """Return the point in time and the position that a token names; a new one and None without."""
        if after is None:
            pit = await PointInTime.open(self._pool, self.index, self._keep_alive, self._action)
            return pit, None
        pit_id, position, _ = after.token
        return PointInTime(self._pool, pit_id, self._keep_alive, self._action), position

    async def release(self, after: After) -> None:
        """Close the point in time of a stream."""
        pit, _ = await self._resume(after)
        await pit.release()

    def point_in_time(self) -> AbstractAsyncContextManager[PointInTime]:
        """Hold one state of the index."""
        return PointInTime.hold(self._pool, self.index, self._keep_alive, self._action)

    async def main(self, plan: SearchPlan, pit: PointInTime) -> AsyncIterator[Record]:
        """Yield the main records of a plan in a point in time."""
        async for hits in pit.pages(plan.clause(), _SCAN_PAGE):
            for record in self.records(hits):
                yield record

    async def candidates(self, plan: SearchPlan, pit: PointInTime) -> list[Record]:
        """Return the recheck candidates of a plan in a point in time."""
        candidates: list[Record] = []
        if plan.recheck is not NONE:
            async for hits in pit.pages({"query": plan.recheck}, _SCAN_PAGE):
                plan.check_candidates(len(hits))
                candidates += records_of(hits, self.index.uuid)
        return candidates

    # Counts and plans

    async def count(self, where: Predicate) -> CountResult:
        """Return how many main records match, and the candidates."""
        plan = await self.plan(where)
        body = {**plan.clause(), "size": 0, "track_total_hits": True}
        response, recheck = await self._search_with_candidates(plan, body)
        return CountResult(response["hits"]["total"]["value"], recheck)

    async def explain(self, request: PageRequest) -> NativePlan:
        """Return the main query as JSON, and how many records would be evaluated client-side."""
        plan = await self.plan(request.where, request.order or ())
        ordered = request.order is not None
        size = request.size_up_to(MAX_PAGE)
        body = plan.body(size) if ordered else shard_order(plan.clause(), size)
        if ordered and (position := _position(request)) is not None:
            body["search_after"] = plan.sort.after(position)
        details: dict[str, Any] = {"index": self.index.name}
        if plan.recheck is not NONE:
            count = await self._search({"query": plan.recheck, "size": 0, "track_total_hits": True})
            total = count["hits"]["total"]["value"]
            details |= {"recheck": plan.recheck, "evaluated_client_side": total}
            details |= {"aside": plan.recheck, "judged_here": total}  # the names of version 0.1
        text = json_text(body).decode()
        return NativePlan(
            f"POST {self.index.name_url}/_search {text}", index=self.index.name, details=details
        )

    # Requests

    async def _search_with_candidates(
        self, plan: SearchPlan, body: dict[str, Any]
    ) -> tuple[dict[str, Any], Sequence[Record]]:
        """Return the response for the main records and the candidates, of one state of the index."""
        if plan.recheck is NONE:
            return await self._search(body), []
        first: dict[str, Any] = {
            "query": plan.recheck,
            "size": _MAX_CANDIDATES,
            "seq_no_primary_term": True,
            "track_total_hits": True,
        }
        parts = [first, body, {**first, "_source": False}]
        # The same shard copies for all three, and one after another: else their states have no order.
        header = json_text({"preference": f"isthmus{random.getrandbits(32)}"})
        lines = b"".join(header + b"\n" + json_text(part) + b"\n" for part in parts)
        target = f"{self.index.url}/_msearch?max_concurrent_searches=1"
        status, response = await self._pool.call(
            "POST", target, lines, action=self._action, lines=True, expected=FOUND
        )
        if status == 404:
            raise self.index.mark_gone()
        before, main, after = (self._check_response(part) for part in response["responses"])
        if before["hits"]["total"]["value"] <= _MAX_CANDIDATES and _states(before) == _states(after):
            plan.check_candidates(len(before["hits"]["hits"]))
            return main, records_of(before["hits"]["hits"], self.index.uuid)
        async with self.point_in_time() as pit:
            recheck = await self.candidates(plan, pit)
            return await pit.search(body), recheck

    def _check_response(self, response: dict[str, Any]) -> dict[str, Any]:
        if "error" in response:
            status = response.get("status", 500)
            if status == 404:
                raise self.index.mark_gone()
            raise translate_response(status, response, None, self._action, writes=False)
        return require_all_shards(response, self._action)

    async def _search(self, body: dict[str, Any]) -> dict[str, Any]:
        status, response = await self._pool.call(
            "POST", f"{self.index.url}/_search", body, action=self._action, expected=FOUND
        )
        if status == 404:
            raise self.index.mark_gone()
        return require_all_shards(response, self._action)


def index_of(after: After) -> CollectionIndex:
    """Return the index of the point in time that a stream's token names."""
    index: CollectionIndex = after.token[2]
    return index


def _position(request: PageRequest) -> tuple[Any, ...] | None:
    return None if request.after is None else request.after.position


def _states(response: Mapping[str, Any]) -> set[tuple[str, int, int]]:
    """Return the id and version of each hit."""
    return {(hit["_id"], hit["_seq_no"], hit["_primary_term"]) for hit in response["hits"]["hits"]}
