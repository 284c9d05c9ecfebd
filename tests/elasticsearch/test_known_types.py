"""Aggregates by the types of fields: what another handle has added, and what the server computes alone."""

from __future__ import annotations

import uuid

import pytest

from isthmus import AsyncDatabase
from isthmus.backends.elasticsearch.read.reader import IndexReader
from tests.stores import discard

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]


async def test_a_field_that_another_handle_has_made_is_counted_exactly(url: str) -> None:
    """Its type is known only once the aggregate is under way: a text in a list twice is two values (§7)."""
    settings = {"hosts": [url], "index": f"known-{uuid.uuid4().hex[:12]}", "replicas": 0}
    async with (
        await AsyncDatabase.create("elasticsearch", settings) as early,
        await AsyncDatabase.create("elasticsearch", settings) as other,
    ):
        assert await early.count() == 0
        # Two calls: a record whose fields are new may be evaluated client-side because of them.
        await other.create({"t": ["x", "x", "y"]})
        await other.create({"t": ["x", "x", "y"]})
        assert await other.count() == 2

        rows = await early.aggregate(found=("count", "t"))

        assert rows == [{"found": 6}]
        await discard(early)


async def test_figures_of_numbers_are_computed_without_reading_a_record(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures that no cancellation makes inexact are the server's own."""
    settings = {"hosts": [url], "index": f"known-{uuid.uuid4().hex[:12]}", "replicas": 0}
    async with await AsyncDatabase.create("elasticsearch", settings) as db:
        await db.create_batch([{"k": n % 2, "n": n, "f": n + 0.5} for n in range(10)])
        asked = {"n": ("sum", "n"), "f": ("avg", "f"), "least": ("min", "n"), "most": ("max", "f")}

        def unread(*_: object) -> None:
            raise AssertionError("records are read for what the server can compute")

        for way in ("main", "stream", "page"):
            monkeypatch.setattr(IndexReader, way, unread)
        assert await db.aggregate(**asked) == [{"n": 45, "f": 5.0, "least": 0, "most": 9.5}]
        assert await db.aggregate(by="k", **asked) == [
            {"k": 0, "n": 20, "f": 4.5, "least": 0, "most": 8.5},
            {"k": 1, "n": 25, "f": 5.5, "least": 1, "most": 9.5},
        ]
        await discard(db)
