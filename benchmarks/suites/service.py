"""A web service on PostgreSQL: small searches alone, and 80 % gets, 15 % small searches, 5 % writes.

Ours, asyncpg's pool and SQLAlchemy's async ORM by pools of ten; each record is decoded.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol

import asyncpg
import orjson
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.data import document, name_of
from benchmarks.harness import Row, Side, compute_percentiles, measure, own_name
from isthmus import AsyncDatabase, Query, Record, field
from isthmus.testing.proxy import Fault, FaultProxy
from sqlalchemy import FetchedValue, select, update

STORED = 20_000
FOUND = 5
MIX = {1: 200, 10: 400, 50: 1_000, 200: 2_000}
SEARCHES = {1: 200, 50: 500}
DELAY = 0.002
OURS, BARE = own_name("service"), own_name("service_bare")
READ = "id, data, metadata, version, created_at, updated_at"
BY_GROUP = f"SELECT {READ} FROM {BARE} WHERE data->'team' = $1::jsonb ORDER BY id LIMIT {FOUND}"
TABLE = f"""
    CREATE TABLE {BARE} (id text PRIMARY KEY, data jsonb NOT NULL, metadata jsonb NOT NULL DEFAULT '{{}}',
        version bigint NOT NULL DEFAULT 1, created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        team int GENERATED ALWAYS AS ((data->>'team')::int) STORED);
    INSERT INTO {BARE} (id, data) SELECT id, data FROM "{OURS}";
    CREATE INDEX ON {BARE} ((data->'team'), id);
    CREATE INDEX ON {BARE} (team, id)
"""


class Store(Protocol):
    """The three calls; `n` is a record's number."""

    async def get(self, n: int) -> None:
        """Read record n."""
        ...

    async def search(self, n: int) -> None:
        """Find the five records of the team of record n."""
        ...

    async def write(self, n: int) -> None:
        """Change a field of record n."""
        ...


class Ours:
    """The calls on isthmus."""

    def __init__(self, db: AsyncDatabase) -> None:
        self.db = db

    async def get(self, n: int) -> None:
        """Read record n."""
        assert (await self.db.require(name_of(n)))["seq"] == n

    async def search(self, n: int) -> None:
        """Find the five records of a team."""
        team = n // FOUND + 1
        found = await self.db.search(Query().filter(field("team") == team).limit(FOUND))
        assert [record["team"] for record in found] == [team] * FOUND

    async def write(self, n: int) -> None:
        """Change a field."""
        await self.db.update(name_of(n), {"score": 1.25})


class Bare:
    """The calls by hand on asyncpg's pool."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    async def get(self, n: int) -> None:
        """Read record n."""
        row = await self.pool.fetchrow(f"SELECT {READ} FROM {BARE} WHERE id = $1", name_of(n))
        assert orjson.loads(row["data"])["seq"] == n

    async def search(self, n: int) -> None:
        """Find the five records of a team."""
        team = n // FOUND + 1
        rows = await self.pool.fetch(BY_GROUP, str(team))
        assert [orjson.loads(row["data"])["team"] for row in rows] == [team] * FOUND

    async def write(self, n: int) -> None:
        """Change a field."""
        await self.pool.execute(
            f"UPDATE {BARE} SET data = data || $2, version = version + 1, updated_at = now() WHERE id = $1",
            name_of(n),
            '{"score": 1.25}',
        )


class _Base(DeclarativeBase):
    pass


class _Item(_Base):
    __tablename__ = BARE
    id: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    team: Mapped[int] = mapped_column(FetchedValue())


class ORM:
    """The calls by SQLAlchemy's async ORM, a session for each."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    async def get(self, n: int) -> None:
        """Read record n."""
        async with AsyncSession(self.engine) as session:
            item = await session.get_one(_Item, name_of(n))
            assert item.data["seq"] == n

    async def search(self, n: int) -> None:
        """Find the five records of a team."""
        team = n // FOUND + 1
        statement = select(_Item).where(_Item.team == team).order_by(_Item.id).limit(FOUND)
        async with AsyncSession(self.engine) as session:
            items = (await session.scalars(statement)).all()
        assert [item.data["team"] for item in items] == [team] * FOUND

    async def write(self, n: int) -> None:
        """Change a field."""
        change = _Item.data.concat({"score": 1.25})
        async with AsyncSession(self.engine) as session, session.begin():
            await session.execute(update(_Item).where(_Item.id == name_of(n)).values(data=change))


