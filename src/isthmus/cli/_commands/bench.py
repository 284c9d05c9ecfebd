"""The command bench: how long each kind of call takes on a store."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from isthmus import Collection, Query, Record, field
from isthmus.cli._options import AsJson, PromptPassword, Store
from isthmus.cli._output import print_json, print_table
from isthmus.cli._stores import StoreAddress, open_scratch_collection, resolve_store

Row = tuple[str, int, float, float, float]
Call = Callable[[int], Awaitable[object]]


def bench(
    store: Store = None,
    number: Annotated[int, typer.Option("--number", "-n", metavar="N", min=10, help="Records.")] = 1_000,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Time each kind of call, in a collection of its own: isthmus_scratch."""
    rows = asyncio.run(_bench(resolve_store(store, prompt=prompt), number))
    if as_json:
        keys = ("job", "times", "median_ms", "p99_ms", "per_s")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        cells = [
            [job, n, f"{median:.2f}", f"{p99:.2f}", f"{rate:,.0f}"] for job, n, median, p99, rate in rows
        ]
        print_table(["job", "times", "median ms", "p99 ms", "records/s"], cells)


async def _bench(address: StoreAddress, number: int) -> list[Row]:
    async with open_scratch_collection(address) as collection:
        return [
            await _time_calls(job, times, records_per_call, call)
            for job, times, records_per_call, call in _list_jobs(collection, number)
        ]


async def _time_calls(job: str, times: int, records_per_call: int, call: Call) -> Row:
    """Call `times` times; return median and 99th percentile in milliseconds, and records per second."""
    durations = []
    for turn in range(times):
        start = time.perf_counter()
        await call(turn)
        durations.append((time.perf_counter() - start) * 1e3)
    durations.sort()
    rate = records_per_call * times / (sum(durations) / 1e3)
    return job, times, statistics.median(durations), durations[min(times - 1, times * 99 // 100)], rate


def _list_jobs(collection: Collection, number: int) -> list[tuple[str, int, int, Call]]:
    """Return each job's name, number of calls, records per call, and call."""
    ids = [f"{i:08}" for i in range(number)]
    records = [
        Record({"n": i, "name": f"name {i}", "group": i % 10, "tags": ["a", "b"], "text": "x" * 120}, id=id)
        for i, id in enumerate(ids)
    ]
    first_ten = Query().filter(field("group") == 3).sort("n").limit(10)

    async def stream(turn: int) -> None:
        async for _ in collection.stream():
            pass

    return [
        ("create", 20, 1, lambda turn: collection.create({"n": turn})),
        ("create_batch", 1, number, lambda turn: collection.create_batch(records)),
        ("get", 100, 1, lambda turn: collection.get(ids[turn % number])),
        ("get_batch 100", 5, 100, lambda turn: collection.get_batch([f"{i:08}" for i in range(100)])),
        ("search, sort, limit 10", 20, 10, lambda turn: collection.search(first_ten)),
        ("count", 20, 1, lambda turn: collection.count(field("n") >= turn)),
        ("stream", 3, number, stream),
        ("update", 20, 1, lambda turn: collection.update(ids[turn % 10], {"u": turn})),
        ("upsert_batch", 1, number, lambda turn: collection.upsert_batch(records)),
        ("delete_batch", 1, number, lambda turn: collection.delete_batch(ids)),
    ]
