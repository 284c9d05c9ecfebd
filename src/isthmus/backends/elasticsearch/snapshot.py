"""A point in time of an index, and the cheapest way through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.compile import Query
from isthmus.backends.elasticsearch.errors import failed_answer

# One answer holds at most so many records; longer pages are put together from several.
LARGEST_PAGE = 10_000
_FOUND = frozenset({200, 404})


class Snapshot:
    """A point in time: searches of it all see one state of the index."""

    def __init__(self, pool: ClientPool, id: str, keep_alive: str, doing: str) -> None:
        self._pool = pool
        self.id = id
        self._keep_alive = keep_alive
        self._doing = doing

    async def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """Search the snapshot."""
        body = {**body, "pit": {"id": self.id, "keep_alive": self._keep_alive}}
        _, answer = await self._pool.call("POST", "/_search", body, doing=self._doing)
        self.id = answer.get("pit_id", self.id)
        return checked_shards(answer, self._doing)

    async def pages(
        self, asked: Query, size: int, *, source: bool = True
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the hits of what is asked (`query` or `knn`) page by page, in the cheapest order."""
        size = min(size, LARGEST_PAGE)
        place = None
        while True:
            body = shard_order(asked, size)
            if not source:
                body["_source"] = False
            if place is not None:
                body["search_after"] = place
            hits = (await self.search(body))["hits"]["hits"]
            if hits:
                yield hits
            if len(hits) < size:
                return
            place = hits[-1]["sort"]

    async def close(self) -> None:
        """Let the server forget it; one that has expired is forgotten already."""
        await self._pool.call("DELETE", "/_pit", {"id": self.id}, doing=self._doing, told=_FOUND)


class Slices:
    """A way through a snapshot in disjoint parts, read side by side.

    `places` say how far each part is: None before its first page, `[]` behind its last.
    """

    def __init__(self, places: list[Any] | None, count: int) -> None:
        self.places: list[Any] = [None] * count if places is None else list(places)

    @property
    def left(self) -> bool:
        """Whether some part has more."""
        return any(place != [] for place in self.places)

    async def page(self, pit: Snapshot, asked: Query, size: int) -> list[dict[str, Any]]:
        """Return the next hits of all parts, about `size` together."""
        open_ = [number for number, place in enumerate(self.places) if place != []]
        each = -(-size // len(open_))
        if len(open_) == 1:
            return await self._part(pit, asked, each, open_[0])
        parts = [asyncio.ensure_future(self._part(pit, asked, each, number)) for number in open_]
        try:
            return [hit for hits in await asyncio.gather(*parts) for hit in hits]
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _part(self, pit: Snapshot, asked: Query, size: int, number: int) -> list[dict[str, Any]]:
        body = shard_order(asked, size)
        if len(self.places) > 1:
            body["slice"] = {"id": number, "max": len(self.places)}
        if self.places[number] is not None:
            body["search_after"] = self.places[number]
        hits: list[dict[str, Any]] = (await pit.search(body))["hits"]["hits"]
        self.places[number] = hits[-1]["sort"] if len(hits) == size else []
        return hits


def shard_order(asked: Query, size: int) -> dict[str, Any]:
    """Return a search in the cheapest order; `asked` has its `query` or `knn`."""
    return {
        **asked,
        "size": size,
        "sort": ["_shard_doc"],
        "seq_no_primary_term": True,
        "track_total_hits": False,
    }


def checked_shards(answer: dict[str, Any], doing: str) -> dict[str, Any]:
    """Return the answer if every shard gave its part: a partial answer is no answer."""
    shards = answer.get("_shards", {})
    if answer.get("timed_out") or shards.get("failed"):
        failures = shards.get("failures") or [{}]
        unknown = {"type": "shards", "reason": "some shards gave no answer"}
        body = {"error": failures[0].get("reason", unknown)}
        raise failed_answer(503, body, None, doing, writes=False)
    return answer
