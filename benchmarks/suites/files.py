"""Files: counts with a filter on 1,000,000 rows, against DuckDB, pandas and pyarrow; memory on a large CSV.

`ISTHMUS_BENCH_FILES_GB` is the size of the large CSV, 4 by default; it is written to /var/tmp and removed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.harness import Measured, Row, Timer, measure, show
from isthmus import AsyncDatabase, field
from isthmus.backends.files.facts import CACHE

ROWS = 1_000_000
CONDITION = (field("age") >= 50) & (field("city") == "Oslo")
SQL = "SELECT count(*) FROM '{}' WHERE age >= 50 AND city = 'Oslo'"
_LIMIT = 1 << 30
"""Bytes of data that the process of the large CSV may have; a file does not fit in."""
_MEMORY = """
import asyncio, re, resource, sys, time
from pathlib import Path
from isthmus import AsyncDatabase, field
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
async def main():
    db = await AsyncDatabase.create("files", {"location": sys.argv[1]})
    start = time.perf_counter()
    matching = await db.count((field("age") >= 50) & (field("city") == "Oslo"))
    counted = time.perf_counter()
    rows = 0
    async for record in db.stream():
        rows += 1
    print(matching, rows, counted - start, time.perf_counter() - counted)
    await db.close()
asyncio.run(main())
# Not ru_maxrss, in which Linux counts the memory of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""


def table_of(rows: int) -> pa.Table:
    """Return people, some fields of whom repeat."""
    random = np.random.default_rng(1)
    return pa.table(
        {
            "id": np.arange(rows),
            "name": [f"name {n % 5_000}" for n in range(rows)],
            "age": random.integers(0, 100, rows),
            "score": np.round(random.random(rows) * 100, 3),
            "city": [("Paris", "Oslo", "Bonn")[n % 3] for n in range(rows)],
            "active": random.random(rows) < 0.5,
        }
    )


def _count(table: pa.Table) -> int:
    mask = pc.and_(pc.greater_equal(table["age"], 50), pc.equal(table["city"], "Oslo"))
    return int(pc.sum(mask).as_py())


async def rows() -> AsyncIterator[Row]:
    """Run every row; all sides count the same rows of the same files."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        table = table_of(ROWS)
        pq.write_table(table, folder / "a.parquet", row_group_size=100_000)
        pa.csv.write_csv(table, folder / "a.csv")
        expected = _count(table)
        yield await _parquet(folder / "a.parquet", expected)
        yield await _csv(folder / "a.csv", expected, first=False)
        yield await _csv(folder / "a.csv", expected, first=True)
        yield await asyncio.to_thread(_memory, folder / "large.csv", table)


def _duckdb(file: Path, expected: int) -> Any:
    async def run() -> float:
        with Timer() as timer:
            assert duckdb.sql(SQL.format(file)).fetchall()[0][0] == expected
        return timer.seconds

    return run


async def _parquet(file: Path, expected: int) -> Row:
    db = await AsyncDatabase.create("files", {"location": str(file)})

    async def ours() -> float:
        with Timer() as timer:
            assert await db.count(CONDITION) == expected
        return timer.seconds

    async def arrow() -> float:
        with Timer() as timer:
            assert _count(pq.read_table(file, columns=["age", "city"])) == expected
        return timer.seconds

    sides = {"ours": ours, "duckdb": _duckdb(file, expected), "pyarrow": arrow}
    try:
        return await measure("files count with a filter, Parquet", sides)
    finally:
        await db.close()


async def _csv(file: Path, expected: int, *, first: bool) -> Row:
    db = await AsyncDatabase.create("files", {"location": str(file)})

    async def ours() -> float:
        if first:
            CACHE.forget()
            await db.close()
            await db.connect()
        with Timer() as timer:
            assert await db.count(CONDITION) == expected
        return timer.seconds

    async def arrow() -> float:
        with Timer() as timer:
            assert _count(pa.csv.read_csv(file)) == expected
        return timer.seconds

    async def frame() -> float:
        with Timer() as timer:
            read = pandas.read_csv(file)
            assert int(((read["age"] >= 50) & (read["city"] == "Oslo")).sum()) == expected
        return timer.seconds

    sides = {"ours": ours, "pyarrow": arrow, "duckdb": _duckdb(file, expected), "pandas": frame}
    try:
        job = f"files count with a filter, CSV, {'first' if first else 'second'} query"
        return await measure(job, sides)
    finally:
        await db.close()


def _memory(file: Path, table: pa.Table) -> Row:
    """Return the peak memory of a process that counts in and streams a CSV of some gigabytes."""
    size = int(float(os.environ.get("ISTHMUS_BENCH_FILES_GB", "4")) * 10**9)
    # Longer rows: a stream makes a record of each.
    table = table.append_column("note", pa.array([f"{n:0200}" for n in range(table.num_rows)]))
    copies = 0
    with file.open("wb") as stream, pa.csv.CSVWriter(stream, table.schema) as writer:
        while stream.tell() < size:
            writer.write(table)
            copies += 1
    try:
        command = [sys.executable, "-c", _MEMORY, str(file), str(_LIMIT)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        matching, streamed, counting, streaming, peak = done.stdout.split()
        assert (int(matching), int(streamed)) == (_count(table) * copies, table.num_rows * copies)
        sides = {"ours": Measured([float(counting)]), "ours, stream": Measured([float(streaming)])}
        row = Row("files CSV beyond memory", sides, {"bytes": size}, {"peak MB": int(peak) / 10**6})
        show(row)
        return row
    finally:
        file.unlink()
