"""Runs suites of benchmarks: `python -m benchmarks postgres sqlite`; prints tables, stores the results.

With `--base COMMIT` it compares this checkout with a commit in one run and stores nothing but
`benchmarks/out/compare-SUITE.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import time
import traceback

from benchmarks.compare.controller import compare
from benchmarks.harness import Row
from benchmarks.report.storage import describe_machine, store_run
from benchmarks.report.targets import MET, NOT_MET, NOT_RUN

# The expensive rival comes last, so that an interrupted run has most rows.
SUITES = (
    "micro",
    "imports",
    "sqlite",
    "postgres",
    "writes",
    "changes",
    "elasticsearch",
    "copy",
    "scenarios",
    "service",
    "growth",
    "questions",
    "arrow",
    "native",
    "files",
    "load",
    "s3",
)


async def run(suite: str) -> list[Row]:
    """Return a suite's rows; each is stored as soon as it is measured."""
    module = importlib.import_module(f"benchmarks.suites.{suite}")
    machine, start = describe_machine(), time.perf_counter()
    rows: list[Row] = []
    async for row in module.rows():
        rows.append(row)
        store_run(suite, [row.to_json() for row in rows], time.perf_counter() - start, machine)
    return rows


def run_all(suites: list[str]) -> int:
    """Run the suites; return 1 if one of them failed."""
    start, failed = time.perf_counter(), []
    for suite in suites:
        suite_start = time.perf_counter()
        try:
            rows = asyncio.run(run(suite))
        except Exception:  # the other suites are worth running all the same
            traceback.print_exc()
            failed.append(suite)
            continue
        states = [verdict.state for row in rows for verdict in row.verdicts()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in (MET, NOT_MET, NOT_RUN))
        print(f"\n{suite}: {counts}; {time.perf_counter() - suite_start:.0f} s", flush=True)
    print(f"{time.perf_counter() - start:.0f} s in all" + "".join(f"; {suite} FAILED" for suite in failed))
    return 1 if failed else 0


def main() -> int:
    """Run the suites that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help="all if none is named")
    parser.add_argument("--base", metavar="COMMIT", help="compare this checkout with a commit")
    arguments = parser.parse_args()
    suites = arguments.suites or list(SUITES)
    return compare(suites, arguments.base) if arguments.base else run_all(suites)


if __name__ == "__main__":
    raise SystemExit(main())
