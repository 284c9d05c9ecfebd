"""Runs a suite one round at a time, on request: `python -m benchmarks.compare.worker MODULE`.

Requests and events are lines of JSON on standard input and output. A request names a side to run once,
or is empty, which ends the job; the worker then goes on to the next one.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from benchmarks.harness import Measured, Row, Side, describe, set_runner

ROUND_SECONDS = 0.3
REPEAT = 10


class RequestedRounds:
    """A runner that runs the sides that its controller requests."""

    comparing = True

    def __init__(self, events: TextIO) -> None:
        self._events = events

    async def run_rounds(
        self, job: str, sides: Mapping[str, Side], *, rounds: int, warm_up: bool, compared: Sequence[str]
    ) -> dict[str, Measured]:
        """Announce the job and run its sides as requested; the controller decides how often."""
        self.send("job", job=job, sides=list(sides), compared=list(compared))
        measured = {name: Measured() for name in sides}
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            name = json.loads(line)["side"]
            if name is None:
                return measured
            try:
                seconds = await _run_round(sides[name])
            except Exception as error:
                measured[name].failure = describe(error)
                self.send("round", seconds=None, failure=measured[name].failure)
            else:
                measured[name].seconds.append(seconds)
                self.send("round", seconds=seconds)
        raise RuntimeError("the controller has ended")

    def show(self, row: Row) -> None:
        """Send the row's figures."""
        self.send("row", job=row.job, figures=row.figures)

    def send(self, event: str, **values: Any) -> None:
        """Send one event."""
        self._events.write(json.dumps({"event": event, **values}) + "\n")
        self._events.flush()


async def _run_round(side: Side) -> float:
    """Run a side, a short one several times, and return its best seconds.

    On a busy machine a few milliseconds are interrupted or not; the best of some are less by chance.
    """
    end = time.perf_counter() + ROUND_SECONDS
    best = await side()
    for _ in range(REPEAT - 1):
        if time.perf_counter() > end:
            break
        best = min(best, await side())
    return best


async def _run(module: str) -> None:
    async for _ in importlib.import_module(module).rows():
        pass


def main() -> int:
    """Run the suite to its end, and report how it ended."""
    # Whatever else prints to standard output must not end up among the events.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    runner = RequestedRounds(events)
    set_runner(runner)
    try:
        asyncio.run(_run(sys.argv[1]))
    except Exception as error:
        traceback.print_exc()
        runner.send("end", failure=describe(error))
        return 1
    runner.send("end", failure="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
