"""Copies from and to native tables of PostgreSQL, verified by digest, whatever order their ids have."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator

import pytest

from isthmus import AsyncDatabase, field
from isthmus.transfer import copy, differences, repair, verify
from tests.postgres.databases import connected, url

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


@contextlib.asynccontextmanager
async def tables() -> AsyncIterator[tuple[AsyncDatabase, AsyncDatabase]]:
    """Yield handles on two tables with integer keys: 300 rows in the first, none in the second."""
    schema = f"copies_{secrets.token_hex(4)}"
    async with connected() as sql:
        await sql.execute(
            f"CREATE SCHEMA {schema};"
            f"CREATE TABLE {schema}.a (n int PRIMARY KEY, price numeric(8, 2), at timestamptz, tags text[]);"
            f"CREATE TABLE {schema}.b (LIKE {schema}.a INCLUDING ALL);"
            f"INSERT INTO {schema}.a SELECT n, n / 4.0, '2024-01-01', ARRAY['t' || n]"
            " FROM generate_series(1, 300) AS n"
        )
        settings = {"url": url(), "schema": schema, "layout": "native"}
        async with (
            await AsyncDatabase.create("postgres", {**settings, "table": "a"}) as a,
            await AsyncDatabase.create("postgres", {**settings, "table": "b"}) as b,
        ):
            yield a, b
        await sql.execute(f"DROP SCHEMA {schema} CASCADE")


async def test_a_copy_to_and_from_another_store_is_verified_by_digest() -> None:
    """From a table whose ids sort as numbers to one whose ids are texts, and back to another table."""
    async with tables() as (a, b), await AsyncDatabase.create("memory") as memory:
        receipt = await copy(a, memory)
        assert receipt.written == 300
        comparison = await verify(a, memory, page_size=70)
        assert comparison.equal
        assert comparison.source == receipt.digest
        assert (await copy(memory, b)).written == 300
        assert (await verify(memory, b)).equal
        assert (await verify(a, b)).equal


async def test_differences_are_found_and_repaired() -> None:
    async with tables() as (a, b):
        await copy(a, b, field("n") > 3)
        await b.update("77", {"price": 1})
        await b.create({"n": 1000})

        found = {(d.kind, d.id) async for d in differences(a, b)}
        assert found == {
            ("missing", "1"),
            ("missing", "2"),
            ("missing", "3"),
            ("changed", "77"),
            ("extra", "1000"),
        }
        assert (await verify(a, b, field("n").between(100, 200))).equal

        await repair(a, b, delete_extra=True)
        assert (await verify(a, b)).equal
