"""Count: the number of records that a search without a limit returns."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase, Query, field
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import put_one, store_people


@pytest.mark.asyncio
async def test_count_is_the_length_of_the_search(db: AsyncDatabase) -> None:
    """For all records, a predicate, or the conditions of a query."""
    await store_people(db)

    assert await db.count() == 5
    assert await db.count(field("age") > 9) == 3
    assert await db.count(Query().filter("age", ">", 9)) == 3
    assert await db.count(field("name").regex("(?i)^[ae]")) == 2
    assert await db.count(field("nothing") == 1) == 0


@pytest.mark.asyncio
async def test_count_with_a_limit_is_refused(db: AsyncDatabase) -> None:
    """A limit, offset, sort or selection has no meaning for a count: QueryError."""
    for query in (Query().limit(1), Query().offset(1), Query().sort("a"), Query().select("a")):
        with pytest.raises(QueryError):
            await db.count(query)


@pytest.mark.asyncio
async def test_exists_takes_an_id_or_a_query(db: AsyncDatabase) -> None:
    """A string is an id."""
    await store_people(db)

    assert await db.exists("alice") is True
    assert await db.exists("nobody") is False
    assert await db.exists(field("age") == 100) is True
    assert await db.exists(Query().filter("age", "=", 101)) is False


@pytest.mark.asyncio
async def test_a_write_is_seen_by_the_next_search(db: AsyncDatabase) -> None:
    """On every store, without a delay (§5)."""
    for n in range(5):
        await put_one(db, {"n": n})
        assert await db.count() == n + 1
        assert len(await db.search(field("n") == n)) == 1
    await db.delete_where(field("n") < 3)
    assert [r.data["n"] for r in await db.search(Query().sort("n"))] == [3, 4]
