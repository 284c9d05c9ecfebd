"""Evaluates predicates over many records without holding up the event loop.

Cheap records are evaluated on the loop, which gets its turn every few milliseconds; from the first one
that may take longer, the rest goes to a thread. The thread ends soon after its caller is cancelled.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from isthmus._query.ast import TRUE, Predicate
from isthmus._query.evaluate import effort, matches
from isthmus._query.find import check, stoppable
from isthmus._record import Record

_TURN = 0.005
"""Seconds after which other tasks get their turn."""
_LONG = 20_000
"""The effort times the characters of a record, some 2 ms at worst, from which a thread takes over."""
_PREPARATION = 10
"""What it costs to make a pattern ready, in characters."""
_WORKERS = 8
"""Threads that evaluate: how many callers take turns. Further ones wait until one has ended."""

_pool: ThreadPoolExecutor | None = None


def _executor() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="isthmus-evaluation")
    return _pool


def _forget() -> None:
    global _pool
    _pool = None


# The child of a fork has the pool but none of its threads.
os.register_at_fork(after_in_child=_forget)


async def select_matching(records: Sequence[Record], predicate: Predicate) -> list[Record]:
    """Return the records for which the predicate is true, in their order."""
    if predicate == TRUE or not records:
        return list(records)
    cost = effort(predicate)
    kept: list[Record] = []
    turn = time.perf_counter() + _TURN
    for index, record in enumerate(records):
        if cost * (_text_length(record) + _PREPARATION) > _LONG:
            return kept + await _select_in_thread(records[index:], predicate)
        if matches(predicate, record):
            kept.append(record)
        if time.perf_counter() > turn:
            await asyncio.sleep(0)
            turn = time.perf_counter() + _TURN
    return kept


def _text_length(record: Record) -> int:
    """Return about how many characters of JSON the record has."""
    raw, metadata = record._raw, record._raw_metadata
    if isinstance(raw, bytes | str):
        return len(raw) + len(metadata or "")
    return len(repr(record.data)) + len(repr(record.metadata))


async def _select_in_thread(records: Sequence[Record], predicate: Predicate) -> list[Record]:
    ended = threading.Event()
    main = threading.main_thread()

    def proceed() -> bool:
        return not ended.is_set() and main.is_alive()

    def select() -> list[Record]:
        kept = []
        with stoppable(proceed):
            for record in records:
                check()
                if matches(predicate, record):
                    kept.append(record)
        return kept

    try:
        return await asyncio.get_running_loop().run_in_executor(_executor(), select)
    finally:
        ended.set()
