"""Alternating rounds of a job's sides: the unit that suites are made of."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from benchmarks.report.targets import Verdict, verdicts_of

OURS = "ours"
SLOW_SECONDS = 10.0
PERCENTILES = (50, 90, 99, 99.9)

# One side of a job: sets itself up, and returns the seconds of the measured part alone.
Side = Callable[[], Awaitable[float]]


@dataclass
class Measured:
    """One side's rounds in seconds, or the reason why there are none."""

    seconds: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float | None:
        """The median, None without rounds."""
        return statistics.median(self.seconds) if self.seconds else None


@dataclass
class Row:
    """A job's sides; figures of other units by name; percentiles of latency by side."""

    job: str
    sides: dict[str, Measured]
    notes: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    latencies: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the row as it is stored."""
        shape = asdict(self)
        for name, side in self.sides.items():
            shape["sides"][name]["median"] = side.median
        return shape

    def verdicts(self) -> list[Verdict]:
        """Return how the row stands against each of its targets."""
        return verdicts_of(self.job, {self.job: self.to_json()})


class Runner(Protocol):
    """Runs the rounds of a job and receives each finished row."""

    comparing: bool

    async def run_rounds(
        self, job: str, sides: Mapping[str, Side], *, rounds: int, warm_up: bool, compared: Sequence[str]
    ) -> dict[str, Measured]:
        """Return the rounds of each side."""
        ...

    def show(self, row: Row) -> None:
        """Take note of a row."""
        ...


class LocalRunner:
    """Runs all rounds in this process and prints each row."""

    comparing = False

    async def run_rounds(
        self, job: str, sides: Mapping[str, Side], *, rounds: int, warm_up: bool, compared: Sequence[str]
    ) -> dict[str, Measured]:
        """Run the sides in turn.

        A side that takes over ten seconds is run twice, without a warm-up; one that fails is dropped
        with its reason, unless it is ours.
        """
        measured = {name: Measured() for name in sides}
        for turn in range(rounds + warm_up):
            for name, side in sides.items():
                done = measured[name].seconds
                if measured[name].failure or (len(done) >= 2 and max(done) > SLOW_SECONDS):
                    continue
                try:
                    seconds = await side()
                except Exception as error:
                    if name == OURS:
                        raise
                    measured[name].failure = describe(error)
                    continue
                if turn >= warm_up or seconds > SLOW_SECONDS:
                    done.append(seconds)
        return measured

    def show(self, row: Row) -> None:
        """Print each side's median and spread, and how the targets stand."""
        print(f"\n{row.job}")
        for name, side in row.sides.items():
            if side.seconds:
                low, high = min(side.seconds), max(side.seconds)
                spread = f"({format_time(low)} … {format_time(high)}, {len(side.seconds)} rounds)"
                print(f"  {name:<34} {format_time(side.median or 0)}  {spread}")
            else:
                print(f"  {name:<34} {side.failure or 'not run'}")
        for name, latencies in row.latencies.items():
            waits = (f"{p} {format_time(wait).strip()}" for p, wait in latencies.items())
            print(f"  {name:<34} " + ", ".join(waits))
        for figure, value in row.figures.items():
            print(f"  {figure}: {value:.4g}")
        for note, text in row.notes.items():
            print(f"  {note}: {text}")
        for verdict in row.verdicts():
            print(f"  -> {verdict.state}: {verdict.cell.wanted}; measured {verdict.shown or '-'}")
        sys.stdout.flush()


_runner: Runner = LocalRunner()


def set_runner(runner: Runner) -> None:
    """Let another runner take the place of the local one, in this process."""
    global _runner
    _runner = runner


def comparing() -> bool:
    """Return whether two commits are compared; a suite then leaves out what compares nothing."""
    return _runner.comparing


async def measure(
    job: str,
    sides: Mapping[str, Side],
    *,
    rounds: int = 5,
    warm_up: bool = True,
    compared: Sequence[str] = (OURS,),
    notes: dict[str, Any] | None = None,
    figures: dict[str, float] | None = None,
    known: Mapping[str, Measured] | None = None,
    derive: Callable[[Mapping[str, Measured]], dict[str, float]] | None = None,
) -> Row:
    """Run each side in turn, `rounds` times after one warm-up, and show the row.

    `compared` are the sides that run isthmus, which a comparison of two commits is about. `known` are
    sides that another job of this run has measured; `derive` returns further figures.
    """
    measured = await run_rounds(job, sides, rounds=rounds, warm_up=warm_up, compared=compared)
    failed = any(not measured[name].seconds for name in compared)
    derived = derive(measured) if derive and not failed else {}
    row = Row(job, {**measured, **(known or {})}, notes or {}, {**(figures or {}), **derived})
    show(row)
    return row


async def run_rounds(
    job: str,
    sides: Mapping[str, Side],
    *,
    rounds: int = 5,
    warm_up: bool = True,
    compared: Sequence[str] = (OURS,),
) -> dict[str, Measured]:
    """Run each side in turn and return the rounds, for a suite that makes its rows itself."""
    return await _runner.run_rounds(job, sides, rounds=rounds, warm_up=warm_up, compared=compared)


def show(row: Row) -> None:
    """Print a row."""
    _runner.show(row)


def own_name(name: str) -> str:
    """Return the name of an index that no other process of a comparison uses."""
    return name + os.environ.get("ISTHMUS_BENCH_SUFFIX", "")


def compute_percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """Return the percentiles of latencies in seconds, and the longest."""
    ordered = sorted(latencies)
    found = {f"p{p:g}": ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] for p in PERCENTILES}
    return {**found, "longest": ordered[-1]}


def describe(error: BaseException) -> str:
    """Return a failure as it is stored, at most 300 characters."""
    return f"{type(error).__name__}: {error}"[:300]


def format_time(seconds: float) -> str:
    """Return a time of fixed width."""
    return f"{seconds * 1e6:9.1f} us" if seconds < 0.001 else f"{seconds * 1e3:9.2f} ms"


class Timer:
    """Seconds of a block: `with Timer() as timer: …; timer.seconds`."""

    seconds = 0.0

    def __enter__(self) -> Timer:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
