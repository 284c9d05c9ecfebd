"""Reads: by id in real time, ordered pages, streams from one snapshot, counts.

A search has a main answer, which the server judges, and an aside: records that are odd at a path
of the query, which the core judges. Both must come from one state of the index, or a record that
turned odd in between would be in neither. So the aside is asked for before and after the main
answer, in one request; only if it changed, or is large, a point in time holds the state still.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from isthmus._core.executor import MORE, After, CountResult, NativePlan, Page, PageRequest
from isthmus._path import Path, Root
from isthmus._query.ast import KNN, RANKED, Predicate, SortKey, leaves
from isthmus._record import Record
from isthmus._value import replace
from isthmus._values import INT_MAX
from isthmus.backends.elasticsearch.client import ClientPool, json_text
from isthmus.backends.elasticsearch.compile import (
    NONE,
    Bound,
    Compiler,
    Query,
    TooDeep,
    both,
    either,
    judged_paths,
    object_at,
    odd_at,
    without,
)
from isthmus.backends.elasticsearch.documents import get_many
from isthmus.backends.elasticsearch.errors import failed_answer
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.layout import WINDOW, field_name, is_plain
from isthmus.backends.elasticsearch.order import Sorting
from isthmus.backends.elasticsearch.ranked import Highlights, Words
from isthmus.backends.elasticsearch.snapshot import (
    LARGEST_PAGE,
    Slices,
    Snapshot,
    checked_shards,
    shard_order,
)
from isthmus.backends.elasticsearch.stored import record_of, records_of
from isthmus.backends.elasticsearch.vectors import Vectors, nearest
from isthmus.errors import QueryError, UnsupportedError

_MOST_ASIDE = 1_000
_ASIDE_PAGE = 5_000
_FOUND = frozenset({200, 404})
# What a stream's position begins with; a sorted page's is made of pairs and ends with the id.


@dataclass(frozen=True, slots=True)
class Plan:
    """A search in its native parts."""

    main: Query
    recheck: Query
    """For the records to be judged here; `NONE` if no path of the query can be odd."""
    sorting: Sorting
    near: KNN | None = None
    """To be found among the main records, by `ask`."""
    vectors: Vectors = field(default_factory=dict)
    odd: frozenset[str] = frozenset()
    """What marks a record of the aside: the names in its `odd`, or those in its `obj`."""
    obj: frozenset[str] = frozenset()

    @property
    def mixes(self) -> bool:
        """Whether the aside may be found by the same search, in whatever places, as the main records."""
        no_part = self.main is NONE or self.recheck is NONE
        return not no_part and self.near is None and not self.sorting.scored

    def ask(self) -> dict[str, Any]:
        """Return the part of a search that says which records are wanted."""
        if self.near is None:
            return {"query": self.main}
        return {"knn": nearest(self.near, self.vectors, self.main)}

    def apart(self, source: Mapping[str, Any]) -> bool:
        """Return whether a record that was found belongs to the aside."""
        odd, obj = source.get("odd", ()), source.get("obj", ())
        return not (self.odd.isdisjoint(odd) and self.obj.isdisjoint(obj))

    def check(self, recheck: Sequence[Record]) -> Sequence[Record]:
        """Return the aside; raises `UnsupportedError` where the nearest may be among it."""
        if recheck and self.near is not None:
            raise UnsupportedError(
                f"{len(recheck)} records must be judged here because their values disagree with the index's"
                " types, which nearest() cannot wait for: the k nearest may be among them",
                capability="exact",
            )
        return recheck


class Reader:
    """Reads of one index."""

    def __init__(self, pool: ClientPool, index: Index, *, keep_alive: str, slices: int = 1) -> None:
        self._pool = pool
        self._index = index
        self._slices = slices
        self._window = WINDOW
        self._keep_alive = keep_alive
        self._doing = f"search in {index.name}"

    async def plan(
        self,
        where: Predicate,
        order: Sequence[SortKey] = (),
        extra: Sequence[Path] = (),
        *,
        ranked: bool = False,
    ) -> Plan:
        """Return the native parts; reads the mapping again for paths that are not known here.

        `extra` are further paths of whose values the answer is made, such as those of measures.
        With `ranked` the scores of words matter in any order.
        """
        valued = Sorting(order, Compiler({}, ())).paths() + list(extra)
        paths = list(dict.fromkeys([*judged_paths(where), *valued]))
        await self._index.know(self._pool, [field_name(path) for path in paths if is_plain(path)])
        near = next((leaf for leaf in leaves(where) if isinstance(leaf, KNN)), None)
        scored = near is None and (ranked or any(key.path.root is Root.SCORE for key in order))
        compiler = Compiler(self._index.types, self._index.fulltext, scored=scored)
        sorting = Sorting(order, compiler)
        try:
            core = compiler.tree(where, Bound.CORE)
        except TooDeep:
            if any(isinstance(leaf, RANKED) for leaf in leaves(where)):
                raise QueryError("a ranked query is nested too deeply for elasticsearch") from None
            # The server narrows it down as far as it goes, and all of that is judged by the core.
            return Plan(NONE, compiler.tree(where, Bound.UPPER), sorting)
        if not paths:
            return Plan(core, NONE, sorting, near, self._index.vectors)
        odd, obj = odd_at(paths), object_at(valued)
        apart = either([odd, obj] if valued else [odd])
        main = without(core, apart, scored=scored)
        recheck = both([apart, compiler.tree(where, Bound.UPPER)])
        return Plan(main, recheck, sorting, near, self._index.vectors, _marks(odd), _marks(obj))

    async def page(self, request: PageRequest) -> Page:
        """Return one ordered page."""
        plan = await self.plan(request.where, request.order or (), ranked=request.ranked)
        if request.after is not None and plan.sorting.scored:
            raise QueryError("an order by _score has no cursors: use limit and offset")
        if request.size == 0:
            return Page([], None)
        if request.consistent:
            return await self._steady_page(plan, request)
        if request.ranked:
            return await self._ranked_page(plan, request)
        # Most searches without a limit find little: one request tells.
        reach = request.size_up_to(LARGEST_PAGE - 1) + 1
        short = request.size is not None and request.size < LARGEST_PAGE
        one_way = not request.offset or request.after is None
        if one_way and request.offset + reach <= self._window:
            if not short and request.after is None and not request.offset and plan.mixes:
                page = await self._whole_page(plan, reach - 1)
            else:
                page = await self._short_page(plan, replace(request, size=reach - 1))
            if short or page.after is None:
                return page
        async with self.snapshot() as pit:
            recheck = [record async for record in self._aside(plan, pit)]
            hits = await self._long(plan, request, pit)
        return self._paged(hits, request.size, recheck)

    async def _ranked_page(self, plan: Plan, request: PageRequest) -> Page:
        """Return one ordered page with scores and passages, all of it in one answer."""
        size = request.size_up_to(self._window - 1 - request.offset)
        if request.after is not None or size < 0:
            raise QueryError(f"hits() reaches {self._window} hits and has no cursors: use limit and offset")
        passages = Highlights(request.highlight, self._words())
        body = _main_body(plan, size + 1) | passages.clause() | {"track_scores": True}
        if request.offset:
            body["from"] = request.offset
        answer, recheck = await self._together(plan, body)
        found = answer["hits"]["hits"]
        if len(found) > size and size != request.size:
            raise QueryError(f"hits() reaches {self._window} hits at most: give a limit")
        page = self._paged(found, size, recheck)
        return replace(page, hits=passages.hits(found, page.records))

    def _words(self) -> Words:
        return Compiler(self._index.types, self._index.fulltext)

    async def _steady_page(self, plan: Plan, request: PageRequest) -> Page:
        """Return one ordered page of a snapshot that the token names; its position is in there too."""
        size = request.size_up_to(LARGEST_PAGE)
        pit, place = await self._resumed(request.after)
        keep = False
        try:
            body = _main_body(plan, size)
            if place is not None:
                body["search_after"] = place
            elif plan.recheck is not NONE:
                odd = await pit.search({"query": plan.recheck, "size": 0, "track_total_hits": 1})
                if odd["hits"]["total"]["value"]:
                    raise UnsupportedError(
                        "some records must be judged here, which a consistent stream with an order"
                        " cannot do on elasticsearch; drop the sort or consistent=True",
                        capability="consistent_stream",
                    )
            hits = (await pit.search(body))["hits"]["hits"]
            keep = len(hits) == size
        finally:
            if not keep:
                await asyncio.shield(pit.close())
        return Page(self.records(hits), After(token=(pit.id, hits[-1]["sort"])) if keep else None)

    async def _resumed(self, after: After | None) -> tuple[Snapshot, Any]:
        """Return the snapshot that a token names and the place in it, or a new one."""
        if after is None:
            return await self._open(), None
        pit_id, place = after.token
        return Snapshot(self._pool, pit_id, self._keep_alive, self._doing), place

    async def _short_page(self, plan: Plan, request: PageRequest) -> Page:
        body = _main_body(plan, request.size_up_to(LARGEST_PAGE) + 1)
        if request.offset:
            body["from"] = request.offset
        if (position := _position(request)) is not None:
            body["search_after"] = plan.sorting.after(position)
        answer, recheck = await self._together(plan, body)
        return self._paged(answer["hits"]["hits"], request.size, recheck)

    async def _whole_page(self, plan: Plan, size: int) -> Page:
        """Return everything: what is in one answer together is of one state of the index."""
        found = await self._search(_main_body(plan, size + 1) | {"query": either([plan.main, plan.recheck])})
        hits = found["hits"]["hits"]
        if len(hits) > size:
            return Page([], MORE)
        main: list[dict[str, Any]] = []
        recheck: list[dict[str, Any]] = []
        for hit in hits:
            (recheck if plan.apart(hit["_source"]) else main).append(hit)
        return Page(self.records(main), None, records_of(recheck))

    def _paged(self, hits: list[dict[str, Any]], size: int | None, recheck: list[Record]) -> Page:
        more = size is not None and len(hits) > size
        return Page(self.records(hits[:size]), MORE if more else None, recheck)

    def records(self, hits: Iterable[Mapping[str, Any]]) -> list[Record]:
        """Return the records of hits."""
        return records_of(hits)

    async def by_id(self, ids: Sequence[str]) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none; in real time."""
        hits = await get_many(self._pool, self._index, ids)
        return [None if hit is None else record_of(hit) for hit in hits]

    async def _long(self, plan: Plan, request: PageRequest, pit: Snapshot) -> list[dict[str, Any]]:
        """Return the hits of a page that is too long or begins too far for one request."""
        position = _position(request)
        place = None if position is None else [*plan.sorting.after(position), INT_MAX]
        skip, wanted = request.offset, request.size_up_to(sys.maxsize) + 1
        hits: list[dict[str, Any]] = []
        while wanted > 0:
            skipping = skip > 0
            size = min(skip if skipping else wanted, LARGEST_PAGE)
            body = _main_body(plan, size)
            if skipping:
                body["_source"] = False
            if place is not None:
                body["search_after"] = place
            found = (await pit.search(body))["hits"]["hits"]
            if skipping:
                skip -= len(found)
            else:
                hits += found
                wanted -= len(found)
            if len(found) < size:
                break
            place = found[-1]["sort"]
        return hits

    async def stream(self, request: PageRequest) -> Page:
        """Return one page in any order, from a snapshot that the token names."""
        size = request.size_up_to(LARGEST_PAGE)
        recheck: list[Record] = []
        pit, place = await self._resumed(request.after)
        keep = False
        try:
            # After the snapshot was taken, lest a field that came in between be unknown.
            plan = await self.plan(request.where)
            if place is None:
                recheck = [record async for record in self._aside(plan, pit)]
            # The k nearest are those of the whole.
            slices = Slices(place, 1 if plan.near is not None else self._slices)
            hits = await slices.page(pit, plan.ask(), size)
            keep = slices.left
        finally:
            if not keep:
                await asyncio.shield(pit.close())
        return Page(self.records(hits), After(token=(pit.id, slices.places)) if keep else None, recheck)

    async def count(self, where: Predicate) -> CountResult:
        """Return how many match."""
        plan = await self.plan(where)
        answer, recheck = await self._together(plan, {**plan.ask(), "size": 0, "track_total_hits": True})
        return CountResult(answer["hits"]["total"]["value"], recheck)

    async def explain(self, request: PageRequest) -> NativePlan:
        """Return the main query as JSON, and what would be judged here."""
        plan = await self.plan(request.where, request.order or ())
        ordered = request.order is not None
        size = request.size_up_to(LARGEST_PAGE)
        body = _main_body(plan, size) if ordered else shard_order(plan.ask(), size)
        if ordered and (position := _position(request)) is not None:
            body["search_after"] = plan.sorting.after(position)
        details: dict[str, Any] = {"index": self._index.name}
        if plan.recheck is not NONE:
            count = await self._search({"query": plan.recheck, "size": 0, "track_total_hits": True})
            details |= {"aside": plan.recheck, "judged_here": count["hits"]["total"]["value"]}
        text = json_text(body).decode()
        return NativePlan(f"POST {self._index.url}/_search {text}", index=self._index.name, details=details)

    async def _together(self, plan: Plan, body: dict[str, Any]) -> tuple[dict[str, Any], list[Record]]:
        """Return the main answer and the aside of one state of the index."""
        if plan.recheck is NONE:
            return await self._search(body), []
        first: dict[str, Any] = {
            "query": plan.recheck,
            "size": _MOST_ASIDE,
            "seq_no_primary_term": True,
            "track_total_hits": True,
        }
        parts = [first, body, {**first, "_source": False}]
        # The same copies for all three, and one after another: else their states have no order.
        header = json_text({"preference": f"isthmus{random.getrandbits(32)}"})
        lines = b"".join(header + b"\n" + json_text(part) + b"\n" for part in parts)
        target = f"{self._index.url}/_msearch?max_concurrent_searches=1"
        status, answer = await self._pool.call(
            "POST", target, lines, doing=self._doing, lines=True, told=_FOUND
        )
        if status == 404:
            raise self._index.gone()
        before, main, after = (self._checked(part) for part in answer["responses"])
        if before["hits"]["total"]["value"] <= _MOST_ASIDE and _states(before) == _states(after):
            return main, list(plan.check(records_of(before["hits"]["hits"])))
        async with self.snapshot() as pit:
            recheck = [record async for record in self._aside(plan, pit)]
            return await pit.search(body), recheck

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "error" in answer:
            if answer.get("status") == 404:
                raise self._index.gone()
            raise failed_answer(answer.get("status", 500), answer, None, self._doing, writes=False)
        return checked_shards(answer, self._doing)

    async def _search(self, body: dict[str, Any]) -> dict[str, Any]:
        status, answer = await self._pool.call(
            "POST", f"{self._index.url}/_search", body, doing=self._doing, told=_FOUND
        )
        if status == 404:
            raise self._index.gone()
        return checked_shards(answer, self._doing)

    async def _aside(self, plan: Plan, pit: Snapshot) -> AsyncIterator[Record]:
        if plan.recheck is NONE:
            return
        async for hits in pit.pages({"query": plan.recheck}, _ASIDE_PAGE):
            for record in plan.check(records_of(hits)):
                yield record

    async def main(self, plan: Plan, pit: Snapshot) -> AsyncIterator[Record]:
        """Yield the main records of a plan in a snapshot."""
        async for hits in pit.pages(plan.ask(), _ASIDE_PAGE):
            for record in self.records(hits):
                yield record

    async def recheck(self, plan: Plan, pit: Snapshot) -> list[Record]:
        """Return the aside of a plan in a snapshot."""
        return [record async for record in self._aside(plan, pit)]

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Hold the state of the index still."""
        pit = await self._open()
        try:
            yield pit
        finally:
            await asyncio.shield(pit.close())

    async def _open(self) -> Snapshot:
        target = f"{self._index.url}/_pit?keep_alive={self._keep_alive}"
        status, body = await self._pool.call("POST", target, doing=self._doing, told=_FOUND)
        if status == 404:
            raise self._index.gone()
        return Snapshot(self._pool, body["id"], self._keep_alive, self._doing)

    async def release(self, after: After) -> None:
        """Close the point in time of a stream."""
        pit_id, _ = after.token
        await Snapshot(self._pool, pit_id, self._keep_alive, self._doing).close()


def _position(request: PageRequest) -> tuple[Any, ...] | None:
    return None if request.after is None else request.after.position


def _main_body(plan: Plan, size: int) -> dict[str, Any]:
    return {
        **plan.ask(),
        "size": size,
        "sort": plan.sorting.clauses(),
        "seq_no_primary_term": True,
        "track_total_hits": False,
    }


def _marks(query: Query) -> frozenset[str]:
    """Return the terms that a query looks for in one field."""
    [terms] = query["terms"].values()
    return frozenset(terms)


def _states(answer: Mapping[str, Any]) -> set[tuple[str, int, int]]:
    return {(hit["_id"], hit["_seq_no"], hit["_primary_term"]) for hit in answer["hits"]["hits"]}
