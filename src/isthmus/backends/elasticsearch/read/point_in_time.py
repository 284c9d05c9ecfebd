"""A point in time of an index: searches of it all see one state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from isthmus.backends.elasticsearch.client import FOUND, ClientPool
from isthmus.backends.elasticsearch.errors import translate_response
from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.read.filter import Query

MAX_PAGE = 10_000
"""The most records of one response; longer pages are put together from several."""


class PointInTime:
    """A state of an index that the server keeps until it is closed or idle for `keep_alive`."""

    def __init__(self, pool: ClientPool, id: str, keep_alive: str, action: str) -> None:
        self._pool = pool
        self.id = id
        self._keep_alive = keep_alive
        self._action = action

    @classmethod
    async def open(
        cls, pool: ClientPool, index: CollectionIndex, keep_alive: str, action: str
    ) -> PointInTime:
        """Open one; one request. `action` begins the text of errors.

        If the caller is cancelled, the answer is waited for in the background, since the server has no
        other name for what it keeps.
        """
        opening = cls._open(pool, index, keep_alive, action)
        return await pool.ends.open(opening, cls.close, "isthmus-pit-open")

    @classmethod
    async def _open(
        cls, pool: ClientPool, index: CollectionIndex, keep_alive: str, action: str
    ) -> PointInTime:
        target = f"{index.url}/_pit?keep_alive={keep_alive}"
        status, body = await pool.call("POST", target, action=action, expected=FOUND)
        if status == 404:
            raise index.mark_gone()
        pool.points_in_time.add(body["id"])
        return cls(pool, body["id"], keep_alive, action)

    @classmethod
    @asynccontextmanager
    async def hold(
        cls, pool: ClientPool, index: CollectionIndex, keep_alive: str, action: str
    ) -> AsyncIterator[PointInTime]:
        """Open one and close it on leaving."""
        pit = await cls.open(pool, index, keep_alive, action)
        try:
            yield pit
        finally:
            await pit.release()

    async def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """Search this state of the index."""
        body = {**body, "pit": {"id": self.id, "keep_alive": self._keep_alive}}
        _, response = await self._pool.call("POST", "/_search", body, action=self._action)
        id = response.get("pit_id", self.id)
        if id != self.id:
            self._pool.points_in_time.discard(self.id)
            self._pool.points_in_time.add(id)
            self.id = id
        return require_all_shards(response, self._action)

    async def pages(
        self, clause: Query, size: int, *, source: bool = True
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield all hits of a `query` or `knn` clause page by page, in the cheapest order."""
        size = min(size, MAX_PAGE)
        position = None
        while True:
            body = shard_order(clause, size)
            if not source:
                body["_source"] = False
            if position is not None:
                body["search_after"] = position
            hits = (await self.search(body))["hits"]["hits"]
            if hits:
                yield hits
            if len(hits) < size:
                return
            position = hits[-1]["sort"]

    async def release(self) -> None:
        """Close the point in time, even if the caller is cancelled meanwhile."""
        await self._pool.ends.run(self.close(), "isthmus-pit-close")

    async def close(self) -> None:
        """Release the state at the server; one that cannot be released expires by itself."""
        await self._pool.close_point_in_time(self.id)


class SlicedScan:
    """A scan of a point in time in disjoint slices, read concurrently.

    `positions` has the sort values of each slice's last hit: None before its first page, `[]` at its
    end.
    """

    def __init__(self, positions: list[Any] | None, count: int) -> None:
        self.positions: list[Any] = [None] * count if positions is None else list(positions)

    @property
    def has_more(self) -> bool:
        """Whether some slice is not at its end."""
        return any(position != [] for position in self.positions)

    async def page(self, pit: PointInTime, clause: Query, size: int) -> list[dict[str, Any]]:
        """Return the next hits of all slices, about `size` together."""
        unfinished = [number for number, position in enumerate(self.positions) if position != []]
        each = -(-size // len(unfinished))
        if len(unfinished) == 1:
            return await self._page_of_slice(pit, clause, each, unfinished[0])
        tasks = [
            asyncio.ensure_future(self._page_of_slice(pit, clause, each, number)) for number in unfinished
        ]
        try:
            return [hit for hits in await asyncio.gather(*tasks) for hit in hits]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _page_of_slice(
        self, pit: PointInTime, clause: Query, size: int, number: int
    ) -> list[dict[str, Any]]:
        body = shard_order(clause, size)
        if len(self.positions) > 1:
            body["slice"] = {"id": number, "max": len(self.positions)}
        if self.positions[number] is not None:
            body["search_after"] = self.positions[number]
        hits: list[dict[str, Any]] = (await pit.search(body))["hits"]["hits"]
        self.positions[number] = hits[-1]["sort"] if len(hits) == size else []
        return hits


def shard_order(clause: Query, size: int) -> dict[str, Any]:
    """Return a search in the cheapest order, from a `query` or `knn` clause."""
    return {
        **clause,
        "size": size,
        "sort": ["_shard_doc"],
        "seq_no_primary_term": True,
        "track_total_hits": False,
    }


def require_all_shards(response: dict[str, Any], action: str) -> dict[str, Any]:
    """Return the response if every shard answered; raises the error of a partial one."""
    shards = response.get("_shards", {})
    if response.get("timed_out") or shards.get("failed"):
        failures = shards.get("failures") or [{}]
        unknown = {"type": "shards", "reason": "some shards did not answer"}
        first = failures[0] if isinstance(failures, list) else unknown
        body = {"error": first.get("reason", unknown) if isinstance(first, dict) else unknown}
        raise translate_response(503, body, None, action, writes=False)
    return response
