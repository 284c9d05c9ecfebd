"""Tables that others made, on PostgreSQL: ours, the same SQL by hand through asyncpg, and SQLAlchemy's ORM.

100,000 flights in typed columns with indexes of their own; each round asks a question 20 times.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.harness import OURS, Row, Side, Timer, measure
from isthmus import AsyncDatabase, Query, field
from sqlalchemy import BigInteger, DateTime, Integer, Numeric, Select, Text, func, select

TABLE = """
DROP TABLE IF EXISTS bench_flights;
CREATE TABLE bench_flights (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, carrier text NOT NULL, origin text NOT NULL,
  number integer NOT NULL, fare numeric(8, 2) NOT NULL, departure timestamptz NOT NULL, remark text);
INSERT INTO bench_flights (carrier, origin, number, fare, departure, remark)
SELECT (ARRAY['UA', 'DL', 'AA', 'B6'])[1 + n % 4], 'A' || n % 300, n % 5000, 50 + n % 40000 / 100.0,
  timestamptz '2026-01-01 00:00:00+00' + n * interval '31 seconds', repeat('on time ', 8)
FROM generate_series(1, 100000) AS n;
CREATE INDEX ON bench_flights (origin);
CREATE INDEX ON bench_flights (fare);
CREATE INDEX ON bench_flights (departure);
ANALYZE bench_flights;
"""
_TIMES = 20
_DAY = datetime(2026, 1, 20, tzinfo=UTC)


class Base(DeclarativeBase):
    """The declarative base."""


class Flight(Base):
    """A row of the table, as a user of the ORM declares it."""

    __tablename__ = "bench_flights"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    carrier: Mapped[str] = mapped_column(Text)
    origin: Mapped[str] = mapped_column(Text)
    number: Mapped[int] = mapped_column(Integer)
    fare: Mapped[Decimal] = mapped_column(Numeric(8, 2))
    departure: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    remark: Mapped[str | None] = mapped_column(Text)


_FARES = field("fare").between(100, 120)
SEARCHES: dict[str, tuple[Query, str, tuple[Any, ...], Select[Any]]] = {
    "search by equality": (
        Query(where=field("origin") == "A77"),
        "SELECT * FROM bench_flights WHERE origin = $1 ORDER BY id",
        ("A77",),
        select(Flight).where(Flight.origin == "A77").order_by(Flight.id),
    ),
    "search by range, first 500": (
        Query(where=field("departure") >= _DAY).sort("departure").limit(500),
        "SELECT * FROM bench_flights WHERE departure >= $1 ORDER BY departure, id LIMIT 500",
        (_DAY,),
        select(Flight).where(Flight.departure >= _DAY).order_by(Flight.departure, Flight.id).limit(500),
    ),
    "search by two conditions": (
        Query(where=_FARES & (field("carrier") == "UA")).limit(500),
        "SELECT * FROM bench_flights WHERE fare BETWEEN $1 AND $2 AND carrier = $3 ORDER BY id LIMIT 500",
        (Decimal(100), Decimal(120), "UA"),
        select(Flight)
        .where(Flight.fare.between(100, 120), Flight.carrier == "UA")
        .order_by(Flight.id)
        .limit(500),
    ),
}
COUNTS: dict[str, tuple[Query, str, tuple[Any, ...], Select[Any]]] = {
    "count by range": (
        Query(where=_FARES),
        "SELECT count(*) FROM bench_flights WHERE fare BETWEEN $1 AND $2",
        (Decimal(100), Decimal(120)),
        select(func.count()).select_from(Flight).where(Flight.fare.between(100, 120)),
    ),
    "count by text": (
        Query(where=field("remark").starts_with("on time") & (field("number") < 2_000)),
        "SELECT count(*) FROM bench_flights WHERE remark LIKE $1 AND number < $2",
        ("on time%", 2_000),
        select(func.count()).select_from(Flight).where(Flight.remark.like("on time%"), Flight.number < 2_000),
    ),
}


async def rows() -> AsyncIterator[Row]:
    """Run each search and count."""
    url = os.environ["ISTHMUS_TEST_POSTGRES_URL"]
    connection = await asyncpg.connect(url)
    await connection.execute(TABLE)
    engine = create_async_engine("postgresql+asyncpg" + url.removeprefix("postgresql"))
    db = await AsyncDatabase.create("postgres", {"url": url, "table": "bench_flights", "layout": "native"})
    try:
        for job, (query, text, args, statement) in SEARCHES.items():
            yield await measure(
                job,
                {
                    OURS: _side(lambda query=query: _length(db.search(query))),
                    "by hand": _side(lambda text=text, args=args: _length(connection.fetch(text, *args))),
                    "ORM": _side(lambda statement=statement: _orm(engine, statement)),
                },
            )
        for job, (query, text, args, statement) in COUNTS.items():
            yield await measure(
                job,
                {
                    OURS: _side(lambda query=query: db.count(query)),
                    "by hand": _side(lambda text=text, args=args: connection.fetchval(text, *args)),
                    "ORM": _side(lambda statement=statement: _orm_count(engine, statement)),
                },
            )
    finally:
        await db.close()
        await engine.dispose()
        await connection.execute("DROP TABLE bench_flights")
        await connection.close()


def _side(ask: Callable[[], Awaitable[int]]) -> Side:
    """Return the side that asks a question several times and wants the same answer each time."""
    answers: set[int] = set()

    async def side() -> float:
        with Timer() as timer:
            for _ in range(_TIMES):
                answers.add(await ask())
        if len(answers) != 1:
            raise AssertionError(f"different answers: {answers}")
        return timer.seconds / _TIMES

    return side


async def _length(found: Awaitable[Any]) -> int:
    return len(await found)


async def _orm(engine: AsyncEngine, statement: Select[Any]) -> int:
    async with AsyncSession(engine) as session:
        return len((await session.scalars(statement)).all())


async def _orm_count(engine: AsyncEngine, statement: Select[Any]) -> int:
    async with AsyncSession(engine) as session:
        return int((await session.scalars(statement)).one())
