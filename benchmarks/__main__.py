"""Runs suites of benchmarks: `python -m benchmarks postgres sqlite`; prints tables, writes results/*.json."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import time
import traceback

from benchmarks.harness import Row, machine, write
from benchmarks.targets import MET, NOT_MET, NOT_RUN

# The costly rival comes last, so that a run that is stopped has most rows.
SUITES = (
    "micro",
    "imports",
    "sqlite",
    "postgres",
    "elasticsearch",
    "copy",
    "scenarios",
    "growth",
    "s3",
)


async def run(suite: str) -> list[Row]:
    """Return a suite's rows; each is stored as soon as it is there."""
    module = importlib.import_module(f"benchmarks.suites.{suite}")
    before, start = machine(), time.perf_counter()
    rows: list[Row] = []
    async for row in module.rows():
        rows.append(row)
        write(suite, rows, time.perf_counter() - start, before)
    return rows


def main() -> int:
    """Run the suites that are named, or all; return 1 if one of them failed on the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help="all if none is named")
    begun, failed = time.perf_counter(), []
    for suite in parser.parse_args().suites or SUITES:
        start = time.perf_counter()
        try:
            rows = asyncio.run(run(suite))
        except Exception:  # the others are worth their time all the same
            traceback.print_exc()
            failed.append(suite)
            continue
        states = [state for row in rows for state in row.states()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in (MET, NOT_MET, NOT_RUN))
        print(f"\n{suite}: {counts}; {time.perf_counter() - start:.0f} s", flush=True)
    print(f"{time.perf_counter() - begun:.0f} s in all" + "".join(f"; {suite} FAILED" for suite in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