async def rows() -> AsyncIterator[Row]:
    """Run the searches, those with a delay on the way, and the mix."""
    url = os.environ["ISTHMUS_TEST_POSTGRES_URL"]
    db = await _filled(url)
    connection = await asyncpg.connect(url)
    await connection.execute(TABLE)
    await connection.execute(f"VACUUM ANALYZE {BARE}")
    await connection.execute(f'VACUUM ANALYZE "{OURS}"')
    pool = await _pool(url)
    engine = _engine(url)
    prepared = await connection.prepare(BY_GROUP)

    async def ask_prepared(n: int) -> None:
        found = await prepared.fetch(str(n // FOUND + 1))
        assert len([orjson.loads(row["data"]) for row in found]) == FOUND

    sides = {"ours": _searches(Ours(db).search, 1), "prepared statement": _searches(ask_prepared, 1)}
    yield await measure(f"search of {FOUND} records, 1 task", sides)
    sides = {"ours": _searches(Ours(db).search, 50), "asyncpg pool": _searches(Bare(pool).search, 50)}
    yield await measure(f"search of {FOUND} records, 50 tasks", sides)
    yield await _delayed(url)
    for tasks, count in MIX.items():
        yield await _mix({"ours": Ours(db), "asyncpg pool": Bare(pool), "ORM": ORM(engine)}, tasks, count)
    await engine.dispose()
    await pool.close()
    await connection.execute(f"DROP TABLE {BARE}")
    await connection.close()
    await db.drop_collection(OURS)
    await db.close()


async def _filled(url: str) -> AsyncDatabase:
    db = await AsyncDatabase.create("postgres", {"url": url, "table": OURS, "indexes": ["team"]})
    await db.clear()
    data = ({**document(n), "team": n // FOUND + 1} for n in range(STORED))
    await db.create_batch([Record(item, id=name_of(n)) for n, item in enumerate(data)])
    return db


async def _pool(url: str) -> Any:
    return await asyncpg.create_pool(url, min_size=10, max_size=10)


def _engine(url: str) -> Any:
    asynchronous = url.replace("postgresql://", "postgresql+asyncpg://", 1)
    return create_async_engine(asynchronous, pool_size=10, max_overflow=0, pool_timeout=120)


async def _delayed(url: str) -> Row:
    """Measure searches of 50 tasks where each response is two milliseconds late."""
    host, _, port = url.rpartition("@")[2].partition("/")[0].partition(":")
    with FaultProxy(host, int(port)) as proxy:
        through = proxy.through(url)
        db = await AsyncDatabase.create("postgres", {"url": through, "table": OURS, "indexes": ["team"]})
        pool = await _pool(through)
        proxy.inject(Fault.SLOW, delay=DELAY)
        sides = {"ours": _searches(Ours(db).search, 50), "asyncpg pool": _searches(Bare(pool).search, 50)}
        row = await measure(f"search of {FOUND} records, 50 tasks, 2 ms of delay", sides)
        proxy.heal()
        await pool.close()
        await db.close()
    return row


def _searches(ask: Callable[[int], Awaitable[None]], tasks: int) -> Side:
    count = SEARCHES[tasks]

    async def side() -> float:
        seconds, _ = await _drive(((ask, n) for n in _numbers(count)), tasks)
        return seconds / count

    return side


def _numbers(count: int) -> Iterator[int]:
    return (i * 7_919 % STORED for i in range(count))


async def _drive(
    calls: Iterator[tuple[Callable[[int], Awaitable[None]], int]], tasks: int
) -> tuple[float, list[float]]:
    """Return the seconds that the tasks take for all calls, and the latencies."""
    latencies: list[float] = []

    async def worker() -> None:
        for call, n in calls:
            start = time.perf_counter()
            await call(n)
            latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(tasks)))
    return time.perf_counter() - start, latencies


async def _mix(stores: dict[str, Store], tasks: int, count: int) -> Row:
    waits: dict[str, list[float]] = {}

    def side_of(name: str, store: Store) -> Side:
        # Sixteen gets, three searches and a write of each twenty.
        turn = itertools.cycle([*[store.get] * 5, store.search] * 3 + [store.get, store.write])

        async def side() -> float:
            seconds, latencies = await _drive(zip(turn, _numbers(count), strict=False), tasks)
            waits.setdefault(name, []).extend(latencies)
            return seconds / count

        return side

    sides = {name: side_of(name, store) for name, store in stores.items()}
    row = await measure(f"web mix 80/15/5, {tasks} task" + "s" * (tasks > 1), sides, rounds=3)
    row.latencies = {name: compute_percentiles(found) for name, found in waits.items()}
    return row
