"""Four times the load that a server takes: `python -m tests.faults.overload --seconds 120`.

First the rate is measured that a PostgreSQL serves; then four times as many operations arrive each
second, whether earlier ones have ended or not. Memory stays bounded, what is accepted is answered
in bounded time, and the rest is refused early by an error that says so.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from isthmus import AsyncDatabase, IsthmusError, field
from tests import servers

CONFIG = {"table": "overload", "deadline": 5.0, "layers": {"limit": {"max_in_flight": 32, "max_wait": 0.5}}}
# A scan costs the server much and this process little, so that the server is the narrow place.
SCANNED = 20_000


def resident() -> float:
    """Return the megabytes that this process holds now."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


async def one(db: AsyncDatabase, number: int) -> None:
    """Do one piece of work: a scan, and for every fifth a record."""
    if number % 5 == 0:
        await db.create({"n": number, "text": "new"})
    else:
        await db.count(field("text").contains("nowhere"))


async def capacity(db: AsyncDatabase, seconds: float) -> float:
    """Return how many pieces a second are served with as many in flight as are allowed."""
    done = 0
    end = time.monotonic() + seconds

    async def work() -> None:
        nonlocal done
        while time.monotonic() < end:
            await one(db, done)
            done += 1

    await asyncio.gather(*(work() for _ in range(32)))
    return done / seconds


async def overload(url: str, seconds: float) -> bool:
    """Run and print; return whether all bounds held."""
    db = await AsyncDatabase.open(url, CONFIG)
    await db.create_batch([{"n": -1, "text": "somewhere " * 20} for _ in range(SCANNED)])
    rate = await capacity(db, 5.0)
    await db.delete_where(field("n") >= 0)
    written: list[int] = []
    results: Counter[str] = Counter()
    latencies: list[float] = []
    refusals: list[float] = []
    tasks: set[asyncio.Task[None]] = set()

    async def attempt(number: int) -> None:
        begun = time.monotonic()
        try:
            await one(db, number)
        except IsthmusError as error:
            results[type(error).__name__] += 1
            refusals.append(time.monotonic() - begun)
        else:
            results["done"] += 1
            if number % 5 == 0:
                written.append(number)
            latencies.append(time.monotonic() - begun)

    start_memory, most = resident(), 0.0
    begun, sent = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        due = int((time.monotonic() - begun) * rate * 4)
        while sent < due:
            task = asyncio.ensure_future(attempt(sent))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        most = max(most, resident())
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    found = await db.count(field("n") >= 0)
    await db.close()
    latencies.sort()
    refusals.sort()
    p99 = latencies[int(len(latencies) * 0.99)]
    late = refusals[int(len(refusals) * 0.99)] if refusals else 0.0
    print(
        f"capacity {rate:.0f}/s; {sent} arrived in {seconds:g} s ({sent / seconds:.0f}/s): {dict(results)};"
        f" accepted p50 {statistics.median(latencies):.2f} s, p99 {p99:.2f} s; refused p99 {late:.2f} s;"
        f" memory {start_memory:.0f} -> at most {most:.0f} MB; {found} records of {len(written)} acknowledged"
    )
    return (
        found == len(written)
        and p99 < 2.0
        and late < 2.0
        and most < start_memory + 200
        and results["done"] > rate * seconds * 0.3
        and set(results) <= {"done", "RateLimitedError"}
    )


def main() -> int:
    """Run; 1 if a bound did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    with servers.PostgresServer() as server:
        good = asyncio.run(overload(server.url, options.seconds))
    print("met" if good else "NOT met")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
