"""Errors that the driver raises by itself, between preparing a statement and running it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, Record
from isthmus.errors import IsthmusError
from tests.postgres.databases import fresh_name, url

pytestmark = [pytest.mark.backend("postgres"), pytest.mark.asyncio]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_value_that_the_driver_refuses_leaves_no_transaction_open(driver: str) -> None:
    """asyncpg has prepared the statement by then, and the session is in an implicit transaction."""
    settings = {"url": url(), "table": fresh_name(), "driver": driver, "pool": {"min_size": 1, "max_size": 1}}
    async with await AsyncDatabase.create("postgres", settings) as db:
        runner: Any = db._backend._pool_runner  # type: ignore[attr-defined]
        for number in range(3):
            statement = f"SELECT $1::bigint AS fresh_{number}"
            with pytest.raises((IsthmusError, OverflowError)):
                await runner.run(lambda connection, text=statement: connection.fetch(text, 10**30))

            await db.run(lambda tx: tx.upsert("a", {"n": 1}))

        await db.drop_collection(db.collection_name)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_an_offset_beyond_64_bits_finds_nothing(driver: str) -> None:
    """As in any store."""
    settings = {"url": url(), "table": fresh_name(), "driver": driver}
    async with await AsyncDatabase.create("postgres", settings) as db:
        await db.create_batch([Record({"n": n}) for n in range(3)])
        async with asyncio.timeout(10):
            assert await db.search(Query().offset(10**30)) == []
            assert [record async for record in db.stream(Query().sort("n").offset(10**30))] == []
        await db.drop_collection(db.collection_name)
