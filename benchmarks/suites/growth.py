"""Growth: time per record, pages, and memory from 1,000 to 1,000,000 records, on SQLite and PostgreSQL.

`ISTHMUS_BENCH_MOST=100000` ends earlier; the targets are those of a million.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from benchmarks.data import document, name_of
from benchmarks.harness import OURS, Measured, Row, Timer, run_rounds, show
from benchmarks.profile.memory import Store, measure_memory
from isthmus import AsyncDatabase, Query, Record

SIZES = (1_000, 10_000, 100_000, 1_000_000)
PAGE = 100


def sizes() -> list[int]:
    """Return the numbers of records to measure, ascending."""
    most = int(os.environ.get("ISTHMUS_BENCH_MOST", SIZES[-1]))
    return [size for size in SIZES if size <= most]


async def rows() -> AsyncIterator[Row]:
    """Run the growth on both stores; copies go into SQLite files."""
    with tempfile.TemporaryDirectory() as folder:
        for store in (
            ("sqlite", {"path": str(Path(folder) / "growth.db")}),
            ("postgres", {"url": os.environ["ISTHMUS_TEST_POSTGRES_URL"], "table": "growth"}),
        ):
            yield await _Growth(store, Path(folder)).row()


class _Growth:
    """One store with more and more records."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.creates: dict[int, Measured] = {}
        self.pages: dict[int, float] = {}
        self.stream: dict[int, dict[str, float]] = {}
        self.copy: dict[int, dict[str, float]] = {}

    async def row(self) -> Row:
        """Return the curves and the figures that have targets."""
        backend, config = self.store
        db = await AsyncDatabase.create(backend, config)
        for size in sizes():
            job = f"growth {backend}: create_batch {size:,}"
            self.creates[size] = await _measure_creates(job, db, size)
            self.pages[size] = await _compare_pages(db, size)
            self.stream[size] = await measure_memory("stream", self.store)
            target = str(self.folder / f"copy-{backend}-{size}.db")
            self.copy[size] = await measure_memory("copy", self.store, ("sqlite", {"path": target}))
            assert self.stream[size]["records"] == self.copy[size]["records"] == size
        await db.clear()
        await db.close()
        sides = {
            f"create_batch {size:,}, per record": Measured([s / size for s in made.seconds])
            for size, made in self.creates.items()
        }
        row = Row(f"growth {backend}", sides, self._notes(), self._figures())
        show(row)
        return row

    def _figures(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        least = {size: min(made.seconds) / size for size, made in self.creates.items()}
        for size, seconds in least.items():
            if size > 10_000:
                name = f"create_batch: time per record at {size:,} to 10,000"
                figures[name] = seconds / least[10_000]
            figures[f"stream of {size:,}: MB above the start"] = self.stream[size]["mb"]
            figures[f"copy of {size:,}: MB above the start"] = self.copy[size]["mb"]
            if size > 100_000:
                for job, found in (("stream", self.stream), ("copy", self.copy)):
                    name = f"{job}: MB more at {size:,} than at 100,000"
                    figures[name] = found[size]["mb"] - found[100_000]["mb"]
        figures["page of 100 at the end to one at the start"] = self.pages[max(self.pages)]
        return figures

    def _notes(self) -> dict[str, Any]:
        return {
            "page of 100 at the end to one at the start": {
                f"{size:,}": round(p, 2) for size, p in self.pages.items()
            },
            "stream, records a second": {
                f"{n:,}": round(n / found["seconds"]) for n, found in self.stream.items()
            },
            "copy to SQLite, records a second": {
                f"{n:,}": round(n / found["seconds"]) for n, found in self.copy.items()
            },
        }


async def _measure_creates(job: str, db: AsyncDatabase, size: int) -> Measured:
    """Return the seconds of create_batch into an empty collection, which holds the records at the end."""

    async def create() -> float:
        await db.clear()
        made = [Record(document(n), id=name_of(n)) for n in range(size)]
        gc.collect()
        with Timer() as timer:
            await db.create_batch(made)
        del made
        gc.collect()
        return timer.seconds

    rounds = 5 if size <= 10_000 else 3 if size <= 100_000 else 1
    return (await run_rounds(job, {OURS: create}, rounds=rounds, warm_up=False))[OURS]


async def _compare_pages(db: AsyncDatabase, size: int) -> float:
    """Return the time of a page at the end over that of one at the start: medians of alternating reads."""
    waits: dict[int, list[float]] = {0: [], size - PAGE: []}
    for _ in range(25):
        for start, seconds in waits.items():
            query = Query().filter("_id", ">=", name_of(start)).limit(PAGE)
            with Timer() as timer:
                assert len(await db.search(query)) == PAGE
            seconds.append(timer.seconds)
    first, last = (statistics.median(seconds) for seconds in waits.values())
    return last / first
