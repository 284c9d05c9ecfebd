"""A call that is cancelled between preparing its statement and running it spoils nothing for the next."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

import pytest

from isthmus import AsyncDatabase, Query
from tests import servers
from tests.seeds import drawn

pytestmark = pytest.mark.backend("postgres")


@pytest.mark.asyncio
async def test_a_transaction_begins_after_a_call_that_was_cancelled_anywhere() -> None:
    """asyncpg leaves such a session in an implicit transaction, which refuses an isolation level."""
    pick = Random(drawn())
    config = {"url": servers.server("postgres").url, "table": "cancelled_prepare", "pool": {"max_size": 1}}
    async with AsyncDatabase("postgres", config) as db:
        for attempt in range(100):
            # A path of its own is a statement that is not prepared yet.
            task = asyncio.create_task(db.search(Query().filter(f"f{attempt}", "=", 1)))
            for _ in range(pick.randrange(60)):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

            async with db.transaction(isolation="serializable") as tx:
                await tx.get("a")
        await db.drop_collection("cancelled_prepare")
