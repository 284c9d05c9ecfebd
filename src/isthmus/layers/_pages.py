"""Pages as the planner makes them: where one starts, which records it keeps, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from isthmus._core.executor import MORE, After, Page, PageRequest
from isthmus._core.offload import Turns
from isthmus._core.op import Fetch
from isthmus._query.ast import TRUE, SortKey
from isthmus._query.evaluate import select, top_level_fields
from isthmus._query.order import cursor_position, sort_key
from isthmus._query.split import Split
from isthmus._record import Record, SelectedRecord, project
from isthmus._search_hit import Hit
from isthmus._value import replace


def drop_before_start(
    records: list[Record], request: PageRequest, order: tuple[SortKey, ...]
) -> list[Record]:
    """Return the records that come after the request's position."""
    start = start_rank(request, order)
    if start is None:
        return records
    key = sort_key(order)
    return [record for record in records if key(cursor_position(record, order)) > start]


def start_rank(request: PageRequest, order: tuple[SortKey, ...]) -> Any:
    """Return the rank after which the page begins; None at the beginning."""
    if request.after is None or request.after.position is None:
        return None
    return sort_key(order)(tuple(request.after.position))


def lies_between(rank: Any, start: Any, last: Any) -> bool:
    return (start is None or rank > start) and (last is None or rank <= last)


def add_to_size(size: int | None, number: int) -> int | None:
    return None if size is None else size + number


def make_page(
    records: list[Record],
    order: tuple[SortKey, ...],
    *,
    more: bool,
    hits: Mapping[str, Hit] = MappingProxyType({}),
    token: Any = None,
) -> Page:
    if not more or not records:
        return Page(records, None, hits=hits)
    return Page(records, After(cursor_position(records[-1], order), token), hits=hits)


def next_start(page: Page, order: tuple[SortKey, ...]) -> After | None:
    return After(cursor_position(page.records[-1], order)) if page.after == MORE else page.after


async def project_page(page: Page, request: PageRequest) -> Page:
    paths = request.select or ()
    fields = top_level_fields(paths)
    cut: list[Record] = []
    turns = Turns()
    for record in page.records:
        if isinstance(record, SelectedRecord) and record.fields == fields:
            cut.append(record)
            continue
        cut.append(project(record, select(record.data, paths)))
        if turns.are_due:
            await turns.give()
    return Page(cut, page.after, hits=page.hits)


def native_fetch(op: Fetch, parts: Split) -> Fetch:
    """Return the search that the store runs; most often it is the same."""
    request = _native_request(op.request, parts)
    return op if request is op.request else replace(op, request=request)


def _native_request(request: PageRequest, parts: Split) -> PageRequest:
    exact = parts.residual is TRUE or parts.residual == TRUE
    if exact and parts.pushed is request.where and request.select is None and not request.consistent:
        return request
    # Candidates of a snapshot are merged page by page, so its offset is counted client-side.
    offset = request.offset if exact and not request.consistent else 0
    paths = request.select
    if paths is not None:
        # Cursors and merging need the sort keys; the residual may need anything.
        paths = (*paths, *(key.path for key in request.order or ())) if exact else None
    streamed = request.streamed and exact  # otherwise pages end between those of the store
    return replace(
        request,
        where=parts.pushed,
        offset=offset,
        select=paths,
        streamed=streamed,
        texts=request.texts and exact,
    )
