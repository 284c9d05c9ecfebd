"""Changes of a log: its entries in their order, each id with the record as it is now.

A place is the number and the token of the last entry that was read whole, and how many effects of the
next one were read. The token tells a log that was restored, and has other entries under the numbers.
"""

from __future__ import annotations

import bisect
from typing import NamedTuple

from isthmus._core.changes import (
    ChangePage,
    Position,
    StoredChange,
    missing_changes,
    not_a_position,
    other_source,
    parse_number,
    pruning_error,
)
from isthmus._value import replace
from isthmus.backends.s3.envelope import order_of, record_of
from isthmus.backends.s3.log.entry import Entry, KeptChanges, entry_key, read_entry
from isthmus.backends.s3.log.reader import LogReader
from isthmus.backends.s3.log.state import LogState

_WIDEST = 32
_LARGE = 2**20
"""Bytes of entries that are read at once, about; the first of them may be larger."""


class _Place(NamedTuple):
    seq: int
    token: str
    effects: int = 0
    """How many effects of the entry after it were read."""

    def __str__(self) -> str:
        return f"{self.seq}:{self.token}:{self.effects}"

    @classmethod
    def of(cls, position: Position) -> _Place:
        try:
            seq, token, effects = position.place.split(":")
        except ValueError:
            raise not_a_position() from None
        return cls(parse_number(seq), token, parse_number(effects))


async def current_position(log: LogReader, collection: str) -> Position:
    """Return the position after the last entry."""

    async def work(state: LogState) -> Position:
        making = _require_changes(state, collection).making
        return Position(making, str(_Place(state.seq, state.last_token)))

    return await log.run(work)


async def read_changes(log: LogReader, collection: str, position: Position, limit: int) -> ChangePage:
    """Return changes after a position; of several of an id in the page, the last one.

    Costs a GET for the end of the log, and if there is more one for each entry and one for the
    entry of the position, up to 32 at once.
    """

    async def work(state: LogState) -> ChangePage:
        start = _check(state, collection, position)
        end = state.seq
        found: dict[str, _Place] = {}
        if start.seq < end:
            start = await _read_entries(log, collection, start, end, limit, found)
        # A record that is gone was deleted before this state's end, and any later write is after it.
        last = state.seq
        rows = await log.rows(state, found)
        changes = []
        for id, at in found.items():
            row = rows.get(id)
            record, order = (None, last) if row is None else (record_of(row), _order(row.version, at))
            changes.append(StoredChange(id, record, order, str(at)))
        return ChangePage(changes, replace(position, place=str(start)), caught_up=start.seq >= end)

    return await log.run(work)


async def read_records(
    log: LogReader, collection: str, position: Position, limit: int
) -> tuple[list[StoredChange], bool]:
    """Return records after an id, and whether there are more."""

    async def work(state: LogState) -> tuple[list[StoredChange], bool]:
        _check(state, collection, position)
        ids = state.ids()
        begin = bisect.bisect_right(ids, position.after or "")
        chunk, more = ids[begin : begin + limit], len(ids) > begin + limit
        rows = await log.rows(state, chunk)
        return [
            StoredChange(id, record_of(rows[id]), order_of(rows[id].version)) for id in chunk if id in rows
        ], more

    return await log.run(work)


def _order(version: str, start: _Place) -> int:
    # A writer of an older version may have been under way when changes were declared.
    return order_of(version) or start.seq


def _require_changes(state: LogState, collection: str) -> KeptChanges:
    if state.changes is None:
        raise missing_changes(collection)
    return state.changes


def _check(state: LogState, collection: str, position: Position) -> _Place:
    """Return the place of a position, unless it is one of another log."""
    start = _Place.of(position)
    changes = _require_changes(state, collection)
    replaced = start.seq == state.seq and start.token != state.last_token
    if position.source != changes.making or start.seq > state.seq or replaced:
        raise other_source(collection)
    return start


async def _read_entries(
    log: LogReader, collection: str, start: _Place, end: int, limit: int, found: dict[str, _Place]
) -> _Place:
    """Collect the ids in entries after a place, up to a limit; return where the page ends."""
    first = await _entry(log, collection, start.seq) if start.seq else None
    if first is not None and first.token != start.token:
        raise other_source(collection)
    width = 1
    while start.seq < end and len(found) < limit:
        entries = await _entries(log, collection, start.seq + 1, min(end, start.seq + width))
        for entry in entries:
            start = _collect(entry, start, limit, found)
            if start.seq < entry.seq:
                log.last_read = entry  # the next page goes on inside it
                break
        size = sum(len(row.data) for entry in entries for _, row in entry.effects if row is not None)
        width = min(2 * width, _WIDEST) if size < _LARGE else 1
    return start


def _collect(entry: Entry, start: _Place, limit: int, found: dict[str, _Place]) -> _Place:
    """Add the ids of an entry, as many as the limit lets, and return the place after the last one."""
    last = {id: index for index, (id, _) in enumerate(entry.effects)}
    whole = _Place(entry.seq, entry.token)
    for index in range(start.effects, len(entry.effects)):
        if len(found) >= limit:
            return start._replace(effects=index)
        id = entry.effects[index][0]
        if last[id] == index:
            found.pop(id, None)  # of several changes, the last one
            following = index + 1
            found[id] = whole if following == len(entry.effects) else start._replace(effects=following)
    return whole


async def _entry(log: LogReader, collection: str, seq: int) -> Entry:
    [entry] = await _entries(log, collection, seq, seq)
    return entry


async def _entries(log: LogReader, collection: str, first: int, last: int) -> list[Entry]:
    """Return entries; raises `ChangesExpiredError` if one was removed."""
    if log.last_read is not None and log.last_read.seq == first:
        return [log.last_read]
    blobs = await log.get_entries(range(first, last + 1))
    if len(blobs) < last + 1 - first:
        raise pruning_error(collection)
    return [read_entry(blob.body, entry_key(log.prefix, seq)) for seq, blob in blobs]
