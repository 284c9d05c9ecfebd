"""Runs the planted cases, each on a copy of its own: `make test-ci`.

`python -m tests.ci flaky` runs only those whose names have this word. Exit code 1 unless `.ci/run` ended
each as it must, for the reason that was planted, and runs the whole suite by default.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial

from tests.ci import whole
from tests.ci.cases import CASES, Case
from tests.ci.project import copied


def _faults(case: Case) -> list[str]:
    """Run one case and return what was wrong about its end."""
    with copied() as project:
        case.plant(project)
        if not case.checks:
            project.leave_out_checks()
        ended = project.run_ci()
    found = [] if (ended.code == 0) == case.green else [f"exit code {ended.code}"]
    found += [f"does not say {text!r}" for text in case.says if text not in ended.output]
    found += [f"says {text!r}" for text in case.never_says if text in ended.output]
    return [ended.output, *found] if found else []


def main(words: Sequence[str]) -> int:
    """Run the cases whose names have these words, print a line each, and return the exit code."""
    begun = time.monotonic()
    checks = {f"{'green' if case.green else 'red'}: {case.name}": partial(_faults, case) for case in CASES}
    checks["the default is the whole suite"] = whole.faults
    chosen = {name: check for name, check in checks.items() if all(word in name for word in words)}
    wrong = 0
    for name, check in chosen.items():
        started = time.monotonic()
        found = check()
        wrong += bool(found)
        seconds = time.monotonic() - started
        print("\n".join([*found, f"{'WRONG' if found else 'ok'} {seconds:5.1f} s  {name}"]), flush=True)
    print(f"{wrong} wrong of {len(chosen)}, {time.monotonic() - begun:.0f} s")
    return int(wrong > 0 or not chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
