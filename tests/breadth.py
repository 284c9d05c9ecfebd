"""What a run leaves to `make test-all`: cases of tests marked `breadth(n)`, all but one in n, and sizes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256


def size(default: int, whole: int) -> int:
    """Return how much a test does: `whole` in `make test-all`, `default` in `make test`."""
    return whole if os.environ.get("ISTHMUS_TEST_ALL") else default


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
