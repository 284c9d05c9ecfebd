"""The questions as users of SQLAlchemy's ORM write them, on typed columns."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.questions.asked import NAMES, PATTERN
from sqlalchemy import JSON, BigInteger, Text, any_, exists, func, literal, select


class Base(DeclarativeBase):
    """The declarative base."""


class City(Base):
    """A row of the typed table; the rest of the record is in one column."""

    __tablename__ = "typed"
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    countrycode: Mapped[str] = mapped_column(Text)
    timezone: Mapped[str] = mapped_column(Text)
    population: Mapped[int] = mapped_column(BigInteger)
    alternatenames: Mapped[list[str]] = mapped_column(JSON().with_variant(ARRAY(Text), "postgresql"))


def _where(question: str, dialect: str) -> list[Any]:
    match question:
        case "count by range":
            return [City.population >= 100_000]
        case "count by like":
            return [City.name.like("San %")]
        case "count by in":
            return [City.name.in_(NAMES)]
        case "count by three conditions":
            return [City.population >= 20_000, City.countrycode == "US", City.name.like("S%")]
        case "count by list membership" if dialect == "postgresql":
            return [literal("London") == any_(City.alternatenames)]
        case "count by list membership":
            each = func.json_each(City.alternatenames).table_valued("value")
            return [exists(select(each.c.value).where(each.c.value == "London"))]
        case _:
            return [City.name.regexp_match(PATTERN)]


async def ask(engine: AsyncEngine, question: str) -> Any:
    """Return the answer in a session of its own."""
    population = City.population
    async with AsyncSession(engine) as session:
        match question:
            case "sum":
                return int(await session.scalar(select(func.sum(population))) or 0)
            case "group by one path":
                by = City.countrycode
                asked = select(by, func.count(), func.sum(population), func.max(population)).group_by(by)
                return sorted((k, n, int(s), m) for k, n, s, m in await session.execute(asked))
            case "group by two paths":
                pair = (City.countrycode, City.timezone)
                counted = await session.execute(select(*pair, func.count()).group_by(*pair))
                return sorted(tuple(row) for row in counted)
            case "sort + limit 20":
                ordered = select(City).order_by(population.desc(), City.id).limit(20)
                return [city.name for city in await session.scalars(ordered)]
            case "distinct":
                return sorted(await session.scalars(select(City.timezone).distinct()))
            case "sorted stream":
                return await _stream(session)
            case _:
                counting = (
                    select(func.count()).select_from(City).where(*_where(question, engine.dialect.name))
                )
                return await session.scalar(counting)


async def _stream(session: AsyncSession) -> tuple[int, Any, Any]:
    count, first, last = 0, None, None
    ordered = select(City).order_by(City.population.desc(), City.id).execution_options(yield_per=1_000)
    async for city in await session.stream_scalars(ordered):
        first, last, count = first or city.id, city.id, count + 1
    return count, first, last
