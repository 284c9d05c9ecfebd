"""`python -m tests.counters`: hot records on every store, by several processes at once.

Each of four processes (on memory, four tasks) adds 1 to one record 250 times; then 50 buyers, in the
same processes, each take one of 10 pieces on the condition that there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from isthmus import AsyncDatabase, ConflictError, field

if TYPE_CHECKING:
    from tests.stores import Store

ID = "hot"
PIECES, BUYERS = 10, 50
Counted = tuple[float, int]
"""The seconds that a process took for its increments, and how many of its buyers got a piece."""


def main() -> int:
    """Print a line for each store; return 1 if a count is wrong."""
    from tests.stores import STORES, store_of  # not needed by the processes, which start faster without

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--increments", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--stores", nargs="*", default=[*STORES, "sqlalchemy-mariadb"])
    options = parser.parse_args()
    wrong = 0
    print(f"{'store':22} {'counted':>8} {'per second':>11} {'sold':>5} {'refused':>8} {'left':>5}")
    for name in options.stores:
        wrong += not asyncio.run(_count(store_of(name), options.increments, options.processes))
    return 1 if wrong else 0


async def _count(store: Store, increments: int, processes: int) -> bool:
    async with store.fresh() as db:
        await db.upsert(ID, {"n": 0, "stock": PIECES})
        counted = await _spread(store, db, increments, processes)
        record = await db.require(ID)
        sold = sum(bought for _, bought in counted)
        rate = increments / max(seconds for seconds, _ in counted)
        print(
            f"{store.name:22} {record['n']:8} {rate:11.0f} {sold:5} {BUYERS - sold:8} {record['stock']:5}",
            flush=True,
        )
        return (record["n"], sold, record["stock"]) == (increments, PIECES, 0)


async def _spread(store: Store, db: AsyncDatabase, increments: int, processes: int) -> list[Counted]:
    """Run increments and buyers in several processes, each in step with the others."""
    shares = list(zip(_parts(increments, processes), _parts(BUYERS, processes), strict=True))
    if store.backend == "memory":
        tasks = asyncio.Barrier(processes)
        return list(await asyncio.gather(*(_work(db, *share, tasks.wait) for share in shares)))
    context = multiprocessing.get_context("spawn")
    setting = db.config.collection_setting()
    assert setting is not None
    named = {setting: getattr(db.config, setting)}
    settings = {**store.config, **named, **({"url": store.url} if store.url else {})}
    with context.Manager() as manager, ProcessPoolExecutor(processes, context) as pool:
        barrier = manager.Barrier(processes)
        loop = asyncio.get_running_loop()
        jobs = [
            loop.run_in_executor(pool, _in_process, store.backend, settings, share, barrier)
            for share in shares
        ]
        return list(await asyncio.gather(*jobs))


def _parts(calls: int, processes: int) -> list[int]:
    return [calls // processes + (number < calls % processes) for number in range(processes)]


def _in_process(backend: str, settings: dict[str, Any], share: tuple[int, int], barrier: Any) -> Counted:
    async def run() -> Counted:
        async with AsyncDatabase(backend, settings) as db:
            await db.get(ID)
            return await _work(db, *share, lambda: asyncio.to_thread(barrier.wait))

    return asyncio.run(run())


async def _work(
    db: AsyncDatabase, increments: int, buyers: int, wait: Callable[[], Awaitable[Any]]
) -> Counted:
    await wait()
    begun = time.perf_counter()
    await asyncio.gather(*(db.modify(ID, field("n").inc(1)) for _ in range(increments)))
    seconds = time.perf_counter() - begun
    await wait()
    return seconds, await _buy(db, buyers)


async def _buy(db: AsyncDatabase, buyers: int) -> int:
    stock = field("stock")
    calls = (db.modify(ID, stock.inc(-1), where=stock >= 1) for _ in range(buyers))
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, ConflictError):
            raise result
    return sum(isinstance(result, str) for result in results)


if __name__ == "__main__":
    sys.exit(main())
