"""`db.portability(query)` says for each backend where a query would run, and why."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase, Query, field, match
from isthmus._core.registry import BACKENDS


@pytest.mark.asyncio
async def test_an_everyday_query_is_native_where_stores_can_judge() -> None:
    """Everyday queries run wholly on memory, SQLite, Postgres and Elasticsearch (§6)."""
    db = AsyncDatabase("memory")

    answers = db.portability(Query().filter("age", ">=", 25).filter("name", "like", "A%").sort("name"))

    assert set(BACKENDS) <= answers.keys()
    assert {n for n, a in answers.items() if a.verdict == "native"} >= {
        "memory",
        "sqlite",
        "postgres",
        "elasticsearch",
    }
    assert answers["s3"].verdict == "partly"
    assert any("age" in reason for reason in answers["s3"].reasons)


@pytest.mark.asyncio
async def test_a_pattern_that_a_server_cannot_say_is_partly_judged_here() -> None:
    """The reason names the leaf."""
    answers = AsyncDatabase("memory").portability(field("name").regex(r"\bA"))

    assert answers["sqlite"].verdict == "native"
    assert answers["postgres"].verdict == "partly"
    assert "name regex" in answers["postgres"].reasons[0]


@pytest.mark.asyncio
async def test_a_missing_capability_is_a_refusal_with_its_reason() -> None:
    """A full-text match is refused where there is none."""
    answers = AsyncDatabase("memory").portability(match("text", "storm"))

    assert answers["postgres"].verdict == "refused"
    assert "match()" in str(answers["postgres"])
