"""Full-text search where the store has it, and a refusal elsewhere."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase, Query, field, match
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import requires, stored


@requires("relevance")
@pytest.mark.asyncio
async def test_a_match_is_ranked_by_relevance(db: AsyncDatabase) -> None:
    """The more it says of the words, the earlier; others are not found."""
    await stored(
        db,
        {
            "much": {"text": "storm storm storm", "n": 1},
            "some": {"text": "a quiet day before the storm came over the hills", "n": 2},
            "none": {"text": "sunshine", "n": 3},
        },
    )

    ranked = await db.search(Query().match("text", "storm").sort("_score", "desc"))

    assert [r.id for r in ranked] == ["much", "some"]
    assert await db.count(match("text", "storm")) == 2
    assert [r.id for r in await db.search(Query().match("text", "storm").filter("n", ">", 1))] == ["some"]


@requires("relevance")
@pytest.mark.asyncio
async def test_a_match_under_not_is_refused(db: AsyncDatabase) -> None:
    """Only the store can judge it, so it stands alone or in an `and`."""
    with pytest.raises(QueryError):
        await db.search(~match("text", "storm"))
    with pytest.raises(QueryError):
        await db.search(match("text", "storm") | (field("n") == 1))
    await db.search(match("text", "storm"))


@requires("relevance")
@pytest.mark.asyncio
async def test_an_order_by_score_needs_a_match(db: AsyncDatabase) -> None:
    """Without one, or ascending, it means nothing."""
    with pytest.raises(QueryError):
        await db.search(Query().sort("_score", "desc"))
    with pytest.raises(QueryError):
        await db.search(Query().match("text", "x").sort("_score"))
    await db.search(Query().match("text", "x").sort("_score", "desc"))
