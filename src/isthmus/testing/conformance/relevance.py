"""Full-text search, or a refusal if the store has none."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase, Query, field, match
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import requires, store


@requires("relevance")
@pytest.mark.asyncio
async def test_a_match_is_ranked_by_relevance(db: AsyncDatabase) -> None:
    """Records that match better come first; others do not match."""
    await store(
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
    """Only the store can evaluate it, so it must stand alone or in an `and`."""
    with pytest.raises(QueryError):
        await db.search(~match("text", "storm"))
    with pytest.raises(QueryError):
        await db.search(match("text", "storm") | (field("n") == 1))
    await db.search(match("text", "storm"))


@requires("relevance")
@pytest.mark.asyncio
async def test_an_order_by_score_needs_a_match(db: AsyncDatabase) -> None:
    """Without a match, or in ascending order, it has no meaning."""
    with pytest.raises(QueryError):
        await db.search(Query().sort("_score", "desc"))
    with pytest.raises(QueryError):
        await db.search(Query().match("text", "x").sort("_score"))
    await db.search(Query().match("text", "x").sort("_score", "desc"))


@requires("relevance")
@pytest.mark.asyncio
async def test_a_hit_has_its_score_and_the_passages_that_matched(db: AsyncDatabase) -> None:
    """Passages have the offsets of the matched words, and their text is unchanged."""
    text = "A quiet day. <b>Before</b> the Storm came, there was no storm."
    await store(db, {"a": {"text": text, "n": 1}, "b": {"text": "storm storm", "n": 2}, "c": {"text": "x"}})

    hits = await db.hits(match("text", "storm"), passages=["text"])
    by_n = await db.hits(Query().match("text", "storm").sort("n").limit(1).select("n"), passages=["text"])

    assert [hit.record.id for hit in hits] == ["b", "a"]
    assert (hits[0].score or 0) > (hits[1].score or 0) > 0
    (passage,) = hits[1].passages["text"]
    assert passage.text in text
    assert [passage.text[start:end] for start, end in passage.marks] == ["Storm", "storm"]
    assert passage.marked("[", "]").count("[") == 2
    assert [(hit.record.data, hit.score) for hit in by_n] == [({"n": 1}, hits[1].score)]
    assert by_n[0].passages == hits[1].passages


@requires("relevance")
@pytest.mark.asyncio
async def test_hits_need_a_match(db: AsyncDatabase) -> None:
    """Without a match there are no scores."""
    with pytest.raises(QueryError):
        await db.hits(field("n") == 1)
    assert await db.hits(match("text", "storm"), passages=["text"]) == []
