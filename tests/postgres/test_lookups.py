"""Small searches and counts of one loop turn share a statement if each of them is a look-up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.backends.postgres.lookups import Lookups, is_lookup, merge_text
from isthmus.backends.postgres.sql.statement import Statement
from isthmus.backends.postgres.sql.table import IndexedPaths, Table
from isthmus.errors import Applied, UnexpectedError
from isthmus.native import postgres
from tests.postgres.databases import opened

INDEX_PLAN = {"Node Type": "Index Scan", "Index Cond": "(a = 1)", "Shared Hit Blocks": 8}


pytestmark = pytest.mark.backend("postgres")


@asynccontextmanager
async def _opened() -> AsyncIterator[AsyncDatabase]:
    """Open a handle on 2,000 records with indexes, as the server's planner knows them."""
    async with opened(indexes=["group", "name"]) as db:
        data = [{"group": n // 4, "name": f"n{n}", "plain": n // 4, "pad": "x" * 300} for n in range(2_000)]
        await db.create_batch([Record(item, id=f"r{n:04}") for n, item in enumerate(data)])
        async with (await postgres(db)).acquire() as connection:
            await connection.execute(f'ANALYZE "{db.collection_name}"')
        yield db


def _statements(db: AsyncDatabase) -> int:
    return db.stats().pool.acquired


async def _ask(db: AsyncDatabase, name: str, count: int) -> list[list[str | None]]:
    async def one(n: int) -> list[str | None]:
        found = await db.search(Query().filter(name, "=", n).sort("name", "desc").limit(3))
        return [record.id for record in found]

    return await asyncio.gather(*(one(n) for n in range(1, count + 1)))


def _expected(count: int) -> list[list[str]]:
    return [
        [f"r{n:04}" for n in sorted(range(4 * g, 4 * g + 4), key=lambda n: f"n{n}", reverse=True)[:3]]
        for g in range(1, count + 1)
    ]


@pytest.mark.asyncio
async def test_searches_and_counts_by_an_index_share_statements() -> None:
    """Each gets its own records, in its order, with a tenth of the statements or fewer."""
    async with _opened() as db:

        async def count(n: int) -> int:
            return await db.count(field("group") == n)

        async def search(n: int) -> list[str | None]:
            return [record.id for record in await db.search(Query().filter("group", "=", n).limit(3))]

        await asyncio.gather(*map(search, range(1, 9)), *map(count, range(1, 9)))  # asks for the plans
        before = _statements(db)
        found = await asyncio.gather(*map(search, range(1, 101)))
        counts = await asyncio.gather(*map(count, range(1, 101)))

        assert found == [[f"r{4 * n + i:04}" for i in range(3)] for n in range(1, 101)]
        assert counts == [4] * 100
        assert _statements(db) - before <= 20


@pytest.mark.asyncio
async def test_searches_that_read_the_table_run_alone() -> None:
    """Without an index each has a statement of its own: none waits for another."""
    async with _opened() as db:
        await _ask(db, "plain", 8)
        before = _statements(db)

        assert await _ask(db, "plain", 20) == _expected(20)
        assert _statements(db) - before >= 20


@pytest.mark.asyncio
async def test_a_search_that_reads_many_rows_by_an_index_runs_alone() -> None:
    """An index condition that most rows satisfy is no look-up."""
    async with opened(indexes=["same"]) as db:
        await db.create_batch([{"same": n % 2, "n": n, "pad": "x" * 600} for n in range(6_000)])

        async def search(n: int) -> int:
            return len(await db.search(Query().filter("same", "=", 1).filter("n", ">", n).limit(3)))

        await asyncio.gather(*map(search, range(1, 9)))
        before = _statements(db)

        assert await asyncio.gather(*map(search, range(1, 21))) == [3] * 20
        assert _statements(db) - before >= 20


@pytest.mark.asyncio
async def test_merged_searches_of_a_dropped_table_find_nothing() -> None:
    """As one that runs alone."""
    async with _opened() as db:
        await _ask(db, "group", 8)
        async with (await postgres(db)).acquire() as connection:
            await connection.execute(f'DROP TABLE "{db.collection_name}"')

        assert await _ask(db, "group", 20) == [[]] * 20


def _lookups(bad: Any, calls: list[tuple[str, Sequence[Any]]]) -> Lookups:
    async def fetch(text: str, args: Sequence[Any]) -> list[Any]:
        calls.append((text, args))
        await asyncio.sleep(0)
        if text.startswith("EXPLAIN"):
            return [([{"Plan": INDEX_PLAN}],)]
        merged = text.startswith("SELECT r.*")
        values = args[0] if merged else [args[0]]
        if bad in values:
            raise UnexpectedError("the server refuses it", applied=Applied.NO)
        return [(value, n) for n, value in enumerate(values, 1)]

    return Lookups(Table("public", "x", IndexedPaths()), fetch)


@pytest.mark.asyncio
async def test_one_that_fails_is_repeated_alone() -> None:
    """The others get their rows, and it gets its error."""
    calls: list[tuple[str, Sequence[Any]]] = []
    lookups = _lookups("bad", calls)
    asked = [*(f"v{n}" for n in range(6)), "bad", "w"]

    for _ in range(2):
        found = await asyncio.gather(
            *(lookups.fetch(Statement("SELECT $1::text", [value])) for value in asked),
            return_exceptions=True,
        )

    for value, rows in zip(asked, found, strict=True):
        if value == "bad":
            assert isinstance(rows, UnexpectedError)
        else:
            assert isinstance(rows, list)
            assert [row[0] for row in rows] == [value]
    assert any(text.startswith("SELECT r.*") for text, _ in calls)


@pytest.mark.asyncio
async def test_a_call_alone_asks_for_no_plan() -> None:
    """One task after another costs one statement for each call."""
    calls: list[tuple[str, Sequence[Any]]] = []
    lookups = _lookups("bad", calls)
    for n in range(5):
        await lookups.fetch(Statement("SELECT $1::text", [f"v{n}"]))

    assert [text for text, _ in calls] == ["SELECT $1::text"] * 5


def test_only_plans_that_use_conditions_of_indexes_are_look_ups() -> None:
    """Neither a scan of the table nor of a whole index."""
    assert is_lookup(INDEX_PLAN)
    assert is_lookup({"Node Type": "Limit", "Plans": [INDEX_PLAN]})
    assert not is_lookup({"Node Type": "Limit", "Plans": [INDEX_PLAN, {"Node Type": "Seq Scan"}]})
    assert not is_lookup({"Node Type": "Index Scan"})


def test_what_looks_like_a_placeholder_in_a_name_is_none() -> None:
    """Quoted names and texts stay; a statement with an array is not merged."""
    text = """SELECT '$1::text' FROM "$2::text" WHERE d->'it''s $1::text' = $1::jsonb LIMIT $2::int8"""
    merged = merge_text(text, "jsonb[]")

    assert merged is not None
    assert merged.startswith("SELECT r.*, k.n FROM unnest($1::jsonb[], $2::int8[])")
    assert """'$1::text' FROM "$2::text" WHERE d->'it''s $1::text' = k.p1 LIMIT k.p2)""" in merged
    assert merge_text("SELECT 1", "jsonb[]") is None
    assert merge_text("SELECT $1::jsonb[]", "jsonb[]") is None
