"""Aggregates and orders of the core: other tasks get their turn meanwhile, and the deadline holds."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from isthmus import AsyncDatabase, Query, Record
from isthmus.errors import DeadlineError

pytestmark = pytest.mark.asyncio


async def _count_turns(turns: list[int]) -> None:
    while True:
        turns[0] += 1
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("columns", [{"c": "count"}, {"c": ("count_distinct", "x")}])
async def test_many_records_and_groups_leave_turns_to_others(columns: dict[str, object]) -> None:
    """Counting, finishing and ordering 20,000 groups took one turn each."""
    async with await AsyncDatabase.create("memory", {}) as db:
        await db.create_batch([Record({"g": n, "x": n % 7}) for n in range(20_000)])
        turns = [0]
        others = asyncio.create_task(_count_turns(turns))
        rows = await db.aggregate(Query().sort("c", "desc").limit(3), by="g", **columns)
        others.cancel()

        assert [row["g"] for row in rows] == [0, 1, 2]
        assert turns[0] > 10


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_a_sort_of_many_records_leaves_turns_to_others(direction: str) -> None:
    """It took two seconds of the loop for 60,000 records."""
    async with await AsyncDatabase.create("memory", {}) as db:
        await db.create_batch([Record({"n": n * 7_919 % 10_007, "t": "x" * (n % 3)}) for n in range(10_000)])
        turns = [0]
        others = asyncio.create_task(_count_turns(turns))
        records = await db.search(Query().sort("t", direction).sort("n"))
        others.cancel()

        found = [(record["t"], record["n"]) for record in records]
        by_number = sorted(found, key=lambda pair: pair[1])
        assert found == sorted(by_number, key=lambda pair: pair[0], reverse=direction == "desc")
        assert turns[0] > 10


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_a_long_list_does_not_outlast_the_deadline(backend: str) -> None:
    """Its values are counted in a thread, which ends between two measures."""
    async with await AsyncDatabase.create(backend, {}) as db:
        await db.create({"xs": [n * 0.37 for n in range(30_000)]})
        columns = {f"c{n}": ("count_distinct" if n % 2 else "sum", "xs") for n in range(100)}
        turns = [0]
        others = asyncio.create_task(_count_turns(turns))
        with pytest.raises(DeadlineError):
            await db.options(deadline=0.3).aggregate(**columns)
        others.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await others

        assert turns[0] > 10
