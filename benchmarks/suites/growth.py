"""Growth: time per record and memory from 10,000 to 1,000,000 records, on SQLite and PostgreSQL."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.data import document, name_of
from benchmarks.harness import Measured, Row, Timer, Verdict, resident, show
from isthmus import AsyncDatabase, Query, Record

SIZES = (10_000, 100_000, 1_000_000)
MOST = 1.5
MOST_MEGABYTES = 16.0


async def rows() -> AsyncIterator[Row]:
    """Run the growth of create_batch and of a stream on both stores."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "growth.db")
        yield await _grow("sqlite", await AsyncDatabase.create("sqlite", {"path": path}))
    url = os.environ["ISTHMUS_TEST_POSTGRES_URL"]
    yield await _grow("postgres", await AsyncDatabase.create("postgres", {"url": url, "table": "growth"}))


async def _grow(backend: str, db: AsyncDatabase) -> Row:
    per_record: dict[int, float] = {}
    memory: dict[int, float] = {}
    pages: dict[str, float] = {}
    for size in SIZES:
        await db.clear()
        rounds = 3 if size < SIZES[-1] else 1
        taken = []
        for _ in range(rounds):
            await db.clear()
            made = [Record(document(n), id=name_of(n)) for n in range(size)]
            gc.collect()
            with Timer() as timer:
                await db.create_batch(made)
            taken.append(timer.seconds)
        per_record[size] = min(taken) / size
        del made
        gc.collect()
        memory[size] = await _stream_memory(db, size)
    for name, at in (("first", 0), ("last", SIZES[-1] - 100)):
        query = Query().filter("_id", ">=", name_of(at)).limit(100)
        with Timer() as timer:
            assert len(await db.search(query)) == 100
        pages[f"{name} page of 100"] = timer.seconds
    await db.clear()
    await db.close()
    ratio = per_record[SIZES[-1]] / per_record[SIZES[0]]
    grown = memory[SIZES[-1]]
    row = Row(
        f"growth {backend}",
        {f"create_batch {size:,}, per record": Measured([seconds]) for size, seconds in per_record.items()}
        | {name: Measured([seconds]) for name, seconds in pages.items()},
        [
            Verdict("10,000", f"at most {MOST:g}x", ratio, "met" if ratio <= MOST else "not met"),
            Verdict(
                "start",
                f"at most {MOST_MEGABYTES:g} MB",
                grown,
                "met" if grown <= MOST_MEGABYTES else "not met",
            ),
        ],
        {"stream's memory above the start, MB": {f"{size:,}": round(mb, 1) for size, mb in memory.items()}},
    )
    show(row)
    return row


async def _stream_memory(db: AsyncDatabase, size: int) -> float:
    """Return the megabytes that a stream of all records takes at most above the start."""
    seen, peak = 0, 0
    start = resident()
    async for record in db.stream():
        seen += record.id is not None
        if seen % 5_000 == 0:
            peak = max(peak, resident())
    assert seen == size
    return max(0, peak - start) / 1e6
