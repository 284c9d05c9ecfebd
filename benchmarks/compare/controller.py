"""Has two workers run the rounds of each job in turn, prints the ratios and writes them as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.compare.checkout import Checkout, check_out, separate_databases
from benchmarks.compare.comparison import LIMIT, Comparison, TargetComparison, compare_targets
from benchmarks.harness import SLOW_SECONDS, Measured
from benchmarks.report.storage import ROOT, describe_machine, write_json
from benchmarks.report.targets import cells_of

OUT = ROOT / "benchmarks" / "out"
OLD, NEW, RIVAL = "old", "new", "rival"
ROUNDS, SLOW_ROUNDS = 7, 3


class Worker:
    """One commit's process, which stops at each job of the suite."""

    ENDED = "the suite has ended"

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.job: dict[str, Any] | None = None
        """The job that it stopped at; None once the suite has ended."""
        self.failure = ""
        """How the suite ended: `ENDED` if it ran to its end."""
        self.figures: dict[str, dict[str, float]] = {}

    @classmethod
    async def start(cls, python: Path, module: str, environment: Mapping[str, str]) -> Worker:
        """Start a suite of this checkout, which is a module, on the isthmus of an interpreter."""
        process = await asyncio.create_subprocess_exec(
            str(python),
            "-m",
            "benchmarks.compare.worker",
            module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **environment, "PYTHONHASHSEED": "0"},  # alike in all but the commit
        )
        return cls(process)

    async def advance(self) -> None:
        """End the current job, if there is one, and wait for the next; nothing once the suite has ended."""
        if self.failure:
            return
        if self.job is not None:
            await self._send(None)
        self.job = None
        while True:
            event = await self._receive()
            match event["event"]:
                case "row":
                    self.figures[event["job"]] = event["figures"]
                case "job":
                    self.job = event
                    return
                case _:
                    self._end(event["failure"])
                    return

    async def run_round(self, side: str, measured: Measured) -> float:
        """Run one round and return its seconds; a failure is noted in `measured`, and its seconds are 0."""
        if self.job is not None:
            await self._send(side)
            event = await self._receive()
            if event["event"] == "round" and event["seconds"] is not None:
                return float(event["seconds"])
            measured.failure = event["failure"]
            if event["event"] == "round":
                return 0.0
            self._end(event["failure"])
        measured.failure = self.failure
        return 0.0

    def _end(self, failure: str) -> None:
        self.job = None
        self.failure = failure or self.ENDED

    async def close(self) -> None:
        """End the process; it leaves its suite where it is."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 30)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _send(self, side: str | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"side": side}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # then its output has ended, which is seen next
            await self._process.stdin.drain()

    async def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            return {"event": "end", "failure": f"the process ended with {await self._process.wait()}"}
        event: dict[str, Any] = json.loads(line)
        return event


class SuiteComparison:
    """One suite on both commits."""

    def __init__(self, old: Worker, new: Worker) -> None:
        self._old = old
        self._new = new
        self._shown: set[str] = set()
        self.comparisons: list[Comparison] = []
        self.targets: list[TargetComparison] = []

    async def run(self, changed: Callable[[], None]) -> None:
        """Compare each job; `changed` is called after each."""
        await asyncio.gather(self._old.advance(), self._new.advance())
        while self._new.job is not None:
            comparisons, baselines = await self._compare_job(self._new.job)
            self.comparisons += comparisons
            for one in comparisons:
                print(one.line(), flush=True)
            await asyncio.gather(self._old.advance(), self._new.advance())
            self._compare_targets(comparisons, baselines)
            changed()
        self._compare_targets([], {})
        changed()

    async def _compare_job(self, job: dict[str, Any]) -> tuple[list[Comparison], dict[str, Measured]]:
        """Run the rounds of a job; return the sides on both commits and those that targets name."""
        name = job["job"]
        comparisons = [Comparison(name, side) for side in job["compared"]]
        wanted = {cell.against for cell in cells_of(name)} - {RIVAL, *job["compared"]}
        baselines = {side: Measured() for side in job["sides"] if side in wanted}
        await self._run_rounds(comparisons, baselines, 1 + ROUNDS, warm_up=True)
        if any(one.worse for one in comparisons):  # by chance or not: as many rounds more, and all count
            await self._run_rounds(comparisons, baselines, ROUNDS, warm_up=False)
        return comparisons, baselines

    async def _run_rounds(
        self,
        comparisons: Sequence[Comparison],
        baselines: Mapping[str, Measured],
        rounds: int,
        *,
        warm_up: bool,
    ) -> None:
        """Run the sides in turn; the first round is not counted if it is a warm-up."""
        for turn in range(rounds):
            unmeasured = warm_up and turn == 0
            for one in comparisons:
                sides = [(self._old, one.old), (self._new, one.new)]
                # The commit that goes first alternates too: neither always follows the same work.
                for worker, measured in sides if turn % 2 else reversed(sides):
                    await _run_round(worker, one.side, measured, warm_up=unmeasured)
            for side, measured in baselines.items():
                await _run_round(self._new, side, measured, warm_up=unmeasured)

    def _compare_targets(self, comparisons: Sequence[Comparison], baselines: Mapping[str, Measured]) -> None:
        """Print the targets of the rows that have arrived."""
        for job, figures in self._new.figures.items():
            if job in self._shown:
                continue
            self._shown.add(job)
            own = [one for one in comparisons if one.job == job]
            found = list(
                compare_targets(job, own, baselines if own else {}, self._old.figures.get(job, {}), figures)
            )
            self.targets += found
            if found and not own:
                print(job)
            for target in found:
                print(target.line(), flush=True)


async def _run_round(worker: Worker, side: str, measured: Measured, *, warm_up: bool) -> None:
    """Run one round, unless the side has failed or is slow and has enough of them."""
    slow = measured.seconds and max(measured.seconds) > SLOW_SECONDS
    if measured.failure or (slow and len(measured.seconds) >= SLOW_ROUNDS):
        return
    seconds = await worker.run_round(side, measured)
    if not measured.failure and (not warm_up or seconds > SLOW_SECONDS):
        measured.seconds.append(seconds)


async def _compare_suite(suite: str, base: Checkout) -> int:
    """Compare one suite and return its exit code."""
    machine, start = describe_machine(), time.perf_counter()
    print(f"\n{suite}: {base.commit} (old) and {machine['commit']} (new), median of {ROUNDS} rounds in turn")
    print(f"{'job':<58} {'old':>12} {'new':>12}  ratio (least … largest of two neighbouring rounds)")
    async with separate_databases(OLD, NEW) as environments:
        module = f"benchmarks.suites.{suite}"
        old = await Worker.start(base.python, module, environments[OLD])
        new = await Worker.start(Path(sys.executable), module, environments[NEW])
        done = SuiteComparison(old, new)

        def write() -> None:
            result = {
                "old": base.commit,
                "new": machine["commit"],
                "machine": machine,
                "seconds": round(time.perf_counter() - start, 1),
                "rows": [one.to_json() for one in done.comparisons],
                "targets": [target.to_json() for target in done.targets],
            }
            write_json(OUT / f"compare-{suite}.json", result)

        try:
            await done.run(write)
        finally:
            await asyncio.gather(old.close(), new.close())
    return summarize(suite, done, old.failure, new.failure, time.perf_counter() - start)


def summarize(suite: str, done: SuiteComparison, old_failure: str, new_failure: str, seconds: float) -> int:
    """Print how a suite ended, and return its exit code."""
    compared = [one for one in done.comparisons if one.ratio is not None]
    worse = [one.name for one in compared if one.worse]
    lost = [target.new.cell.job for target in done.targets if target.lost]
    print(
        f"{suite}: {len(compared)} of {len(done.comparisons)} compared,"
        f" {len(worse)} more than {LIMIT - 1:.0%} worse, {len(lost)} targets lost; {seconds:.0f} s"
    )
    for side, failure in ((OLD, old_failure), (NEW, new_failure)):
        if failure != Worker.ENDED:
            print(f"  the suite failed on the {side} commit: {failure}")
    failed = new_failure != Worker.ENDED or any(one.new.failure for one in done.comparisons)
    return 1 if worse or failed or not compared else 0


def compare(suites: Sequence[str], commit: str) -> int:
    """Compare suites with a commit and return the exit code.

    It is 1 if a row is more than 10 % worse, this checkout failed or nothing could be compared, and 2 if
    the commit could not be installed.
    """
    signal.signal(signal.SIGTERM, _interrupt)  # so that the worktree and the databases are removed
    try:
        with check_out(commit) as base:
            return max(asyncio.run(_compare_suite(suite, base)) for suite in suites)
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))} failed: {error.stderr or ''}".strip(), file=sys.stderr)
        return 2


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
