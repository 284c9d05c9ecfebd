"""What services write: a hot counter, and a change of many records by a condition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg

from benchmarks.harness import Measured, Row, Timer, measure
from benchmarks.suites.postgres import TABLE, handle, url
from isthmus import AsyncDatabase, field

TASKS, CALLS = 50, 20
RECORDS, CHANGED = 100_000, 10_000


async def rows() -> AsyncIterator[Row]:
    """Run both rows."""
    pool = await asyncpg.create_pool(url(), min_size=10, max_size=10)
    try:
        async for row in _counter(pool):
            yield row
        yield await _update_where(pool)
    finally:
        await pool.close()


async def _counter(pool: Any) -> AsyncIterator[Row]:
    """Add 1 to one record a thousand times, by fifty tasks."""
    await pool.execute("DROP TABLE IF EXISTS counter")
    await pool.execute("CREATE TABLE counter (id text PRIMARY KEY, n bigint)")
    await pool.execute("INSERT INTO counter VALUES ('hot', 0)")
    merged = await handle("bench_counter", pool={"max_size": 10})
    single = await handle("bench_counter", pool={"max_size": 10}, coalesce=False)
    await merged.create_batch([])
    await merged.upsert("hot", {"n": 0})
    change = field("n").inc(1)

    def of(db: AsyncDatabase) -> Callable[[], Awaitable[float]]:
        return lambda: _by_tasks(lambda: db.modify("hot", change))

    async def raw() -> float:
        return await _by_tasks(lambda: pool.execute("UPDATE counter SET n = n + 1 WHERE id = $1", "hot"))

    try:
        job = "pg modify (inc) of one record, 50 tasks"
        row = await measure(job, {"ours": of(merged), "asyncpg pool": raw}, derive=_rates)
        yield row
        yield await measure(f"{job}, not merged", {"ours": of(single), "asyncpg pool": raw}, derive=_rates)
    finally:
        await merged.close()
        await single.close()


async def _by_tasks(call: Callable[[], Awaitable[Any]]) -> float:
    async def task() -> None:
        for _ in range(CALLS):
            await call()

    with Timer() as timer:
        await asyncio.gather(*(task() for _ in range(TASKS)))
    return timer.seconds


def _rates(sides: Any) -> dict[str, float]:
    measured: dict[str, Measured] = sides
    return {
        f"{name}: calls per second": TASKS * CALLS / side.median
        for name, side in measured.items()
        if side.median
    }


async def _update_where(pool: Any) -> Row:
    """Add 1 to a field of every tenth record, found by another field."""
    db = await handle("bench_update")
    await db.create_batch([{"g": n % 10, "n": n, "name": f"name {n}"} for n in range(RECORDS)])
    await pool.execute(TABLE)
    await pool.execute("INSERT INTO bare (id, data) SELECT id, data FROM bench_update")

    async def ours() -> float:
        await pool.execute("VACUUM ANALYZE bench_update")
        with Timer() as timer:
            assert await db.update_where(field("g") == 3, field("n").inc(1)) == CHANGED
        return timer.seconds

    async def raw() -> float:
        await pool.execute("VACUUM ANALYZE bare")
        with Timer() as timer:
            await pool.execute(
                "UPDATE bare SET data = jsonb_set(data, '{n}', to_jsonb((data->>'n')::bigint + 1)),"
                " version = version + 1, updated_at = now() WHERE data->'g' = '3'"
            )
        return timer.seconds

    try:
        return await measure("pg update_where 10,000 of 100,000", {"ours": ours, "bare": raw})
    finally:
        await db.close()
