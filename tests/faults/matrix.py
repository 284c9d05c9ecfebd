"""What each verb comes to under each fault on each backend: one table."""

from __future__ import annotations

from functools import cache

from isthmus.testing.proxy import Fault
from tests.faults.cells import DEADLINE, Outcome

MODES = ("once", "lasting")
"""`once`: the fault strikes once, and the handle retries. `lasting`: until the call has ended, no retries."""

LETTERS = {"answer": "A", "unavailable": "U", "doubt": "D", "late": "L", "late-doubt": "M"}
WORDS = {letter: word for word, letter in LETTERS.items()}

# Columns: CUT, CUT_SENT, LOSE_ANSWER, HALF_CLOSE, STALL, SLOW, REFUSE. A answer, U unavailable (nothing was
# done), D in doubt, L late (nothing was done), M late and in doubt; two letters: either, it is a race.
TABLE = """
postgres once
get                   A   A   A   A   A   A   A
get_batch             A   A   A   A   A   A   A
exists                A   A   A   A   A   A   A
search                A   A   A   A   A   A   A
find_one              A   A   A   A   A   A   A
count                 A   A   A   A   A   A   A
page                  A   A   A   A   A   A   A
stream                A   A   A   A   A   A   A
stream, sorted        A   A   A   A   A   A   A
changes               A   A   A   A   A   A   A
aggregate             A   A   A   A   A   A   A
create                A   A   A   A   A   A   A
create_batch          A   A   A   A   A   A   A
create_batch of 300   A   A   A   A   A   A   A
stream_write          A   A   A   A   A   A   A
create with an id     A   A   A   A   A   A   A
replace at a version  A   A   A   A   A   A   A
update at a version   A   A   A   A   A   A   A
upsert at a version   A   A   A   A   A   A   A
delete at a version   A   AD  AD  AD  A   A   AD
replace               D   D   D   D   A   A   D
update                D   D   D   D   A   A   D
upsert                D   D   D   D   A   A   D
delete                D   D   D   D   A   A   D
replace_batch         D   D   D   D   A   A   D
update_batch          D   D   D   D   A   A   D
upsert_batch          D   D   D   D   A   A   D
delete_batch          D   D   D   D   A   A   D
delete_where          D   D   D   D   A   A   D
clear                 D   D   D   D   A   A   D
transaction           U   U   U   U   A   A   U
postgres lasting
get                   U   U   U   U   L   A   U
get_batch             U   U   U   U   L   A   U
exists                U   U   U   U   L   A   U
search                U   U   U   U   L   A   U
find_one              U   U   U   U   L   A   U
count                 U   U   U   U   L   A   U
page                  U   U   U   U   L   A   U
stream                U   U   U   U   L   A   U
stream, sorted        U   U   U   U   L   A   U
changes               U   U   U   U   L   A   U
aggregate             U   U   U   U   L   A   U
create                D   D   D   D   M   A   D
create_batch          D   D   D   D   M   A   D
create_batch of 300   D   D   D   D   M   A   D
stream_write          D   D   D   D   M   A   D
create with an id     D   D   D   D   M   A   D
replace at a version  D   D   D   D   M   A   D
update at a version   D   D   D   D   M   A   D
upsert at a version   D   D   D   D   M   A   D
delete at a version   D   D   D   D   M   A   D
replace               D   D   D   D   M   A   D
update                D   D   D   D   M   A   D
upsert                D   D   D   D   M   A   D
delete                D   D   D   D   M   A   D
replace_batch         D   D   D   D   M   A   D
update_batch          D   D   D   D   M   A   D
upsert_batch          D   D   D   D   M   A   D
delete_batch          D   D   D   D   M   A   D
delete_where          D   D   D   D   M   A   D
clear                 D   D   D   D   M   A   D
transaction           U   U   U   U   L   A   U
elasticsearch once
get                   A   A   A   A   A   A   A
get_batch             A   A   A   A   A   A   A
exists                A   A   A   A   A   A   A
search                A   A   A   A   A   A   A
find_one              A   A   A   A   A   A   A
count                 A   A   A   A   A   A   A
page                  A   A   A   A   A   A   A
stream                A   A   A   A   A   A   A
stream, sorted        A   A   A   A   A   A   A
aggregate             A   A   A   A   A   A   A
create                A   A   A   A   A   A   A
create_batch          A   A   A   A   A   A   A
create_batch of 300   A   A   A   A   A   A   A
stream_write          A   A   A   A   A   A   A
create with an id     A   D   D   D   A   A   A
replace at a version  A   A   A   A   A   A   A
update at a version   A   A   A   A   A   A   A
upsert at a version   A   A   A   A   A   A   A
delete at a version   A   D   D   D   A   A   A
replace               A   A   A   A   A   A   A
update                A   A   A   A   A   A   A
upsert                A   A   A   A   A   A   A
delete                D   D   D   D   A   A   D
replace_batch         A   A   A   A   A   A   A
update_batch          A   A   A   A   A   A   A
upsert_batch          A   A   A   A   A   A   A
delete_batch          D   D   D   D   A   A   D
delete_where          A   A   A   A   A   A   A
clear                 A   A   A   A   A   A   A
elasticsearch lasting
get                   U   U   U   U   L   A   U
get_batch             U   U   U   U   L   A   U
exists                U   U   U   U   L   A   U
search                U   U   U   U   L   A   U
find_one              U   U   U   U   L   A   U
count                 U   U   U   U   L   A   U
page                  U   U   U   U   L   A   U
stream                U   U   U   U   L   A   U
stream, sorted        U   U   U   U   L   A   U
aggregate             U   U   U   U   L   A   U
create                D   D   D   D   M   A   D
create_batch          D   D   D   D   M   A   D
create_batch of 300   D   D   D   D   M   A   D
stream_write          D   D   D   D   M   A   D
create with an id     D   D   D   D   M   A   D
replace at a version  U   U   U   U   M   A   U
update at a version   U   U   U   U   M   A   U
upsert at a version   U   U   U   U   M   A   U
delete at a version   D   D   D   D   M   A   D
replace               U   U   U   U   M   A   U
update                U   U   U   U   M   A   U
upsert                U   U   U   U   M   A   U
delete                D   D   D   D   M   A   D
replace_batch         U   U   U   U   M   A   U
update_batch          U   U   U   U   M   A   U
upsert_batch          U   U   U   U   M   A   U
delete_batch          D   D   D   D   M   A   D
delete_where          U   U   U   U   M   A   U
clear                 U   U   U   U   M   A   U
s3-object once
get                   A   A   A   A   A   A   A
get_batch             A   A   A   A   A   A   A
exists                A   A   A   A   A   A   A
search                A   A   A   A   A   A   A
find_one              A   A   A   A   A   A   A
count                 A   A   A   A   A   A   A
page                  A   A   A   A   A   A   A
stream                A   A   A   A   A   A   A
stream, sorted        A   A   A   A   A   A   A
aggregate             A   A   A   A   A   A   A
create                A   A   A   A   A   A   A
create_batch          A   A   A   A   A   A   A
create_batch of 300   A   A   A   A   A   A   A
stream_write          A   A   A   A   A   A   A
create with an id     A   A   A   A   A   A   A
replace at a version  A   A   A   A   A   A   A
update at a version   A   A   A   A   A   A   A
upsert at a version   A   A   A   A   A   A   A
delete at a version   A   A   A   A   A   A   A
replace               A   A   A   A   A   A   A
update                A   A   A   A   A   A   A
upsert                A   A   A   A   A   A   A
delete                A   A   A   A   A   A   A
replace_batch         A   A   A   A   A   A   A
update_batch          A   A   A   A   A   A   A
upsert_batch          A   A   A   A   A   A   A
delete_batch          A   A   A   A   A   A   A
delete_where          A   A   A   A   A   A   A
clear                 A   A   A   A   A   A   A
s3-object lasting
get                   U   U   U   U   L   A   U
get_batch             U   U   U   U   L   A   U
exists                U   U   U   U   L   A   U
search                U   U   U   U   L   A   U
find_one              U   U   U   U   L   A   U
count                 U   U   U   U   L   A   U
page                  U   U   U   U   L   A   U
stream                U   U   U   U   L   A   U
stream, sorted        U   U   U   U   L   A   U
aggregate             U   U   U   U   L   A   U
create                D   D   D   D   M   A   D
create_batch          D   D   D   D   M   A   D
create_batch of 300   DM  DM  DM  DM  M   AM  D
stream_write          D   D   D   D   M   A   D
create with an id     D   D   D   D   M   A   D
replace at a version  U   U   U   U   M   A   U
update at a version   U   U   U   U   M   A   U
upsert at a version   U   U   U   U   M   A   U
delete at a version   U   U   U   U   M   A   U
replace               U   U   U   U   M   A   U
update                U   U   U   U   M   A   U
upsert                U   U   U   U   M   A   U
delete                U   U   U   U   M   A   U
replace_batch         U   U   U   U   M   A   U
update_batch          U   U   U   U   M   A   U
upsert_batch          U   U   U   U   M   A   U
delete_batch          U   U   U   U   M   A   U
delete_where          U   U   U   U   M   A   U
clear                 U   U   U   U   M   A   U
s3-log once
get                   A   A   A   A   A   A   A
get_batch             A   A   A   A   A   A   A
exists                A   A   A   A   A   A   A
search                A   A   A   A   A   A   A
find_one              A   A   A   A   A   A   A
count                 A   A   A   A   A   A   A
page                  A   A   A   A   A   A   A
stream                A   A   A   A   A   A   A
stream, sorted        A   A   A   A   A   A   A
changes               A   A   A   A   A   A   A
aggregate             A   A   A   A   A   A   A
create                A   A   A   A   A   A   A
create_batch          A   A   A   A   A   A   A
create_batch of 300   A   A   A   A   A   A   A
stream_write          A   A   A   A   A   A   A
create with an id     A   A   A   A   A   A   A
replace at a version  A   A   A   A   A   A   A
update at a version   A   A   A   A   A   A   A
upsert at a version   A   A   A   A   A   A   A
delete at a version   A   A   A   A   A   A   A
replace               A   A   A   A   A   A   A
update                A   A   A   A   A   A   A
upsert                A   A   A   A   A   A   A
delete                A   A   A   A   A   A   A
replace_batch         A   A   A   A   A   A   A
update_batch          A   A   A   A   A   A   A
upsert_batch          A   A   A   A   A   A   A
delete_batch          A   A   A   A   A   A   A
delete_where          A   A   A   A   A   A   A
clear                 A   A   A   A   A   A   A
s3-log lasting
get                   U   U   U   U   L   A   U
get_batch             U   U   U   U   L   A   U
exists                U   U   U   U   L   A   U
search                U   U   U   U   L   A   U
find_one              U   U   U   U   L   A   U
count                 U   U   U   U   L   A   U
page                  U   U   U   U   L   A   U
stream                U   U   U   U   L   A   U
stream, sorted        U   U   U   U   L   A   U
changes               U   U   U   U   L   A   U
aggregate             U   U   U   U   L   A   U
create                D   D   D   D   M   A   D
create_batch          D   D   D   D   M   A   D
create_batch of 300   D   D   D   D   M   A   D
stream_write          D   D   D   D   M   A   D
create with an id     D   D   D   D   M   A   D
replace at a version  D   D   D   D   M   A   D
update at a version   D   D   D   D   M   A   D
upsert at a version   D   D   D   D   M   A   D
delete at a version   D   D   D   D   M   A   D
replace               D   D   D   D   M   A   D
update                D   D   D   D   M   A   D
upsert                D   D   D   D   M   A   D
delete                D   D   D   D   M   A   D
replace_batch         D   D   D   D   M   A   D
update_batch          D   D   D   D   M   A   D
upsert_batch          D   D   D   D   M   A   D
delete_batch          D   D   D   D   M   A   D
delete_where          U   U   U   U   M   A   U
clear                 D   D   D   D   M   A   D
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
    if outcome.word.startswith("late") and outcome.seconds > DEADLINE * 2 + 1:
        # A search may be several operations, and each of a stream's pages is a call of its own.
        return f"the deadline was {DEADLINE} s, and it took {outcome.seconds:.1f} s"
    return None
