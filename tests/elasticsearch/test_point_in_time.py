"""A point in time that the node cannot release is no failure: it expires by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, RateLimitedError, Record
from tests.elasticsearch.proxy import AnswerProxy
from tests.stores import store_of

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]


@pytest_asyncio.fixture
async def db(proxy: AnswerProxy) -> AsyncIterator[AsyncDatabase]:
    """Return a handle on 30 records whose node has no memory to release anything."""
    async with store_of("elasticsearch", proxy.url).fresh() as handle:
        await handle.create_batch([Record({"n": n}) for n in range(30)])
        proxy.refused.add(("DELETE", "/_pit"))
        yield handle
        proxy.refused.clear()


async def test_a_finished_call_succeeds(db: AsyncDatabase) -> None:
    """Deleting everything, and reading to the end and up to a point."""
    read = [record.data["n"] async for record in db.stream(page_size=10)]
    assert sorted(read) == list(range(30))
    async with db.stream(page_size=10) as records:
        assert await anext(aiter(records))

    assert await db.clear() == 30

    assert await db.count() == 0


async def test_a_failed_call_has_its_own_error(proxy: AnswerProxy, db: AsyncDatabase) -> None:
    """Not that of the release after it."""
    proxy.refused.add(("POST", "/_search"))

    with pytest.raises(RateLimitedError, match="POST /_search"):
        await db.clear()
