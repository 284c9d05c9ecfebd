"""Cancels calls at random on every backend and prints a table of what is left: `make cancel`.

Each backend runs under asyncio and under uvloop, in a process of its own, so that a hang is seen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults.cancel import BACKENDS, LEFT, run
from tests.faults.cancel_calls import WAYS

LOOPS = ("asyncio", "uvloop")
_UNFINISHED = ".sgwtmp."
_SECONDS_PER_CALL = 0.5
"""A process that takes longer than a minute and this for each call is stopped, and counts as a hang."""


def main() -> int:
    """Run and print; 1 if anything is left, a call failed in a way of its own, or a process hung."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backends", nargs="*", default=list(BACKENDS))
    parser.add_argument("--n", type=int, default=10_000, help="calls on each backend")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", metavar="LOOP", help="run one backend in this process, and print JSON")
    options = parser.parse_args()
    if options.one is not None:
        return _run_one(options.backends[0], options.one, options.n, options.seed)
    print(f"{'backend':19} {'loop':8} {'seconds':>7} {'calls':>6} {'cancelled':>9}  left: {', '.join(LEFT)}")
    classes: Counter[str] = Counter()
    failures: list[str] = []
    for backend in options.backends:
        for loop in LOOPS:
            problem = _run_process(backend, loop, options.n // len(LOOPS), options.seed, classes)
            if problem:
                failures.append(f"{backend} {loop}: {problem}")
    _print_classes(classes)
    print("\n".join(failures) or "nothing is left")
    return 1 if failures else 0


def _run_one(backend: str, loop: str, count: int, seed: int) -> int:
    with tempfile.TemporaryDirectory(prefix="isthmus-cancel-") as folder:
        result = run(backend, loop, count, Path(folder), seed)
    print(json.dumps({"calls": result.calls, "cancelled": result.cancelled, "left": result.left}))
    return 0


def _run_process(backend: str, loop: str, count: int, seed: int, classes: Counter[str]) -> str:
    """Run one backend under one loop, print its row, and return what went wrong."""
    command = [sys.executable, "-m", "tests.faults.run_cancel", backend, "--one", loop]
    command += ["--n", str(count), "--seed", str(seed)]
    started = time.monotonic()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 + count * _SECONDS_PER_CALL, check=False
        )
    except subprocess.TimeoutExpired as hung:
        print(f"{backend:19} {loop:8} hung")
        return f"still runs after {hung.timeout:g} s (seed {seed})"
    seconds = time.monotonic() - started
    if done.returncode:
        print(f"{backend:19} {loop:8} failed")
        return f"exit {done.returncode} (seed {seed})\n{done.stderr[-2000:]}"
    result: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    left = result["left"]
    calls, cancelled = Counter(result["calls"]), Counter(result["cancelled"])
    classes.update(calls)
    row = f"{backend:19} {loop:8} {seconds:7.0f} {calls.total():6} {cancelled.total():9}  "
    print(row + " ".join(str(left.get(name, "-")) for name in LEFT), flush=True)
    if printed := _printed(done.stderr):
        return f"printed to standard error:\n{printed[-2000:]}"
    return f"left (seed {seed}): {left}" if any(left.values()) else ""


def _printed(text: str) -> str:
    """Return what a process printed, without warnings of objects that versitygw has not finished writing."""
    return "\n".join(line for line in text.splitlines() if _UNFINISHED not in line)


def _print_classes(calls: Counter[str]) -> None:
    names = sorted({name.split()[0] for name in calls})
    print(f"\n{'calls by class':19}" + "".join(f"{way:>8}" for way in WAYS))
    for name in names:
        print(f"{name:19}" + "".join(f"{calls[f'{name} {way}']:8}" for way in WAYS))


if __name__ == "__main__":
    sys.exit(main())
