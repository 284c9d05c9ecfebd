"""What importing and installing cost: ours in this interpreter, the rival in its own environment."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator

from benchmarks.harness import Measured, Row, show
from benchmarks.import_time import STATEMENT, compiling, core_install, probe
from benchmarks.rivals.client import PYTHON

ROUNDS = 15
RIVAL = "from dataknobs_data import AsyncDatabase, Query, Record"
PROBE = "import time, asyncio; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def _rival() -> float:
    """Return the seconds that importing the rival adds to `import asyncio`."""
    command = [str(PYTHON), "-W", "ignore", "-c", PROBE.format(RIVAL)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=compiling())
    return float(done.stdout.strip().splitlines()[-1])


async def rows() -> AsyncIterator[Row]:
    """Import both in turn in fresh interpreters, and install the core."""
    ours, rival, unwanted = Measured(), Measured(), set[str]()
    probe(STATEMENT)  # compiles what changed
    for turn in range(ROUNDS):
        milliseconds, loaded = probe(STATEMENT)
        ours.seconds.append(milliseconds / 1e3)
        unwanted |= set(loaded)
        if turn <= 5 and not rival.failure:
            try:
                seconds = _rival()
                if turn > 0:  # the first round compiles
                    rival.seconds.append(seconds)
            except (OSError, subprocess.CalledProcessError) as error:
                rival.failure = f"{type(error).__name__}: {error}"[:300]
    figures = {
        "ms on top of asyncio": (ours.median or 0) * 1e3,
        "unwanted modules loaded": float(len(unwanted)),
    }
    row = Row("import", {"ours": ours, "rival": rival}, figures=figures)
    show(row)
    yield row
    names, megabytes = core_install()
    figures = {"distributions besides isthmus": float(len(names)), "MB": megabytes}
    row = Row("core install", {}, {"distributions": ", ".join(names)}, figures)
    show(row)
    yield row
