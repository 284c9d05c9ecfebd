"""The twelve questions, asked of isthmus; each answer is a plain value that sides can be compared by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.questions.data import some_names
from isthmus import AsyncDatabase, Query, field

NAMES = some_names()
PATTERN = "^San (Jo|Ma)"
Ask = Callable[[AsyncDatabase], Awaitable[Any]]

LARGE = field("population") >= 100_000
THREE = (field("population") >= 20_000) & (field("countrycode") == "US") & field("name").like("S%")


async def _groups(db: AsyncDatabase) -> list[tuple[Any, ...]]:
    rows = await db.aggregate(
        by="countrycode", n="count", total=("sum", "population"), most=("max", "population")
    )
    return [tuple(row.values()) for row in rows]


async def _pairs(db: AsyncDatabase) -> list[tuple[Any, ...]]:
    rows = await db.aggregate(by=["countrycode", "timezone"], n="count")
    return [tuple(row.values()) for row in rows]


async def _distinct(db: AsyncDatabase) -> list[Any]:
    return [row["timezone"] for row in await db.aggregate(by="timezone", n="count")]


async def _largest(db: AsyncDatabase) -> list[Any]:
    found = await db.search(Query().sort("population", "desc").limit(20))
    return [record.data["name"] for record in found]


async def _sorted_stream(db: AsyncDatabase) -> tuple[int, Any, Any]:
    count, first, last = 0, None, None
    async for record in db.stream(Query().sort("population", "desc")):
        first, last, count = first or record.id, record.id, count + 1
    return count, first, last


async def _total(db: AsyncDatabase) -> Any:
    [row] = await db.aggregate(total=("sum", "population"))
    return row["total"]


QUESTIONS: dict[str, Ask] = {
    "count by range": lambda db: db.count(LARGE),
    "count by like": lambda db: db.count(field("name").like("San %")),
    "count by in": lambda db: db.count(Query().filter("name", "in", NAMES)),
    "count by three conditions": lambda db: db.count(THREE),
    "count by list membership": lambda db: db.count(field("alternatenames") == "London"),
    "sum": _total,
    "group by one path": _groups,
    "group by two paths": _pairs,
    "sort + limit 20": _largest,
    "distinct": _distinct,
    "sorted stream": _sorted_stream,
    "count by regex": lambda db: db.count(field("name").regex(PATTERN)),
}
