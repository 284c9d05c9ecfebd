"""Alternating rounds, medians, percentiles and memory; what a suite is made of and how it is kept."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.targets import RESULTS, cells_of

ROOT = Path(__file__).parents[1]
SLOW_SECONDS = 10.0
PERCENTILES = (50, 90, 99, 99.9)
DRIVERS = ("asyncpg", "elasticsearch", "aiohttp", "aioboto3", "obstore", "orjson", "pydantic")

# One side of a job: sets itself up, and returns the seconds of the measured part alone.
Side = Callable[[], Awaitable[float]]


@dataclass
class Measured:
    """One side's rounds in seconds, or why there are none."""

    seconds: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float | None:
        """Return the median, None without rounds."""
        return statistics.median(self.seconds) if self.seconds else None


@dataclass
class Row:
    """A job's sides; figures of other units by name; percentiles of latency by side."""

    job: str
    sides: dict[str, Measured]
    notes: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    latencies: dict[str, dict[str, float]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return what is stored."""
        shape = asdict(self)
        for name, side in self.sides.items():
            shape["sides"][name]["median"] = side.median
        return shape

    def states(self) -> list[str]:
        """Return how the job's targets stand."""
        stored = {self.job: self.plain()}
        return [cell.judged(stored).state for cell in cells_of(self.job)]


async def measure(
    job: str,
    sides: Mapping[str, Side],
    *,
    rounds: int = 5,
    notes: dict[str, Any] | None = None,
    figures: dict[str, float] | None = None,
    known: Mapping[str, Measured] | None = None,
    derived: Callable[[Mapping[str, Measured]], dict[str, float]] | None = None,
) -> Row:
    """Run each side in turn, `rounds` times after one warm-up, and judge the job.

    A side that takes over ten seconds is run twice, without a warm-up; one that fails is dropped
    with its reason. `known` are sides that another job of this run measured already; `derived`
    makes further figures of the sides.
    """
    measured = {name: Measured() for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            slow = measured[name].seconds and max(measured[name].seconds) > SLOW_SECONDS
            if measured[name].failure or (slow and len(measured[name].seconds) >= 2):
                continue
            try:
                seconds = await side()
            except Exception as error:
                if name == "ours":
                    raise
                measured[name].failure = f"{type(error).__name__}: {error}"[:300]
                continue
            if turn > 0 or seconds > SLOW_SECONDS:
                measured[name].seconds.append(seconds)
    made = derived(measured) if derived else {}
    row = Row(job, {**measured, **(known or {})}, notes or {}, {**(figures or {}), **made})
    show(row)
    return row


def percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """Return the percentiles of some waits in seconds, and the longest."""
    ordered = sorted(latencies)
    found = {f"p{p:g}": ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] for p in PERCENTILES}
    return {**found, "longest": ordered[-1]}


def show(row: Row) -> None:
    """Print a job: each side's median and spread, and each verdict."""
    print(f"\n{row.job}")
    for name, side in row.sides.items():
        if side.seconds:
            low, high = min(side.seconds), max(side.seconds)
            spread = f"({_time(low)} … {_time(high)}, {len(side.seconds)} rounds)"
            print(f"  {name:<34} {_time(side.median or 0)}  {spread}")
        else:
            print(f"  {name:<34} {side.failure or 'not run'}")
    for name, found in row.latencies.items():
        print(f"  {name:<34} " + ", ".join(f"{p} {_time(wait).strip()}" for p, wait in found.items()))
    for figure, value in row.figures.items():
        print(f"  {figure}: {value:.4g}")
    for note, text in row.notes.items():
        print(f"  {note}: {text}")
    stored = {row.job: row.plain()}
    for verdict in (cell.judged(stored) for cell in cells_of(row.job)):
        print(f"  -> {verdict.state}: {verdict.cell.wanted}; measured {verdict.shown or '-'}")
    sys.stdout.flush()


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:9.1f} us" if seconds < 0.001 else f"{seconds * 1e3:9.2f} ms"


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    found = {}
    for name in DRIVERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "-"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "load": round(os.getloadavg()[0], 1),
        "commit": _commit(),
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": found,
    }


def _commit() -> str:
    """Return the commit, with a plus where the code differs from it."""
    changed = _git("diff", "--stat", "HEAD", "--", "src")
    return _git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def write(suite: str, rows: Sequence[Row], seconds: float, before: dict[str, Any] | None = None) -> Path:
    """Write a suite's rows as JSON and return the file; `before` is the machine as it was at the start."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{suite}.json"
    shape = {
        "machine": before or machine(),
        "seconds": round(seconds, 1),
        "rows": [_rounded(row.plain()) for row in rows],
    }
    path.write_text(json.dumps(shape, indent=1) + "\n")
    return path


def _rounded(value: Any) -> Any:
    """Return the value with six significant digits: more say nothing and make a large diff."""
    match value:
        case float():
            return float(f"{value:.6g}")
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list():
            return [_rounded(item) for item in value]
        case _:
            return value


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Timer:
    """Seconds of a block: `with Timer() as t: …; t.seconds`."""

    seconds = 0.0

    def __enter__(self) -> Timer:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
