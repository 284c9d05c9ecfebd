"""How large the pages of a stream are."""

import pytest

from isthmus import AsyncDatabase, Query
from isthmus._core.executor import Executor, Page, PageRequest
from isthmus.backends.memory import MemoryBackend

pytestmark = pytest.mark.asyncio
COUNT = 25_000


async def _sizes(query: Query, monkeypatch: pytest.MonkeyPatch, **options: int) -> list[int | None]:
    """Return the sizes of the pages that a stream asks the store for."""
    asked: list[int | None] = []
    fetch = MemoryBackend.fetch

    async def note(self: Executor, collection: str, request: PageRequest) -> Page:
        asked.append(request.size)
        return await fetch(self, collection, request)

    monkeypatch.setattr(MemoryBackend, "fetch", note)
    async with await AsyncDatabase.create("memory", {}) as db:
        await db.create_batch([{"n": n % 7} for n in range(COUNT)])
        seen = [record["n"] async for record in db.stream(query, **options)]
    assert len(seen) == COUNT
    return asked


async def test_pages_of_a_sorted_stream_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may cost a sort of all that follows, so few are asked for."""
    assert await _sizes(Query().sort("n"), monkeypatch) == [2_000, 4_000, 8_000, 10_000, 10_000]


async def test_a_given_page_size_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names a size bounds the memory; without a sort pages cost what they hold."""
    assert await _sizes(Query().sort("n"), monkeypatch, page_size=6_000) == [6_000] * 5
    assert set(await _sizes(Query(), monkeypatch)) == {2_000}
