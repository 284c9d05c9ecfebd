"""Runs hostile patterns and trees against a store, and prints what they did to the process.

    python -m tests.hostile memory sqlite --patterns 1000 --seed 1

Each store runs in a process of its own. A call may be answered, refused by QueryError or end at its
deadline; the event loop stops for at most 50 ms and no call outlasts its deadline by over 100 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from random import Random

from isthmus import AsyncDatabase, QueryError, Record
from isthmus._query.ast import Predicate
from isthmus._query.codec import text
from isthmus.errors import DeadlineError
from tests.hostile.patterns import text_predicate, texts, tree
from tests.stores import store_of

LONGEST_STOP = 0.050
LONGEST_OVERRUN = 0.100
DEADLINE = 0.5
# The calls of any_of and the like with thousands of conditions are the application's own time.
_BUILDING_TREE = "building a tree"


class Probe:
    """Measures how long the event loop does not get to its tasks."""

    def __init__(self) -> None:
        self.stops: list[tuple[float, str]] = []
        self.doing = ""

    async def run(self) -> None:
        """Note each stop, until cancelled.

        Time in which the machine ran other processes is no stop of ours: a stop is no longer than the
        processor time that this process took.
        """
        now, used = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(0.001)
            before, now = now, time.perf_counter()
            used_before, used = used, time.process_time()
            if (stop := min(now - before, used - used_before)) > 0.010:
                self.stops.append((stop, self.doing))


class Figures:
    """What became of the calls."""

    def __init__(self) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.overruns: list[tuple[float, str]] = []
        self.wrong: list[str] = []

    async def call(
        self, db: AsyncDatabase, make: Callable[[Random], Predicate], rng: Random, probe: Probe
    ) -> None:
        """Build one predicate and count its matches."""
        started = time.perf_counter()
        try:
            probe.doing = _BUILDING_TREE if make is tree else "building a pattern"
            predicate = make(rng)
            await asyncio.sleep(0.005)
            probe.doing = text(predicate)[:120]
            started = time.perf_counter()
            await db.count(predicate)
            self.outcomes["answered"] += 1
        except QueryError:
            self.outcomes["refused"] += 1
        except DeadlineError:
            self.outcomes["ended at the deadline"] += 1
        except Exception as error:
            self.outcomes[type(error).__name__] += 1
            self.wrong.append(f"{type(error).__name__}: {error} for {probe.doing}")
        self.overruns.append((time.perf_counter() - started - DEADLINE, probe.doing))
        await asyncio.sleep(0.005)


async def run(name: str, patterns: int, seed: int, long: int) -> int:
    """Run all against one store; print the figures and return how many bounds were broken."""
    rng = Random(seed)
    probe, figures = Probe(), Figures()
    store = store_of(name)
    async with store.fresh() as db:
        await db.create_batch([Record({"t": content}, id=id) for id, content in texts(long).items()])
        bounded = db.options(deadline=DEADLINE)
        gc.collect()
        before = _memory()
        probing = asyncio.create_task(probe.run())
        await asyncio.sleep(0.05)
        probe.stops.clear()
        for number in range(patterns):
            make = tree if number % 20 == 0 else text_predicate
            await figures.call(bounded, make, rng, probe)
        probing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await probing
    return _report(name, probe, figures, before)


def _report(name: str, probe: Probe, figures: Figures, before: float) -> int:
    building = max((length for length, doing in probe.stops if doing == _BUILDING_TREE), default=0.0)
    probe.stops = [entry for entry in probe.stops if entry[1] != _BUILDING_TREE]
    stop, stopping = max(probe.stops, default=(0.0, ""))
    overrun, late = max(figures.overruns)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in figures.outcomes.most_common())
    print(f"{name}: {counts}")
    stops = sum(length > LONGEST_STOP for length, _ in probe.stops)
    print(
        f"  longest stop of the loop {stop * 1e3:.0f} ms, {stops} above {LONGEST_STOP * 1e3:.0f}: {stopping}"
    )
    print(f"  longest building of a tree {building * 1e3:.0f} ms")
    print(f"  longest overrun of the deadline {max(overrun, 0) * 1e3:.0f} ms: {late}")
    print(f"  peak memory {_memory():.0f} MB, {before:.0f} MB before the first pattern", flush=True)
    for line in figures.wrong[:10]:
        print(f"  {line}")
    return (stop > LONGEST_STOP) + (overrun > LONGEST_OVERRUN) + len(figures.wrong)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("stores", nargs="+", help="as in tests/stores.py")
    parser.add_argument("--patterns", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", type=int, default=10_000_000, help="characters of the longest texts")
    given = parser.parse_args()
    if len(given.stores) == 1:
        return asyncio.run(run(given.stores[0], given.patterns, given.seed, given.long))
    options = [f"--{name}={getattr(given, name)}" for name in ("patterns", "seed", "long")]
    return sum(
        subprocess.run([sys.executable, "-m", "tests.hostile", store, *options], check=False).returncode
        for store in given.stores
    )


if __name__ == "__main__":
    sys.exit(min(main(), 1))
