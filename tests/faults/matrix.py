"""What each verb comes to under each fault on each backend: one table."""

from __future__ import annotations

from functools import cache

from isthmus.testing.proxy import Fault
from tests.faults.cells import DEADLINE, Outcome

MODES = ("once", "lasting")
"""`once`: the fault strikes once, and the handle retries. `lasting`: until the call has ended, no retries."""

LETTERS = {"answer": "A", "unavailable": "U", "doubt": "D", "late": "L", "late-doubt": "M"}
WORDS = {letter: word for word, letter in LETTERS.items()}

TABLE = """
"""


@cache
def _rows() -> dict[tuple[str, str, str], list[str]]:
    rows: dict[tuple[str, str, str], list[str]] = {}
    backend = mode = ""
    for line in TABLE.strip().splitlines():
        if line.split()[-1:] and line.split()[-1] in MODES:
            backend, mode = line.split()
        elif line.strip():
            rows[backend, mode, line[:22].strip()] = line[22:].split()
    return rows


def expected(backend: str, mode: str, verb: str, fault: Fault) -> set[str]:
    """Return the words that a cell may come to."""
    cells = _rows().get((backend, mode, verb))
    return {WORDS[letter] for letter in cells[list(Fault).index(fault)]} if cells else set()


def wrong(outcome: Outcome, allowed: set[str], *, write: bool = False) -> str | None:
    """Return what is wrong with a cell: its word, a lie, a fault that did not strike, or the time."""
    if outcome.word not in allowed and not write:
        return f"expected {' or '.join(sorted(allowed))}, came to {outcome}"
    if outcome.word == "hangs":
        return str(outcome)
    if outcome.lies:
        return f"{outcome.word} is not true: {outcome.lies} ({outcome.error})"
    if outcome.fired < 1:
        return "the fault did not strike"
    if outcome.word.startswith("late") and outcome.seconds > DEADLINE * 4 + 1:
        return f"the deadline was {DEADLINE} s, and it took {outcome.seconds:.1f} s"
    return None
