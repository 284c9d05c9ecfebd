"""Changes: what keeping them costs a writer, and how fast they are read."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.data import documents, name_of
from benchmarks.harness import Measured, Row, Timer, measure
from benchmarks.suites.postgres import handle, url
from isthmus import AsyncDatabase, Record

WRITTEN, READ = 10_000, 100_000


async def rows() -> AsyncIterator[Row]:
    """Run the rows of PostgreSQL and of SQLite; both prune while they run."""
    kept: dict[str, Any] = {"changes": True, "changes_keep": 30.0}
    connection = await asyncpg.connect(url())
    for name in ("bench_changes", "bench_none"):
        await connection.execute(f"DROP TABLE IF EXISTS {name}")
    with_changes, without = await handle("bench_changes", **kept), await handle("bench_none")

    async def empty(db: AsyncDatabase) -> None:
        await connection.execute(f"TRUNCATE {db.collection_name}")
        gc.collect()

    try:
        async for row in _rows("pg", with_changes, without, empty):
            yield row
    finally:
        await with_changes.drop_collection(with_changes.collection_name)
        await with_changes.close()
        await without.close()
        await connection.close()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with_changes = await AsyncDatabase.create("sqlite", {"path": str(path / "with"), **kept})
        without = await AsyncDatabase.create("sqlite", {"path": str(path / "without")})
        async for row in _rows("sqlite", with_changes, without, lambda db: db.clear()):
            yield row
        await with_changes.close()
        await without.close()


async def _rows(
    store: str,
    with_changes: AsyncDatabase,
    without: AsyncDatabase,
    empty: Callable[[AsyncDatabase], Awaitable[Any]],
) -> AsyncIterator[Row]:
    """Run the jobs of one store."""
    made = [Record(data, id=name_of(n)) for n, data in enumerate(documents(WRITTEN))]
    patches = [(record.id, {"score": 1.5}) for record in made if record.id is not None]

    def timed(db: AsyncDatabase, method: str) -> Callable[[], Awaitable[float]]:
        async def side() -> float:
            await empty(db)
            if method == "create_batch":
                with Timer() as timer:
                    await db.create_batch(made)
                return timer.seconds
            await db.create_batch(made)
            with Timer() as timer:
                await db.update_batch(patches)
            return timer.seconds

        return side

    for method in ("create_batch", "update_batch"):
        sides = {"ours": timed(with_changes, method), "without": timed(without, method)}
        yield await measure(f"{store} {method} {WRITTEN:,} with changes", sides)

    async def read() -> float:
        await empty(with_changes)
        async with with_changes.changes(poll=0.01) as changes:
            for start in range(0, READ, WRITTEN):
                await with_changes.create_batch(
                    [Record(record.data, id=f"{start}-{record.id}") for record in made]
                )
            count = 0
            with Timer() as timer:
                async for change in changes:
                    count += change.record is not None
                    if count == READ:
                        break
        return timer.seconds

    yield await measure(f"{store} read {READ:,} changes", {"ours": read}, derive=_pace)


def _pace(sides: Mapping[str, Measured]) -> dict[str, float]:
    median = sides["ours"].median
    return {} if median is None else {"microseconds a change": median / READ * 1e6}
