"""What another handle has added to an index since this one looked at it."""

from __future__ import annotations

import uuid

import pytest

from isthmus import AsyncDatabase
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
        # Two calls: a record whose fields are new may be judged on this side for their sake.
        await other.create({"t": ["x", "x", "y"]})
        await other.create({"t": ["x", "x", "y"]})
        assert await other.count() == 2

        rows = await early.aggregate(found=("count", "t"))

        assert rows == [{"found": 6}]
        await discard(early)
