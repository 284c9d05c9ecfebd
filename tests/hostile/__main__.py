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
        self.starved = 0.0
        """Seconds that the machine ran other processes while this one had something to do."""
        self.doing = ""
        self.collecting = 0.0
        self.longest_collection = 0.0
        """Of Python's garbage, in seconds: it grows with the heap of the program, whatever is called."""
        self._collection = 0.0
        gc.callbacks.append(self._note_collection)

    def _note_collection(self, phase: str, info: object) -> None:
        if phase == "start":
            self._collection = time.process_time()
        else:
            seconds = time.process_time() - self._collection
            self.collecting += seconds
            self.longest_collection = max(self.longest_collection, seconds)

    async def run(self) -> None:
        """Note each stop, until cancelled.

        Time in which the machine ran other processes is no stop of ours: a stop is no longer than the
        processor time that this process took, without that of collecting garbage.
        """
        while True:
            before, used_before, collected = time.perf_counter(), time.process_time(), self.collecting
            await asyncio.sleep(0.001)
            gap, used = time.perf_counter() - before, time.process_time() - used_before
            if gap > 0.010:
                self.starved += max(0.0, gap - used)
                stop = min(gap, used) - (self.collecting - collected)
                if stop > 0.010:
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
        started, starved = time.perf_counter(), probe.starved
        try:
            probe.doing = _BUILDING_TREE if make is tree else "building a pattern"
            predicate = make(rng)
            shown = text(predicate)[:120]  # tens of milliseconds for a wide tree, which are not the store's
            await asyncio.sleep(0.005)
            probe.doing = shown
            started, starved = time.perf_counter(), probe.starved
            await db.count(predicate)
            self.outcomes["answered"] += 1
        except QueryError:
            self.outcomes["refused"] += 1
        except DeadlineError:
            self.outcomes["ended at the deadline"] += 1
        except Exception as error:
            self.outcomes[type(error).__name__] += 1
            self.wrong.append(f"{type(error).__name__}: {error} for {probe.doing}")
        ended = time.perf_counter()
        await asyncio.sleep(0.002)  # the probe's turn: how long did the machine run others?
        late = ended - started - DEADLINE - (probe.starved - starved)
        self.overruns.append((late, probe.doing))
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
    print(
        f"  longest building of a tree {building * 1e3:.0f} ms,"
        f" collection of garbage {probe.longest_collection * 1e3:.0f} ms"
    )
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
