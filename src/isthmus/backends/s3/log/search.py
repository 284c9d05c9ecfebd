"""Searches in a log's view: by columns while every row is held, else by rows, some at a time."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from isthmus._query.ast import TRUE, Predicate
from isthmus.backends.s3.envelope import RecordRow
from isthmus.backends.s3.id_filter import IdRange, id_range
from isthmus.backends.s3.log.filter import build_columns, paths_of, select_positions
from isthmus.backends.s3.log.reader import LogReader
from isthmus.backends.s3.log.state import LogState
from isthmus.errors import UnexpectedError

_CHUNK = 1000


async def matching_rows(
    log: LogReader, state: LogState, where: Predicate, after: str | None, most: int
) -> list[RecordRow]:
    """Return up to so many rows that match, in the order of ids, those beyond `after`.

    Raises `MovedError` if an object is gone that must be read again.
    """
    span = id_range(where)
    if span.only is not None:
        ids = sorted(id for id in span.only if id in state.locations and (after is None or id > after))
        return (await _filter_rows(log, state, where, ids))[:most]
    found: list[RecordRow] = []
    size = _CHUNK
    while len(found) < most:
        ids = state.ids()  # anew each time: it may have changed meanwhile
        begin, end = _bounds(ids, span, after)
        # Rows that must be read again are few at a time, for they take memory beside the bound.
        count = max(size, min(most - len(found), _CHUNK * 8)) if state.complete else _CHUNK
        chunk = ids[begin : min(end, begin + count)]
        if not chunk:
            break
        if where == TRUE:
            chunk = chunk[: most - len(found)]
        found += await _rows(log, state, where, chunk, begin)
        after = chunk[-1]
        size *= 4
    return found[:most]


def _bounds(ids: Sequence[str], span: IdRange, after: str | None) -> tuple[int, int]:
    begin = bisect.bisect_left(ids, span.low) if span.low else 0
    if after is not None:
        begin = max(begin, bisect.bisect_right(ids, after))
    return begin, len(ids) if span.high is None else bisect.bisect_right(ids, span.high)


async def _rows(
    log: LogReader, state: LogState, where: Predicate, chunk: Sequence[str], begin: int
) -> list[RecordRow]:
    """Return the matching rows of ids that stand at a place in the order."""
    try:
        columns = None if where == TRUE else state.columns(paths_of(where))
        if columns is None:
            return await _filter_rows(log, state, where, chunk)
        end = begin + len(chunk)
        part = {path: column[begin:end] for path, column in columns.items()}
        chosen = select_positions(where, chunk, part, range(len(chunk)))
    except ValueError as error:
        raise UnexpectedError(f"{log.prefix}: a record of the log is damaged ({error})") from None
    return [state.row(chunk[at]) for at in chosen]


async def _filter_rows(
    log: LogReader, state: LogState, where: Predicate, ids: Sequence[str]
) -> list[RecordRow]:
    """Return the matching rows of ids, judged one by one."""
    held = await log.rows(state, ids)
    rows = [held[id] for id in ids if id in held]
    if where == TRUE or not rows:
        return rows
    columns = build_columns(rows, paths_of(where))
    return [rows[at] for at in select_positions(where, [row.id for row in rows], columns, range(len(rows)))]
