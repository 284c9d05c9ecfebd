"""Compares the stored measurements with the targets: each row met, not met or not run; `make bench-check`."""

from __future__ import annotations

import textwrap
from collections import Counter

from benchmarks.targets import MET, NOT_MET, NOT_RUN, state_of, stored_rows, stored_runs, targets

SHARE = 0.9


def main() -> int:
    """Print each target.

    Returns 0 if every row of the speed table was run, nine in ten of them are met, and a reason is
    written beside each target that is not.
    """
    stored = stored_rows()
    counts: Counter[tuple[str, str]] = Counter()
    table, unexplained = "", []
    for row in targets():
        if row.table != table:
            table = row.table
            print(f"\n{table}")
        verdicts = row.judged(stored)
        state = state_of(verdicts)
        counts[table, state] += 1
        print(f"{state:<8} {row.name}")
        for verdict in verdicts:
            job = "" if verdict.cell.job == row.name else f"{verdict.cell.job}: "
            shown = verdict.shown or "-"
            print(f"  {verdict.state:<8} {job}{verdict.cell.wanted}; measured {shown}")
            if verdict.state == NOT_MET:
                print(
                    textwrap.indent(
                        textwrap.fill(verdict.cell.reason or "no reason is written", 96), " " * 11
                    )
                )
                if not verdict.cell.reason:
                    unexplained.append(f"{verdict.cell.job}, {verdict.cell.wanted}")
    print()
    for name in dict.fromkeys(table for table, _ in counts):
        parts = ", ".join(f"{counts[name, state]} {state}" for state in (MET, NOT_MET, NOT_RUN))
        print(f"{name}: {parts}")
    for suite, run in stored_runs().items():
        machine = run["machine"]
        python, commit = machine["python"], machine["commit"]
        print(f"  {suite:<14} of {machine['taken']}, commit {commit}, Python {python}")
    if unexplained:
        print("no reason is written for:\n  " + "\n  ".join(unexplained))
    total = sum(count for (name, _), count in counts.items() if name == "speed")
    good = counts["speed", MET] >= SHARE * total and not counts["speed", NOT_RUN] and not unexplained
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
