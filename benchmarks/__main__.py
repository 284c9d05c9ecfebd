"""Runs suites of benchmarks: `python -m benchmarks postgres sqlite`; prints tables, writes results/*.json."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import time

from benchmarks.harness import Row, machine, write

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
    """Return a suite's rows."""
    module = importlib.import_module(f"benchmarks.suites.{suite}")
    return [row async for row in module.rows()]


def main() -> int:
    """Run the suites that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "suites", nargs="*", choices=[*SUITES, []], help=f"of {', '.join(SUITES)}; all if none"
    )
    begun = time.perf_counter()
    for suite in parser.parse_args().suites or SUITES:
        before, start = machine(), time.perf_counter()
        rows = asyncio.run(run(suite))
        seconds = time.perf_counter() - start
        states = [state for row in rows for state in row.states()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in ("met", "not met", "not run"))
        print(f"\n{suite}: {counts}; {seconds:.0f} s, written to {write(suite, rows, seconds, before)}")
    print(f"{time.perf_counter() - begun:.0f} s in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
