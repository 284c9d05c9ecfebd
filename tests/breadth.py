"""Which cases of a test marked `breadth(n)` a run leaves to `make test-all`: all but one in n, by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256


def left_out(shares: Mapping[str, int], *, seed: str) -> set[str]:
    """Return the ids of the cases that are left out; `shares` has the n of each case's marker by its id.

    Of the cases of each test that have the same n one in n stays, rounded up: a case that is named on the
    command line runs. The workers of one run agree, whatever their hash seeds.
    """
    tests: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for nodeid, share in shares.items():
        tests[nodeid.partition("[")[0], share].append(nodeid)
    dropped: set[str] = set()
    for (_, share), cases in tests.items():
        cases.sort(key=lambda nodeid: sha256(f"{seed} {nodeid}".encode()).digest())
        dropped.update(cases[-(-len(cases) // share) :])
    return dropped
