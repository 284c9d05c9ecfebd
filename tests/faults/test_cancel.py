"""Tasks cancelled at any await leave nothing behind: no session, no socket, no task, no place in a pool."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.faults.cancel import BACKENDS, run
from tests.seeds import drawn

CANCELS = int(os.environ.get("ISTHMUS_CANCELS", "150"))
# Other drivers and servers with `make test-all` and `make cancel`.
STORES = (
    BACKENDS
    if os.environ.get("ISTHMUS_TEST_ALL")
    else tuple(name for name in BACKENDS if name not in ("postgres-psycopg", "sqlalchemy-mariadb"))
)


@pytest.mark.skipif(sys.platform != "linux", reason="counts sockets in /proc")
@pytest.mark.breadth(2)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("backend", STORES)
def test_cancelled_calls_leave_nothing_behind(backend: str, loop: str, tmp_path: Path) -> None:
    """Calls of every class, cancelled once, several times and by a scope of anyio, at random awaits."""
    seed = drawn()

    result = run(backend, loop, CANCELS, tmp_path, seed)

    cancelled, calls = result.cancelled.total(), result.calls.total()
    print(f"{backend}: {calls} calls, {cancelled} cancelled on their way")
    # Memory hardly ever waits.
    assert cancelled > calls * 0.1 or backend == "memory", f"{cancelled} of {calls} were cancelled in time"
    assert not any(result.left.values()), f"left (seed {seed}): {result.left}"
