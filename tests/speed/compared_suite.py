"""A suite without a database, whose sides take times that its process is given; for test_compare."""

import os
from collections.abc import AsyncIterator

from benchmarks.harness import Row, Side, measure, run_rounds, show

TIMES = {"ours": float(os.environ["SECONDS"]), "bare": 1.0, "rival": 1.0, "executemany": 1.0}


def _side(name: str) -> Side:
    async def run() -> float:
        assert name not in ("rival", "executemany"), "no target needs this side"
        return TIMES[name]

    return run


async def _fail() -> float:
    if "old" in os.environ["ISTHMUS_BENCH_SUFFIX"]:
        raise LookupError("this commit cannot")
    return 1.0


async def _exit() -> float:
    if "old" in os.environ["ISTHMUS_BENCH_SUFFIX"]:
        os._exit(3)
    return 1.0


async def rows() -> AsyncIterator[Row]:
    """Yield a job with targets, figures alone, a job that the old commit fails, and one that ends it."""
    print("what a suite prints is no event")
    yield await measure("pg create_batch 10,000", {name: _side(name) for name in TIMES})
    await run_rounds("rounds alone", {"ours": _side("ours")})
    row = Row("core install", {}, figures={"MB": 10.0 * TIMES["ours"]})
    show(row)
    yield row
    yield await measure("fails", {"ours": _fail})
    yield await measure("exits", {"ours": _exit})
    yield await measure("after the exit", {"ours": _fail})
