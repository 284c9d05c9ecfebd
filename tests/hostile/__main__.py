"""Runs hostile patterns and trees against a store, and prints what they did to the process.

    python -m tests.hostile memory sqlite --patterns 1000 --seed 1

Each store runs in a process of its own. A call may be answered, refused by QueryError or end at its
deadline; the event loop stops for at most 50 ms, no call outlasts its deadline by over 100 ms, and a
process of PostgreSQL grows by at most 100 MB for a tree of up to 1,000 leaves, by 200 MB for a wider
one (2,000 are different at most), and by 150 MB for patterns.
The exit code is 1 if that did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from random import Random

from isthmus import AsyncDatabase, QueryError, Record
from isthmus._query.ast import Predicate, count_leaves
from isthmus._query.codec import text
from isthmus.errors import DeadlineError
from tests.hostile.patterns import long_texts, short_texts, text_predicate, tree
from tests.hostile.probe import Probe, ServerMemory, client_memory
from tests.stores import store_of

ALL = ("memory", "sqlite", "postgres", "elasticsearch", "s3-object", "s3-log")
LONGEST_STOP = 0.050
LONGEST_OVERRUN = 0.100
_PATTERN, _TREE, _WIDE_TREE = "a pattern", "a tree of up to 1,000 leaves", "a wider tree"
MOST_AT_SERVER = {_PATTERN: 150.0, _TREE: 100.0, _WIDE_TREE: 200.0}
"""By which a process of PostgreSQL may grow for a call, in MB, by kind of call; a pattern needs copies of
a text of 10,000,000 bytes, one of them of 40 MB."""
MOST_IN_RESPONSE = {"elasticsearch": 2_000_000, "s3": 5_000_000}
"""Bytes of the longest text where a whole response, or object, is decoded at once: 10 to 20 ms for these."""
DEADLINE = 0.3
# The calls of any_of and the like with thousands of conditions are the application's own time.
_BUILDING_TREE = "building a tree"


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
            probe.begin(_kind(predicate) if make is tree else _PATTERN)
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


def _kind(predicate: Predicate) -> str:
    return _TREE if count_leaves(predicate) <= 1_000 else _WIDE_TREE


async def run(name: str, patterns: int, seed: int, long: int) -> int:
    """Run all against one store; print the figures and return how many bounds were broken."""
    rng = Random(seed)
    store = store_of(name)
    long = min(long, MOST_IN_RESPONSE.get(store.backend, long))
    server = await ServerMemory.of(store.url) if store.backend == "postgres" and store.url else None
    probe, figures = Probe(server), Figures()
    started = time.perf_counter()
    async with store.fresh() as db:
        records = [Record({"t": content}, id=id) for id, content in short_texts().items()]
        records += [Record({"long": content}, id=id) for id, content in long_texts(long).items()]
        await db.create_batch(records)
        bounded = db.options(deadline=DEADLINE)
        gc.collect()
        before = client_memory()
        probing = asyncio.create_task(probe.run())
        await asyncio.sleep(0.05)
        probe.stops.clear()
        for number in range(patterns):
            make = tree if number % 20 == 0 else text_predicate
            await figures.call(bounded, make, rng, probe)
        probing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await probing
    return _report(name, probe, figures, before, server, time.perf_counter() - started)


def _report(
    name: str, probe: Probe, figures: Figures, before: float, server: ServerMemory | None, seconds: float
) -> int:
    building = max((length for length, doing in probe.stops if doing == _BUILDING_TREE), default=0.0)
    probe.stops = [entry for entry in probe.stops if entry[1] != _BUILDING_TREE]
    stop, stopping = max(probe.stops, default=(0.0, ""))
    overrun, late = max(figures.overruns)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in figures.outcomes.most_common())
    print(f"{name}: {counts}; {seconds:.0f} s, {probe.starved:.0f} s of them the machine ran others")
    stops = sum(length > LONGEST_STOP for length, _ in probe.stops)
    print(
        f"  longest stop of the loop {stop * 1e3:.0f} ms, {stops} above {LONGEST_STOP * 1e3:.0f}"
        f" ({probe.longest_gap * 1e3:.0f} ms by the clock): {stopping}"
    )
    print(
        f"  longest building of a tree {building * 1e3:.0f} ms,"
        f" collection of garbage {probe.longest_collection * 1e3:.0f} ms"
    )
    print(f"  longest overrun of a deadline {max(overrun, 0) * 1e3:.0f} ms: {late}")
    print(f"  peak memory of the client {client_memory():.0f} MB, {before:.0f} MB before the first pattern")
    too_large = 0
    if server is not None:
        for kind, (size, using) in server.peaks.items():
            print(f"  most that a process of the server grew by {kind} {size:.0f} MB: {using}")
            too_large += size > MOST_AT_SERVER[kind]
    elif name.startswith("postgres"):
        print("  peak memory of a process of the server: not seen, it runs on another machine")
    for line in figures.wrong[:10]:
        print(f"  {line}")
    sys.stdout.flush()
    return (stop > LONGEST_STOP) + (overrun > LONGEST_OVERRUN) + too_large + len(figures.wrong)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("stores", nargs="*", help="as in tests/stores.py; all if none is named")
    parser.add_argument("--patterns", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", type=int, default=10_000_000, help="bytes of the longest texts")
    given = parser.parse_args()
    if len(given.stores) == 1:
        return asyncio.run(run(given.stores[0], given.patterns, given.seed, given.long))
    options = [f"--{name}={getattr(given, name)}" for name in ("patterns", "seed", "long")]
    return sum(
        subprocess.run([sys.executable, "-m", "tests.hostile", store, *options], check=False).returncode
        for store in given.stores or ALL
    )


if __name__ == "__main__":
    sys.exit(min(main(), 1))
