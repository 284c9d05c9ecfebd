"""Alternating rounds, medians, and ratios against targets."""

from __future__ import annotations

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TARGETS = Path(__file__).with_name("targets.json")
OUT = Path(__file__).with_name("out")
SLOW_SECONDS = 10.0

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
class Verdict:
    """One target of a job and whether it is met: `met`, `not met` or `not run`."""

    against: str
    target: str
    ratio: float | None
    state: str


@dataclass
class Row:
    """A job's sides and verdicts."""

    job: str
    sides: dict[str, Measured]
    verdicts: list[Verdict]
    notes: dict[str, Any] = field(default_factory=dict)


async def measure(
    job: str, sides: dict[str, Side], *, rounds: int = 5, notes: dict[str, Any] | None = None
) -> Row:
    """Run each side in turn, `rounds` times after one warm-up, and judge the job.

    A side that takes over ten seconds is run twice, without a warm-up; one that fails is dropped
    with its reason.
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
    row = Row(job, measured, verdicts(job, {n: m.median for n, m in measured.items()}), notes or {})
    show(row)
    return row


def verdicts(job: str, medians: dict[str, float | None]) -> list[Verdict]:
    """Return how a job stands against its targets."""
    judged = []
    ours = medians.get("ours")
    for against, target in json.loads(TARGETS.read_text()).get(job, {}).items():
        theirs = medians.get(against)
        text = (
            f"at most {target['most']:g}x" if "most" in target else f"at least {target['faster']:g}x faster"
        )
        if ours is None or theirs is None:
            judged.append(Verdict(against, text, None, "not run"))
        elif "most" in target:
            judged.append(Verdict(against, text, ours / theirs, _state(ours / theirs <= target["most"])))
        else:
            judged.append(Verdict(against, text, theirs / ours, _state(theirs / ours >= target["faster"])))
    return judged


def _state(met: bool) -> str:
    return "met" if met else "not met"


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
    for verdict in row.verdicts:
        ratio = "" if verdict.ratio is None else f"{verdict.ratio:.2f}x"
        print(f"  -> {verdict.target} against {verdict.against}: {ratio} {verdict.state}")
    for note, value in row.notes.items():
        print(f"  {note}: {value}")
    sys.stdout.flush()


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:9.1f} us" if seconds < 0.001 else f"{seconds * 1e3:9.2f} ms"


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    found = {}
    for name in ("asyncpg", "elasticsearch", "aioboto3", "obstore", "orjson", "pydantic"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "-"
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": commit,
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": found,
    }


def write(suite: str, rows: Sequence[Row]) -> Path:
    """Write a suite's rows as JSON and return the file."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{suite}.json"
    shape = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    for row, plain in zip(rows, shape["rows"], strict=True):
        for name, side in row.sides.items():
            plain["sides"][name]["median"] = side.median
    path.write_text(json.dumps(shape, indent=1))
    return path


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
