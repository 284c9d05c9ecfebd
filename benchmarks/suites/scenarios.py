"""Scenarios on PostgreSQL: a web service's mix of calls, a batch job, and a store that fails for a while."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson

from benchmarks.data import document, name_of
from benchmarks.harness import Row, Side, comparing, measure
from benchmarks.rivals.client import Rival
from benchmarks.suites import batch_job, outage
from benchmarks.suites.postgres import COLUMNS, TABLE
from benchmarks.suites.web_mix import Store, drive
from isthmus import AsyncDatabase, Query, Record, field

STORED = 10_000
CALLS = {1: 600, 10: 1_500, 50: 3_000}
INDEX = "CREATE INDEX ON bare ((data->'seq'), id); ANALYZE bare"
FRESH = itertools.count(STORED)
COLUMNS_READ = "id, data, metadata, version, created_at, updated_at"


async def rows() -> AsyncIterator[Row]:
    """Run every scenario."""
    url = os.environ["ISTHMUS_TEST_POSTGRES_URL"]
    rival = Rival()
    pool = await asyncpg.create_pool(url, min_size=10, max_size=10)
    config = {"url": url, "table": "scenario", "indexes": ["seq"]}
    db = await AsyncDatabase.create("postgres", config)
    try:
        await _fill(db, pool)
        for tasks, count in CALLS.items():
            yield await _web(Ours(db), Bare(pool), rival, tasks, count)
        yield await batch_job.row(url, pool, rival)
        if not comparing():  # it has no duration to compare
            async for row in outage.rows(url):
                yield row
    finally:
        await db.clear()
        await db.close()
        await pool.close()
        await rival.close()


async def _fill(db: AsyncDatabase, pool: Any) -> None:
    await db.clear()
    await db.create_batch([Record(document(n), id=name_of(n)) for n in range(STORED)])
    encoded = [(name_of(n), orjson.dumps(document(n)).decode()) for n in range(STORED)]
    async with pool.acquire() as connection:
        await connection.execute(TABLE)
        await connection.copy_records_to_table("bare", records=encoded, columns=COLUMNS)
        await connection.execute(INDEX)
        await connection.execute("VACUUM ANALYZE scenario")


class Ours:
    """The web mix on isthmus; each record is decoded."""

    def __init__(self, db: AsyncDatabase) -> None:
        self.db = db

    async def get(self, n: int) -> None:
        """Read one record."""
        assert (await self.db.require(name_of(n)))["seq"] == n

    async def search(self, n: int) -> None:
        """Find twenty of a hundred, in order."""
        found = await self.db.search(Query().filter(field("seq").between(n, n + 99)).sort("seq").limit(20))
        assert [record["seq"] for record in found] == list(range(n, n + 20))

    async def update(self, n: int) -> None:
        """Change a field."""
        await self.db.update(name_of(n), {"score": 1.25})

    async def create(self, n: int) -> None:
        """Create a record."""
        await self.db.create(Record(document(n)))


class Bare:
    """The web mix by hand on asyncpg's own pool."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.fresh = FRESH

    async def get(self, n: int) -> None:
        """Read one record."""
        row = await self.pool.fetchrow(f"SELECT {COLUMNS_READ} FROM bare WHERE id = $1", name_of(n))
        assert orjson.loads(row["data"])["seq"] == n

    async def search(self, n: int) -> None:
        """Find twenty of a hundred, in order."""
        statement = (
            f"SELECT {COLUMNS_READ} FROM bare WHERE data->'seq' BETWEEN $1::jsonb AND $2::jsonb"
            " ORDER BY data->'seq', id LIMIT 20"
        )
        found = await self.pool.fetch(statement, str(n), str(n + 99))
        assert [orjson.loads(row["data"])["seq"] for row in found] == list(range(n, n + 20))

    async def update(self, n: int) -> None:
        """Change a field."""
        statement = (
            "UPDATE bare SET data = data || $2, version = version + 1, updated_at = now() WHERE id = $1"
        )
        await self.pool.execute(statement, name_of(n), '{"score": 1.25}')

    async def create(self, n: int) -> None:
        """Create a record."""
        values = f"new-{next(self.fresh)}", orjson.dumps(document(n)).decode()
        await self.pool.execute("INSERT INTO bare (id, data) VALUES ($1, $2)", *values)


async def _web(ours: Store, bare: Store, rival: Rival, tasks: int, count: int) -> Row:
    waits: dict[str, list[dict[str, float]]] = {}

    def web_side(name: str, store: Store) -> Side:
        async def side() -> float:
            seconds, found = await drive(store, count, tasks, STORED)
            waits.setdefault(name, []).append(found)
            return seconds

        return side

    async def rivals() -> float:
        answer = await rival.request("web", backend="postgres", n=count, tasks=tasks, stored=STORED)
        waits.setdefault("rival", []).append(answer["latencies"])
        return float(answer["seconds"])

    sides: dict[str, Side] = {"ours": web_side("ours", ours), "asyncpg pool": web_side("asyncpg pool", bare)}
    name = f"web mix, {tasks} task" + "s" * (tasks > 1)
    row = await measure(name, {**sides, "rival": rivals}, rounds=3, notes={"calls": count})
    # The first round warmed up.
    row.latencies = {side: _medians(found[1:]) for side, found in waits.items() if len(found) > 1}
    for side, found in row.latencies.items():
        print(f"  {side:<14} " + ", ".join(f"{p} {wait * 1e3:.2f} ms" for p, wait in found.items()))
    return row


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
