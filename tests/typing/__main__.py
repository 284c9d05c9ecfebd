"""Print what mypy, pyright and ty find in the programs; exit 1 unless it is as expected.

Every right program has to be green in all three. A wrong one has to be red where its comment says so;
one that a checker lets through is refused when it runs, which tests/typing/test_programs.py checks.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.typing.checkers import CHECKERS, Found
from tests.typing.completion import complete
from tests.typing.models import Person
from tests.typing.programs import RIGHT, WRONG, Program
from tests.typing.wide import FIELDS, write_wide_model

HERE = Path(__file__).parent
RIGHT_FILE, WRONG_FILE = HERE / "right_programs.py", HERE / "wrong_programs.py"
# pyrightconfig.json lists the same.
GREEN = [HERE / "public_api.py", HERE / "models.py", HERE.parents[1] / "examples" / "orders.py", RIGHT_FILE]
SECONDS = {"mypy": 30.0, "pyright": 30.0, "ty": 10.0}
"""The most processor time that a checker may take for the model of 300 fields."""


def main() -> int:
    """Run the checkers and print the table; return 1 if something is not as expected."""
    with ThreadPoolExecutor(2) as pool:  # each is a process of its own
        offered = pool.submit(complete)
        runs = {name: pool.submit(run, [*GREEN, WRONG_FILE]) for name, run in CHECKERS.items()}
        found = {name: future.result() for name, future in runs.items()}
    faults = [
        *_print_right(found),
        *_print_wrong(found),
        *_print_wide(),
        *_print_completion(offered.result()),
    ]
    for fault in faults:
        print(f"not as expected: {fault}")
    return 1 if faults else 0


def _red(program: Program, found: dict[str, Found], file: str) -> tuple[str, ...]:
    return tuple(name for name, result in found.items() if program.is_red(result.lines.get(file, set())))


def _print_right(found: dict[str, Found]) -> list[str]:
    """Print how many right programs are green; return the faults of every file but that of the wrong ones."""
    print(f"{'programs':34} {'':8} " + " ".join(f"{name:>8}" for name in found))
    green = {name: sum(name not in _red(p, found, RIGHT_FILE.name) for p in RIGHT) for name in found}
    print(f"{f'right: {len(RIGHT)}':34} {'green':>8} " + " ".join(f"{n:8}" for n in green.values()))
    return [
        line.strip()
        for result in found.values()
        for line in result.text.splitlines()
        if "error" in line and any(f"{file.name}:" in line for file in GREEN)
    ]


def _print_wrong(found: dict[str, Found]) -> list[str]:
    """Print how many wrong programs are red, and those that are not red everywhere."""
    red = {program.name: _red(program, found, WRONG_FILE.name) for program in WRONG}
    counts = {name: sum(name in names for names in red.values()) for name in found}
    everywhere = sum(len(names) == len(found) for names in red.values())
    print(f"{f'wrong: {len(WRONG)}':34} {'red':>8} " + " ".join(f"{n:8}" for n in counts.values()))
    print(f"{'':34} {'in all':>8} {everywhere:8}")
    print(
        f"\n{'wrong, and not red everywhere':43} "
        + " ".join(f"{name:>8}" for name in found)
        + "   at run time"
    )
    for program in WRONG:
        names = red[program.name]
        if len(names) < len(found):
            cells = " ".join(f"{'red' if name in names else 'green':>8}" for name in found)
            print(f"{program.name:43} {cells}   {'refused' if program.refused else ''}")
    faults = [
        f"{program.name} is green in {name}"
        for program in WRONG
        for name in program.red
        if name not in red[program.name]
    ]
    faults += [
        f"{program.name} is let through and not refused"
        for program in WRONG
        if len(red[program.name]) < len(found) and not program.refused
    ]
    return faults


def _print_wide() -> list[str]:
    """Print how long a model of 300 fields takes each checker, and return who takes too long."""
    faults = []
    print(f"\n{FIELDS} fields, {FIELDS} lambdas: processor seconds")
    with tempfile.TemporaryDirectory() as folder:
        path = write_wide_model(Path(folder))
        for name, run in CHECKERS.items():
            result = run([path])
            print(f"{name:8} {result.seconds:5.1f}, at most {SECONDS[name]:.0f}")
            if result.lines:
                faults.append(f"{name} finds fault with the wide model: {result.text[:500]}")
            if result.seconds > SECONDS[name]:
                faults.append(f"{name} takes {result.seconds:.1f} s for the wide model")
    return faults


def _print_completion(offered: dict[str, list[str]]) -> list[str]:
    """Print how many fields and methods an editor offers; return those that are missing."""
    expected = {"p.": list(Person.model_fields), "f(p.name).": ["eq", "in_", "between", "like", "contains"]}
    missing = [
        f"{place}{name}" for place, names in expected.items() for name in names if name not in offered[place]
    ]
    fields = sum(name in offered["p."] for name in Person.model_fields)
    print(
        f"\ncompletion after `p.`: {fields} of {len(Person.model_fields)} fields; after `f(p.name).`: methods"
    )
    return [f"an editor does not offer {name}" for name in missing]


if __name__ == "__main__":
    sys.exit(main())
