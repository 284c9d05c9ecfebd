"""The planner: pushes down what the store evaluates exactly, and evaluates the rest client-side."""

from __future__ import annotations

import heapq
import operator
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus._core.evaluation import add_records, select_matching, sort_in_turns, sort_matching
from isthmus._core.executor import (
    After,
    AggregateResult,
    CountResult,
    Executor,
    ItemResult,
    Page,
    PageRequest,
    Support,
)
from isthmus._core.op import (
    Aggregate,
    Count,
    Fetch,
    Modify,
    ModifyWhere,
    NativeModify,
    NativeModifyWhere,
    Op,
    ReadChanges,
    Release,
    Remove,
)
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus._core.supports import SortsIds
from isthmus._core.uncancelled import Ends
from isthmus._query.aggregate import Groups
from isthmus._query.ast import FALSE, KNN, TRUE, Predicate, leaves
from isthmus._query.codec import text
from isthmus._query.order import BY_ID, cursor_position, sort_key
from isthmus._query.shape import shape_of
from isthmus._query.split import Pushdown, Split, drop_ranked, split
from isthmus._record import Record
from isthmus._search_hit import Hit
from isthmus._value import replace
from isthmus.errors import UnsupportedError
from isthmus.layers._change_filter import read_changes
from isthmus.layers._delete import delete_matching
from isthmus.layers._distinct import distinct_as_groups, merge_distinct
from isthmus.layers._modify import CompareAndSet, modify_items, native_modification
from isthmus.layers._pages import (
    add_to_size,
    drop_before_start,
    lies_between,
    make_page,
    native_fetch,
    next_start,
    project_page,
)
from isthmus.layers._policy import Policy
from isthmus.layers._wide import fold_wide, refuse_wide

R = TypeVar("R")
SCAN_SIZE, _LARGEST_SCAN = 1_000, 5_000
ALLOW = Policy()


