"""The cost of importing and installing: ours in this interpreter, the rival in its own environment."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Mapping

from benchmarks.harness import Measured, Row, measure, show
from benchmarks.rivals.client import PYTHON
from benchmarks.suites.import_time import STATEMENT, core_install, environment, probe

ROUNDS = 15
RIVAL = "from dataknobs_data import AsyncDatabase, Query, Record"
PROBE = "import time, asyncio; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


async def rows() -> AsyncIterator[Row]:
    """Import both in turn in fresh interpreters, and install the core."""
    unwanted: set[str] = set()

    async def ours() -> float:
        milliseconds, loaded = probe(STATEMENT)
        unwanted.update(loaded)
        return milliseconds / 1e3

    async def rival() -> float:
        """Return the seconds that importing the rival adds to `import asyncio`."""
        command = [str(PYTHON), "-W", "ignore", "-c", PROBE.format(RIVAL)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
        return float(done.stdout.strip().splitlines()[-1])

    def derive(sides: Mapping[str, Measured]) -> dict[str, float]:
        return {
            "ms on top of asyncio": (sides["ours"].median or 0) * 1e3,
            "unwanted modules loaded": float(len(unwanted)),
        }

    yield await measure("import", {"ours": ours, "rival": rival}, rounds=ROUNDS, derive=derive)
    names, megabytes = core_install()
    figures = {"distributions besides isthmus": float(len(names)), "MB": megabytes}
    row = Row("core install", {}, {"distributions": ", ".join(names)}, figures)
    show(row)
    yield row
