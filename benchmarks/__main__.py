"""Runs suites of benchmarks: `python -m benchmarks postgres sqlite`; prints tables, writes out/*.json."""

from __future__ import annotations

import argparse
import asyncio
import importlib

from benchmarks.harness import Row, write

SUITES = ("sqlite", "postgres", "elasticsearch", "s3", "copy", "growth")


async def run(suite: str) -> list[Row]:
    """Return a suite's rows."""
    module = importlib.import_module(f"benchmarks.suites.{suite}")
    return [row async for row in module.rows()]


def main() -> int:
    """Run the suites that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}")
    for suite in parser.parse_args().suites or SUITES:
        rows = asyncio.run(run(suite))
        judged = [verdict.state for row in rows for verdict in row.verdicts]
        counts = ", ".join(f"{judged.count(state)} {state}" for state in ("met", "not met", "not run"))
        print(f"\n{suite}: {counts}")
        print(f"written to {write(suite, rows)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