class Plan(Layer):
    """Splits predicates by what the store supports, refills pages, and sorts under a cap.

    Never returns a wrong record or a wrong count: leaves that are not exact at the store are
    evaluated client-side, and recheck candidates are merged into the results in order.
    """

    order = LayerOrder.PLAN
    in_transaction = True
    ops = (Fetch, Count, Aggregate, Remove, Modify, ModifyWhere, ReadChanges)

    def __init__(
        self,
        executor: Executor,
        *,
        policy: Policy = ALLOW,
        sort_cap: int = 1_000_000,
        clock: Clock = SYSTEM_CLOCK,
        ends: Ends | None = None,
    ) -> None:
        self._ends = Ends() if ends is None else ends
        self._support: Callable[[str], Support] = executor.support
        self._executor = executor
        self._policy, self._sort_cap, self._clock = policy, sort_cap, clock

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        """Run the operation by native ones."""
        op = await fold_wide(op)
        result: Any
        match op:
            case Fetch():
                result = await self._fetch(op, call_next)
            case Count():
                result = await self._count(op, call_next)
            case Aggregate():
                result = await self._aggregate(op, call_next)
            case Remove():
                result = await self._remove(op, call_next)
            case Modify():
                result = await self._modify(op, call_next)
            case ModifyWhere():
                result = await self._modify_where(op, call_next)
            case ReadChanges():
                result = await read_changes(op, self._policy, call_next)
            case _:
                result = await call_next(op)
        return result  # type: ignore[no-any-return]

    def parts(self, collection: str, where: Predicate) -> Split:
        """Return the pushed and the residual part of a predicate.

        Raises `UnsupportedError` and `QueryError` by the policy.
        """
        pushdown = self._support(collection).pushdown
        shaped = shape_of(where)
        # What `split` would return; no pattern that the policy may refuse has a shape.
        if (
            shaped is not None
            and shaped.shape.is_normal
            and all(pushdown(leaf) is Pushdown.EXACT for leaf in shaped.leaves)
        ):
            return Split(where, TRUE)
        self._policy.check_patterns(where)
        parts = split(where, pushdown)
        if parts.residual != TRUE and self._policy.residual == "refuse":
            raise UnsupportedError(
                f"the policy refuses to evaluate client-side: {text(parts.residual)}", capability="exact"
            )
        if parts.residual != TRUE and any(isinstance(leaf, KNN) for leaf in leaves(where)):
            # Of the k nearest that the store returns, some would be dropped and none would replace them.
            raise UnsupportedError(
                f"with nearest(), the store must evaluate all conditions; it cannot: {text(parts.residual)}",
                capability="exact",
            )
        return parts

    async def _fetch(self, op: Fetch, call_next: Next) -> Page:
        request = op.request
        parts = self.parts(op.collection, request.where)
        if parts.pushed == FALSE:
            return Page([], None)
        native = native_fetch(op, parts)
        if request.order is None:
            page = await self._fetch_unordered(request, parts, native, call_next)
        elif self._support(op.collection).orders(request.order):
            if request.consistent:
                page = await self._fetch_consistent(request, parts, native, call_next)
            elif parts.residual == TRUE:
                page = await self._fetch_exact(request, native, call_next)
            else:
                page = await self._fetch_refilling(request, parts, native, call_next)
        else:
            page = await self._fetch_sorting(request, parts, native, call_next)
        return page if request.select is None else await project_page(page, request)

    async def _fetch_unordered(
        self, request: PageRequest, parts: Split, native: Fetch, call_next: Next
    ) -> Page:
        page: Page = await call_next(native)
        if parts.residual == TRUE and not page.recheck:
            return page
        return Page(
            await _evaluate_candidates(page.recheck, request.where)
            + await select_matching(page.records, parts.residual),
            page.after,
        )

    async def _fetch_exact(self, request: PageRequest, native: Fetch, call_next: Next) -> Page:
        page: Page = await call_next(native)
        order = request.order or BY_ID
        if not page.recheck:
            if page.after is None:
                return page
            return make_page(page.records, order, more=True, hits=page.hits, token=page.after.token)
        recheck = drop_before_start(await _evaluate_candidates(page.recheck, request.where), request, order)
        skip = request.offset
        if skip and recheck:
            # At most len(recheck) of the skipped records are candidates, so the first
            # skip - len(recheck) of the main response are skipped in any case.
            first = max(0, skip - len(recheck))
            wanted = replace(native.request, offset=first, size=add_to_size(request.size, len(recheck)))
            page = await call_next(replace(native, request=wanted))
            skip -= first
        else:
            skip = 0
        merged = await sort_matching([*page.records, *recheck], order)
        end = add_to_size(request.size, skip)
        more = page.after is not None or (end is not None and len(merged) > end)
        return make_page(merged[skip:end], order, more=more, hits=page.hits)

    async def _fetch_consistent(
        self, request: PageRequest, parts: Split, native: Fetch, call_next: Next
    ) -> Page:
        """Return the next records of an ordered snapshot; perhaps fewer than asked for.

        Each page keeps the store's token. Candidates come with every page; those that lie between
        the page's start and its last native record are merged into it.
        """
        order = request.order or BY_ID
        key = sort_key(order)
        kept: list[Record] = []
        after = request.after
        while True:
            start = None if after is None or after.position is None else key(tuple(after.position))
            page = await call_next(replace(native, request=replace(native.request, after=after)))
            after, last = None, None
            if page.after is not None:
                position = cursor_position(page.records[-1], order)
                after, last = After(position, page.after.token), key(position)
            candidates = [
                record
                for record in await _evaluate_candidates(page.recheck, request.where)
                if lies_between(key(cursor_position(record, order)), start, last)
            ]
            records = await select_matching(page.records, parts.residual)
            kept += await sort_matching([*records, *candidates], order) if candidates else records
            if after is None or len(kept) > request.offset:
                return Page(kept[request.offset :], after)

    async def _fetch_refilling(
        self, request: PageRequest, parts: Split, native: Fetch, call_next: Next
    ) -> Page:
        """Fetch pages without the limit until enough records pass the residual."""
        order = request.order or BY_ID
        end = add_to_size(request.size, request.offset)
        kept: list[Record] = []
        hits: dict[str, Hit] = {}
        recheck: list[Record] | None = None
        size = SCAN_SIZE if end is None else min(max(end, 100), SCAN_SIZE)
        after = request.after
        while True:
            page: Page = await call_next(
                replace(native, request=replace(native.request, after=after, size=size))
            )
            if recheck is None:
                recheck = drop_before_start(
                    await _evaluate_candidates(page.recheck, request.where), request, order
                )
            kept += await select_matching(page.records, parts.residual)
            hits |= page.hits
            if page.after is None or (end is not None and len(kept) > end):
                break
            after = next_start(page, order)
            size = min(size * 2, _LARGEST_SCAN)
        merged = await sort_matching([*kept, *recheck], order) if recheck else kept
        more = end is not None and len(merged) > end
        return make_page(merged[request.offset : end], order, more=more, hits=hits)

    async def _fetch_sorting(
        self, request: PageRequest, parts: Split, native: Fetch, call_next: Next
    ) -> Page:
        """Scan in any order and keep the best, under the cap."""
        if self._policy.residual == "refuse":
            raise UnsupportedError(
                "the policy refuses to sort client-side, and the store cannot sort this", capability="order"
            )
        order = request.order or BY_ID
        end = add_to_size(request.size, request.offset)
        support = self._support(native.collection)
        key = sort_key(order, support.id_key) if isinstance(support, SortsIds) else sort_key(order)
        start = None if request.after is None else key(tuple(request.after.position or ()))
        best: list[tuple[Any, Record]] = []
        async for records in self._scan(native, parts, call_next):
            for record in records:
                rank = key(cursor_position(record, order))
                if start is None or rank > start:
                    best.append((rank, record))
            if end is not None and len(best) > 2 * end + _LARGEST_SCAN:
                best = heapq.nsmallest(end + 1, best, key=lambda pair: pair[0])
            if len(best) > self._sort_cap:
                raise UnsupportedError(
                    f"the store cannot sort this, and over sort_cap={self._sort_cap} records would be sorted"
                    " client-side; add a limit or a narrower filter, or raise sort_cap",
                    capability="order",
                )
        best = await sort_in_turns(best, operator.itemgetter(0))
        chosen = [record for _, record in best[request.offset : end]]
        return make_page(chosen, order, more=end is not None and len(best) > end)

    async def _scan(self, native: Fetch, parts: Split, call_next: Next) -> AsyncIterator[list[Record]]:
        """Yield all matching records page by page, in any order."""
        after = None
        plain = replace(native.request, order=None, offset=0, size=_LARGEST_SCAN, select=None, texts=False)
        while True:
            page: Page = await call_next(replace(native, request=replace(plain, after=after)))
            after = page.after
            try:
                if page.recheck:
                    yield await _evaluate_candidates(page.recheck, parts.pushed & parts.residual)
                yield await select_matching(page.records, parts.residual)
            except BaseException:
                if after is not None and after.token is not None:
                    releasing = _release(native.collection, after, call_next)
                    await self._ends.run(releasing, "isthmus-stream-end")
                raise
            if after is None:
                return

    async def _count(self, op: Count, call_next: Next) -> CountResult:
        parts = self.parts(op.collection, op.where)
        if parts.pushed == FALSE:
            return CountResult(0)
        if parts.residual == TRUE:
            native = op if parts.pushed is op.where else replace(op, where=parts.pushed)
            result: CountResult = await call_next(native)
            return CountResult(result.count + len(await _evaluate_candidates(result.recheck, op.where)))
        count = 0
        async for records in self._scan(_scan_of(op.collection, parts), parts, call_next):
            count += len(records)
        return CountResult(count)

    async def _aggregate(self, op: Aggregate, call_next: Next) -> AggregateResult:
        request = op.request
        parts = self.parts(op.collection, request.where)
        if parts.pushed == FALSE:
            return AggregateResult(Groups(request.measures))
        if parts.residual == TRUE and self._support(op.collection).aggregates(request.measures, request.by):
            answer: AggregateResult = await call_next(
                replace(op, request=replace(request, where=parts.pushed))
            )
            found = await _evaluate_candidates(answer.recheck, request.where)
            await add_records(answer.groups, found, request.by)
            return AggregateResult(answer.groups)
        counted = distinct_as_groups(request) if parts.residual == TRUE else None
        if counted and self._support(op.collection).aggregates(counted.measures, counted.by):
            answer = await self._aggregate(replace(op, request=counted), call_next)
            return AggregateResult(merge_distinct(answer.groups, counted.by, request))
        if self._policy.residual == "refuse":
            raise UnsupportedError("the policy refuses to aggregate client-side", capability="aggregate")
        groups = Groups(request.measures)
        async for records in self._scan(_scan_of(op.collection, parts), parts, call_next):
            await add_records(groups, records, request.by)
            if groups.size() > self._sort_cap:
                raise UnsupportedError(
                    f"over sort_cap={self._sort_cap} values would be held client-side for count_distinct and"
                    " percentile; use a narrower filter, or raise sort_cap",
                    capability="aggregate",
                )
        return AggregateResult(groups)

    async def _remove(self, op: Remove, call_next: Next) -> int:
        parts = self.parts(op.collection, op.where)
        if parts.pushed == FALSE:
            return 0
        can = self._executor.capabilities
        if parts.residual == TRUE and (parts.pushed == TRUE or can.delete_where):
            return await call_next(replace(op, where=parts.pushed))
        removed = 0
        async for records in self._scan(_scan_of(op.collection, parts), parts, call_next):
            removed += await delete_matching(op, records, call_next, versions=can.compare_and_set)
        return removed

    async def _modify(self, op: Modify, call_next: Next) -> list[ItemResult]:
        for item in op.modifications:
            self._policy.check_patterns(item.where)
            await refuse_wide(item.where)
        if self._executor.capabilities.modify and len(op.modifications) == 1:
            [item] = op.modifications
            native = native_modification(item, self._support(op.collection).pushdown)
            result = None if native is None else await call_next(NativeModify(op.collection, native))
            if result is not None:
                return [result]
        return await modify_items(op, self._executor, call_next, self._clock)

    async def _modify_where(self, op: ModifyWhere, call_next: Next) -> int:
        parts = self.parts(op.collection, op.where)
        if parts.pushed == FALSE:
            return 0
        can = self._executor.capabilities
        if can.modify and parts.residual == TRUE:
            count = await call_next(NativeModifyWhere(op.collection, parts.pushed, op.changes))
            if count is not None:
                return count
        ids: dict[str, None] = {}
        async for records in self._scan(_scan_of(op.collection, parts), parts, call_next):
            ids.update((record.id or "", None) for record in records)
        atomic = can.transactions and can.atomic_batch
        swap = CompareAndSet(call_next, self._clock, can)
        return await swap.modify_matching(op, list(ids), atomic=atomic)


async def _release(collection: str, after: After, call_next: Next) -> None:
    await call_next(Release(collection, after))


def _scan_of(collection: str, parts: Split) -> Fetch:
    return Fetch(collection, PageRequest(parts.pushed, None, _LARGEST_SCAN))


async def _evaluate_candidates(recheck: Sequence[Record], where: Predicate) -> list[Record]:
    return await select_matching(recheck, drop_ranked(where)) if recheck else []
