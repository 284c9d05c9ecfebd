"""Work on several files at once: Arrow and requests leave the interpreter to others while they run."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from isthmus._query.find import end_turn, find_proceed, stoppable
from isthmus.backends.files.catalog import File

R = TypeVar("R")
_WORKERS = 4
_WORTHWHILE = 4 << 20
"""Bytes of files below which threads cost more than they save."""


def map_files(files: Sequence[File], work: Callable[[int], R]) -> Iterator[R]:
    """Yield the results of work on the index of each file, in order; the first error in order is raised.

    The threads end when nobody waits for the caller's answer, or it goes no further.
    """
    workers = min(_WORKERS, os.cpu_count() or 1, len(files))
    if workers < 2 or sum(file.size for file in files) < _WORTHWHILE:
        yield from map(work, range(len(files)))
        return
    proceed, ended = find_proceed(), False

    def run(index: int) -> R:
        with stoppable(lambda: not ended and proceed()):
            return work(index)

    executor = ThreadPoolExecutor(workers, thread_name_prefix="isthmus-files")
    try:
        end_turn()  # the threads take turns; this one waits for them
        yield from _in_order(executor, run, range(len(files)), workers + 1)
    finally:
        ended = True
        executor.shutdown(cancel_futures=True)


def _in_order(
    executor: ThreadPoolExecutor, run: Callable[[int], R], indexes: Iterable[int], limit: int
) -> Iterator[R]:
    """Yield results in order, of which few are waiting."""
    waiting: deque[Future[R]] = deque()
    remaining = iter(indexes)
    waiting.extend(executor.submit(run, index) for index in itertools.islice(remaining, limit))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(executor.submit(run, index) for index in itertools.islice(remaining, 1))
        yield result
