"""Evaluates predicates over many records without holding up the event loop.

Cheap records are evaluated on the loop, which gets its turn every few milliseconds; from the first one
that may take longer, the rest goes to a thread.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from isthmus._core.offload import LONG, PART, Turns, in_turns, run_in_thread
from isthmus._query.aggregate import Groups
from isthmus._query.ast import TRUE, Predicate, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.evaluate import matches
from isthmus._query.find import check
from isthmus._query.order import cursor_position, sort_key, sort_records
from isthmus._query.patterns import effort
from isthmus._record import Record

_PREPARATION = 10
"""What it costs to make a pattern ready, in characters."""
_FIRST = operator.itemgetter(0)

T = TypeVar("T")


async def select_matching(records: Sequence[Record], predicate: Predicate) -> list[Record]:
    """Return the records for which the predicate is true, in their order."""
    if predicate == TRUE or not records:
        return list(records)
    cost = effort(predicate)
    kept: list[Record] = []
    turns = Turns()
    for index, record in enumerate(records):
        if cost * (_text_length(record) + _PREPARATION) > LONG:
            return kept + await run_in_thread(functools.partial(_select, records[index:], predicate))
        if matches(predicate, record):
            kept.append(record)
        if turns.are_due:
            await turns.give()
    return kept


async def add_records(groups: Groups, records: Sequence[Record], by: Sequence[GroupKey]) -> None:
    """Count matching records in; long ones in a thread, and the others in turns with other tasks."""
    turns = Turns()
    for index, record in enumerate(records):
        if groups.width * _text_length(record) > LONG:
            await run_in_thread(functools.partial(_add, groups, records[index:], by))
            return
        groups.add_record(record, by)
        if turns.are_due:
            await turns.give()


def _add(groups: Groups, records: Sequence[Record], by: Sequence[GroupKey]) -> None:
    for record in records:
        groups.add_record(record, by)


async def sort_in_turns(items: Sequence[T], key: Callable[[T], Any]) -> list[T]:
    """Return items sorted by a key; many in parts, between which other tasks get their turn."""
    if len(items) <= PART:
        return sorted(items, key=key)
    parts = [sorted([(key(item), item) for item in part], key=_FIRST) async for part in in_turns(items)]
    merged = heapq.merge(*parts, key=_FIRST)
    ordered: list[T] = []
    while part := list(itertools.islice(merged, PART)):
        ordered += [item for _, item in part]
        await asyncio.sleep(0)
    return ordered


async def sort_matching(records: Sequence[Record], order: tuple[SortKey, ...]) -> list[Record]:
    """Return the records sorted, without holding up the event loop."""
    if not order:
        return sort_records(records, order)  # by id: some 20 ms for 100,000
    key = sort_key(order)
    return await sort_in_turns(records, lambda record: key(cursor_position(record, order)))


def _text_length(record: Record) -> int:
    """Return about how many characters of JSON the record has, or some number above `LONG`."""
    raw = record._raw
    if isinstance(raw, bytes | str):
        return len(raw) + len(record._raw_metadata or "")
    total, waiting = 0, [record._queried, record.metadata]
    while waiting and total <= LONG:
        value = waiting.pop()
        if isinstance(value, dict):
            total += sum(map(len, value))
            waiting += value.values()
        elif isinstance(value, list):
            total += len(value)
            waiting += value
        else:
            total += len(value) if isinstance(value, str) else 1
    return total


def _select(records: Sequence[Record], predicate: Predicate) -> list[Record]:
    kept = []
    for record in records:
        check()
        if matches(predicate, record):
            kept.append(record)
    return kept
