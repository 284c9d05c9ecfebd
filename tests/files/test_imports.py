"""What reading files imports: pandas takes half a second and 40 MB, and Arrow likes to import it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

_PROGRAM = """
import asyncio, sys, traceback
from isthmus import AsyncDatabase, Query, field

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            traceback.print_stack()

async def main():
    sys.meta_path.insert(0, Finder())
    async with await AsyncDatabase.create("files", {"location": sys.argv[1]}) as db:
        async for record in db.stream():
            record.data
        for condition in (
            field("n") >= 3,
            field("n").in_([1, 2]),
            field("d") < 0.25,
            field("d") == 0.25,
            field("d").in_([0.5]),
            field("t") == "x1",
            field("t") > "x1",
            field("t").in_(["x1", "x2"]),
            field("b") == True,
            ~(field("n") == 1),
        ):
            assert 0 < await db.count(condition) < 1_000, condition
        assert len(await db.search(Query().filter("n", ">", 900).sort("d"))) == 99
        assert len(await db.aggregate(by="t", many="count", total=("sum", "n"), mean=("avg", "d"))) == 3
    assert "pandas" not in sys.modules

asyncio.run(main())
"""


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_queries_do_not_import_pandas(tmp_path: Path, format: str) -> None:
    """Nor do streams, sums and groups; it is installed here."""
    numbers = range(1_000)
    table = pa.table(
        {
            "n": numbers,
            "d": [n / 8 for n in numbers],
            "t": [f"x{n % 3}" for n in numbers],
            "b": [n % 2 == 0 for n in numbers],
        }
    )
    file = tmp_path / f"a.{format}"
    (pyarrow.csv.write_csv if format == "csv" else pq.write_table)(table, file)

    command = [sys.executable, "-c", _PROGRAM, str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
