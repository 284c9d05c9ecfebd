"""Queries as large as the bounds allow: answered as in memory, by whatever the database cannot take."""

from __future__ import annotations

import functools
import operator
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, Query, Record, field

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlalchemy")]

RECORDS = [
    Record({"a": i, "b": i, "c": i, "t": f"x{i}", f"f{i}": i, "l": [i], "o": [{"a": i, "b": i}]}, id=f"r{i}")
    for i in range(40)
]
LONG = "é%_" * 20_000


def _alternate(levels: int) -> Query:
    query = field("a") == 1
    for i in range(levels // 2):
        query = (query | (field("b") == i)) & (field("c") < i + 2)
    return query


def _negate(levels: int) -> Query:
    query = (field("a") == 1) & (field("t") == "x1")
    for i in range(levels // 4):
        query = ~(~query & (field("b") != i)) & (field("c") < i + 2)
    return query


def _any_of(conditions: list[Query]) -> Query:
    return functools.reduce(operator.or_, conditions)


QUERIES: dict[str, Callable[[], Query]] = {
    "100 levels": lambda: _alternate(100),
    "141 levels": lambda: _alternate(141),
    "199 levels": lambda: _alternate(198),
    "not, 199 levels": lambda: _negate(196),
    "any, 40 levels": lambda: functools.reduce(lambda q, _: field("o").any(q), range(40), field("a") == 1),
    "999 fields": lambda: _any_of([field(f"f{i}") == i for i in range(20, 1_019)]),
    "2,000 fields": lambda: _any_of([field(f"f{i}") == i for i in range(20, 2_019)]),
    "2,000 fields that all differ": lambda: functools.reduce(
        operator.and_, [field(f"f{i}") != i for i in range(20, 2_019)]
    ),
    "2,000 fields that all exist": lambda: functools.reduce(
        operator.and_, [(field("a") > -1) | field(f"f{i}").exists() for i in range(990)]
    ),
    "1,000 pairs": lambda: _any_of([(field("a") == i) & (field(f"g{i}") == i) for i in range(999)]),
    "2,000 texts contained": lambda: _any_of([field("t").contains(f"x{i}") for i in range(1_990)]),
    "10 lists of 500 texts": lambda: functools.reduce(
        operator.and_, [field("t").in_([f"x{i}" for i in range(n, 500 + n)]) for n in range(10)]
    ),
    "1,000 lists": lambda: field("l").in_([[i] for i in range(20, 1_020)]),
    "1,900 objects": lambda: field("o").in_([{"a": i, "b": i} for i in range(20, 1_920)]),
    "a long name": lambda: field(LONG) == 1,
    "a path of 100 keys": lambda: field(["k"] * 100) == 1,
    "a long pattern": lambda: field("t").like("%".join("x" * 5_000)),
    "a long text": lambda: (field("t") == "x" * 1_000_000) | (field("t") == "x7"),
}


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def address(request: pytest.FixtureRequest, tmp_path: Path, running_server: Callable[[str], Any]) -> str:
    """Return an address of each kind of database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"
    url = str(running_server(request.param).url)
    return url.replace("postgresql://", "postgresql+asyncpg://")


@pytest_asyncio.fixture
async def filled(address: str) -> AsyncIterator[AsyncDatabase]:
    """Open a table of its own."""
    settings = {"url": address, "table": f"t_{secrets.token_hex(6)}"}
    async with await AsyncDatabase.create("sqlalchemy", settings) as db:
        await db.upsert_batch(RECORDS)
        yield db
        await db.drop_collection(db.collection_name)


async def test_the_largest_queries_are_answered_as_in_memory(filled: AsyncDatabase) -> None:
    """Searched, counted, and as the condition of a modification."""
    async with await AsyncDatabase.create("memory") as memory:
        await memory.create_batch(RECORDS)
        for name, build in QUERIES.items():
            query = build()

            expected = sorted(record.id or "" for record in await memory.search(query))

            assert sorted(record.id or "" for record in await filled.search(query)) == expected, name
            assert await filled.count(query) == len(expected), name
            assert await filled.update_where(query, field("seen").set(1)) == len(expected), name


async def test_what_is_too_large_is_explained_as_left_out(filled: AsyncDatabase) -> None:
    """Only that: the other conditions still narrow what is read."""
    wide = _any_of([field(f"f{i}") == i for i in range(1_000)])

    whole = await filled.explain(wide)
    part = await filled.explain((field("t") == "x7") & wide)
    small = await filled.explain((field("t") == "x7") & (field("a") == 7))

    assert ("LIKE" in str(whole.native), "left out" in whole.details) == (False, True)
    assert ("LIKE" in str(part.native), "left out" in part.details) == (True, True)
    assert ("LIKE" in str(small.native), "left out" in small.details) == (True, False)
