"""`isthmus load` of a CSV file: against COPY of the same bytes by hand, pandas.to_sql and sqlite-utils.

`ISTHMUS_BENCH_LOAD_ROWS` is the number of rows, 1,000,000 by default. The commands are processes of their
own, so that their start counts; COPY by hand is timed alone.
"""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
from tests import servers

from benchmarks.harness import Row, Timer, measure

ROWS = int(os.environ.get("ISTHMUS_BENCH_LOAD_ROWS", "1000000"))
_PANDAS = """
import sqlite3, sys
import pandas
connection = sqlite3.connect(sys.argv[2])
pandas.read_csv(sys.argv[1]).to_sql("rows", connection, index=False)
connection.close()
"""
# Not ru_maxrss, in which Linux counts the memory of the process that started this one.
_OURS = """
import re, sys
from pathlib import Path
from isthmus.cli._main import run
code = run(["load", *sys.argv[1:]])
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000)
sys.exit(code)
"""


def write_file(path: Path) -> None:
    """Write people as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["code", "number", "name", "city", "price", "open", "note"])
        for n in range(ROWS):
            city = ("Oslo", "Rome", "Bonn")[n % 3]
            note = f"a note that is somewhat longer than the others, {n % 977}"
            writer.writerow([f"c{n}", n, f"Name of {n}", city, n + 0.25, ("true", "false")[n % 2], note])


async def rows() -> AsyncIterator[Row]:
    """Run every row."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        file = Path(name, "people.csv")
        write_file(file)
        yield await _sqlite(file)
        yield await _postgres(file)


async def _run(command: list[str]) -> tuple[float, str]:
    with Timer() as timer:
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return timer.seconds, done.stdout


def _peak(peaks: list[float]) -> Any:
    def derive(_: Any) -> dict[str, float]:
        return {"peak MB": max(peaks)}

    return derive


async def _sqlite(file: Path) -> Row:
    target = file.with_suffix(".db")
    peaks: list[float] = []

    async def run(*command: str) -> tuple[float, str]:
        for old in target.parent.glob(f"{target.name}*"):
            old.unlink()
        return await _run(list(command))

    async def ours() -> float:
        seconds, out = await run(sys.executable, "-c", _OURS, f"sqlite:///{target}", str(file))
        peaks.append(float(out.splitlines()[-1]))
        return seconds

    async def frame() -> float:
        return (await run(sys.executable, "-c", _PANDAS, str(file), str(target)))[0]

    async def utils() -> float:
        command = shutil.which("sqlite-utils", path=str(Path(sys.executable).parent))
        assert command is not None, "sqlite-utils is not installed"
        return (await run(command, "insert", str(target), "rows", str(file), "--csv", "--silent"))[0]

    sides = {"ours": ours, "pandas": frame, "sqlite-utils": utils}
    return await measure("load CSV into sqlite", sides, rounds=3, warm_up=False, derive=_peak(peaks))


async def _postgres(file: Path) -> Row:
    url = servers.find("postgres").url
    copied = file.with_suffix(".copy")
    peaks: list[float] = []

    async def ours() -> float:
        connection = await asyncpg.connect(url)
        await connection.execute("DROP TABLE IF EXISTS loaded")
        seconds, out = await _run([sys.executable, "-c", _OURS, f"{url}?table=loaded", str(file)])
        peaks.append(float(out.splitlines()[-1]))
        if not copied.exists():
            await connection.copy_from_table("loaded", output=copied)
        await connection.close()
        return seconds

    async def by_hand() -> float:
        connection = await asyncpg.connect(url)
        await connection.execute("DROP TABLE IF EXISTS copied")
        await connection.execute("CREATE TABLE copied (LIKE loaded INCLUDING ALL)")
        with Timer() as timer:
            await connection.copy_to_table("copied", source=copied)
        await connection.close()
        return timer.seconds

    sides = {"ours": ours, "COPY": by_hand}
    return await measure("load CSV into pg", sides, rounds=3, warm_up=False, derive=_peak(peaks))
