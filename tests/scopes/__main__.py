"""`python -m tests.scopes sqlite --attempts 5000`: tenants try each other's records; none may succeed."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter

from tests.scopes.attempts import run_attempts
from tests.stores import store_of


def main() -> int:
    """Run the attempts on each store; print how many of each method, and return 1 if one succeeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", default=["memory", "sqlite"])
    parser.add_argument("--attempts", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    failed = False
    for name in options.stores:
        made: Counter[str] = Counter()
        leaks = asyncio.run(run_attempts(store_of(name), options.attempts, options.seed, made))
        total = f"{made.total()} attempts by {len(made)} methods"
        print(f"{name} seed={options.seed}: {total}, {len(leaks)} succeeded")
        print("  " + ", ".join(f"{method} {count}" for method, count in sorted(made.items())))
        for leak in leaks[:20]:
            print(f"  {leak}")
        failed |= bool(leaks)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
