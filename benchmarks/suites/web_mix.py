"""The calls of a web service and their latencies; without isthmus, because the rival runs it too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Protocol

from benchmarks.harness import compute_percentiles


class Store(Protocol):
    """The four calls; `n` is a record's number, and the number of a new one for `create`."""

    async def get(self, n: int) -> None:
        """Read record n."""
        ...

    async def search(self, n: int) -> None:
        """Find the first twenty of the hundred records from n on, in order."""
        ...

    async def update(self, n: int) -> None:
        """Change a field of record n."""
        ...

    async def create(self, n: int) -> None:
        """Create a record."""
        ...


def calls(count: int, stored: int) -> Iterator[tuple[str, int]]:
    """Yield each call's method and record: 70 % gets, 15 % searches, 10 % updates, 5 % creates."""
    for i in range(count):
        at = i * 7919 % stored
        match i % 20:
            case 0 | 5 | 12:
                yield "search", min(at, stored - 100)
            case 3 | 16:
                yield "update", at
            case 9:
                yield "create", stored + i
            case _:
                yield "get", at


async def drive(store: Store, count: int, tasks: int, stored: int) -> tuple[float, dict[str, float]]:
    """Return the seconds that `tasks` tasks take for `count` calls, and the percentiles of the latencies."""
    source = calls(count, stored)
    latencies: list[float] = []

    async def worker() -> None:
        for method, n in source:
            start = time.perf_counter()
            await getattr(store, method)(n)
            latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(tasks)))
    return time.perf_counter() - start, compute_percentiles(latencies)
