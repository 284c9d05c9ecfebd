"""Counts to fifty by `db.run`, in one process and in four, and prints what each store needed for it.

    python -m tests.lost_updates memory sqlite postgres18 --updates 50

Each update reads a number and writes the next one in a transaction. The store's last number is that of
the updates, or an update was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.lost_updates.counting import STORES, count_in_one, count_in_processes

PROCESSES = 4
HEAD = f"{'store':28}  {'processes':>9}  {'sum':>4}  {'attempts':>8}  {'seconds':>7}"


async def run(names: list[str], updates: int) -> int:
    """Print a row for each store and number of processes; return how many lost an update."""
    lost = 0
    print(HEAD)
    for name in names:
        counts = [(1, await count_in_one(name, updates))]
        if name != "memory":  # no other process sees a store in memory
            counts.append((PROCESSES, await count_in_processes(name, updates, PROCESSES)))
        for processes, count in counts:
            lost += count.total != updates
            print(
                f"{name:28}  {processes:9}  {count.total:4}  {count.attempts:8}  {count.seconds:7.3f}",
                flush=True,
            )
    print(f"{lost} lost updates" if lost else f"{updates} everywhere: no update was lost")
    return lost


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lost_updates")
    parser.add_argument("stores", nargs="*", metavar="STORE", help=", ".join(STORES))
    parser.add_argument("--updates", type=int, default=50)
    given = parser.parse_args()
    return asyncio.run(run(given.stores or list(STORES), given.updates))


if __name__ == "__main__":
    sys.exit(min(main(), 1))
