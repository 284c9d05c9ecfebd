"""Runs the fault matrix, or a part of it, and prints it: `make faults`.

`--write` prints the table as it was found, to be reviewed and put into `matrix.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter

from isthmus.testing.proxy import Fault
from tests.faults.cells import Bench, Outcome
from tests.faults.matrix import LETTERS, MODES, expected, wrong
from tests.faults.targets import TARGETS
from tests.faults.verbs import VERBS, Verb


async def run(name: str, *, write: bool) -> tuple[Counter[str], list[str]]:
    """Run all cells of one backend; return the counts of words, and what is not as expected."""
    words: Counter[str] = Counter()
    failures: list[str] = []
    target = TARGETS[name]
    found: dict[tuple[str, str], dict[Fault, Outcome]] = {}
    with target.proxy() as proxy:
        async with Bench(target, proxy) as bench:
            for mode in MODES:
                for fault in Fault:
                    for verb in VERBS.values():
                        if not possible(bench, verb):
                            continue
                        outcome = await bench.cell(verb, fault, lasting=mode == "lasting")
                        words[outcome.word] += 1
                        found.setdefault((mode, verb.name), {})[fault] = outcome
                        problem = wrong(outcome, expected(name, mode, verb.name, fault), write=write)
                        if problem:
                            failures.append(f"{name} / {mode} / {verb.name} / {fault.name}: {problem}")
    if write:
        for mode in MODES:
            print(f"{name} {mode}")
            for verb_name in VERBS:
                row = found.get((mode, verb_name))
                if row:
                    print(f"{verb_name:22}" + " ".join(LETTERS.get(row[f].word, "?").ljust(3) for f in Fault))
    return words, failures


def possible(bench: Bench, verb: Verb) -> bool:
    """Return whether a backend has the verb at all."""
    capabilities = bench.direct.capabilities
    if verb.kind == "changes":
        return capabilities.changes
    return verb.kind != "transaction" or capabilities.transactions


def main() -> int:
    """Run and print; 1 if a cell is not as expected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backends", nargs="*", default=list(TARGETS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    begun = time.monotonic()
    bad = 0
    for name in options.backends:
        started = time.monotonic()
        words, failures = asyncio.run(run(name, write=options.write))
        bad += len(failures)
        counted = ", ".join(f"{count} {word}" for word, count in sorted(words.items()))
        print(
            f"{name}: {sum(words.values())} cells, {len(failures)} not as expected"
            f" ({counted}) in {time.monotonic() - started:.0f} s",
            flush=True,
        )
        for failure in failures:
            print(f"  {failure}"[:500])
    print(f"all: {bad} not as expected, {time.monotonic() - begun:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
