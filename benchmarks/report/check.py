"""Compares the stored results with the targets: each row met, not met or not run; `make bench-check`."""

from __future__ import annotations

import textwrap
from collections import Counter

from benchmarks.report.storage import load_rows, load_runs
from benchmarks.report.targets import MET, NOT_MET, NOT_RUN, Verdict, load_targets, state_of

REQUIRED_SHARE = 0.9


def main() -> int:
    """Print each target.

    Returns 0 if every row of the speed table was run, nine in ten of them are met, and each target that
    is not met has a reason.
    """
    rows = load_rows()
    counts: Counter[tuple[str, str]] = Counter()
    table, unexplained = "", []
    for row in load_targets():
        if row.table != table:
            table = row.table
            print(f"\n{table}")
        verdicts = row.verdicts(rows)
        state = state_of(verdicts)
        counts[table, state] += 1
        print(f"{state:<8} {row.name}")
        for verdict in verdicts:
            _print_verdict(verdict, row.name)
            if verdict.state == NOT_MET and not verdict.cell.reason:
                unexplained.append(f"{verdict.cell.job}, {verdict.cell.wanted}")
    _print_summary(counts)
    if unexplained:
        print("no reason is written for:\n  " + "\n  ".join(unexplained))
    total = sum(count for (name, _), count in counts.items() if name == "speed")
    enough = counts["speed", MET] >= REQUIRED_SHARE * total and not counts["speed", NOT_RUN]
    return 0 if enough and not unexplained else 1


def _print_verdict(verdict: Verdict, row: str) -> None:
    job = "" if verdict.cell.job == row else f"{verdict.cell.job}: "
    print(f"  {verdict.state:<8} {job}{verdict.cell.wanted}; measured {verdict.shown or '-'}")
    if verdict.state == NOT_MET:
        print(textwrap.indent(textwrap.fill(verdict.cell.reason or "no reason is written", 96), " " * 11))


def _print_summary(counts: Counter[tuple[str, str]]) -> None:
    print()
    for name in dict.fromkeys(table for table, _ in counts):
        parts = ", ".join(f"{counts[name, state]} {state}" for state in (MET, NOT_MET, NOT_RUN))
        print(f"{name}: {parts}")
    for suite, run in load_runs().items():
        machine = run["machine"]
        python, commit = machine["python"], machine["commit"]
        print(f"  {suite:<14} of {machine['taken']}, commit {commit}, Python {python}")


if __name__ == "__main__":
    raise SystemExit(main())
