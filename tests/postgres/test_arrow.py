"""Arrow tables are read from ids and JSON texts."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import Query, field
from isthmus.integrations import frames
from tests.postgres.databases import opened

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]

DATA = [
    {"n": 1, "at": "2020-01-01", "size": 1e300, "tags": ["x", "y"]},
    {"n": 2, "at": '\\ "é😀', "size": 0.5},
    {"n": 2**53 + 1, "size": 2.0, "more": {"a": None, "b": -1}},
]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    "query",
    [None, field("n") <= 2, Query().sort("n", "desc").limit(2), Query().sort("_version").offset(1)],
    ids=["all", "filter", "sort", "sort by version"],
)
async def test_a_table_equals_the_one_of_the_records(driver: str, query: Any) -> None:
    """With a filter, an order and a limit, and inside of a transaction."""
    async with opened(driver=driver) as db:
        await db.create_batch(DATA)
        expected = frames.table_of([frames.row(record) for record in await db.search(query)])

        table = await frames.to_arrow(db, query)
        async with db.transaction():
            inside = await frames.to_arrow(db, query)

        assert table.schema == expected.schema
        assert table.equals(expected)
        assert inside.equals(expected)
