"""Writers of the torture on the S3 log, which is compacted meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from isthmus import AsyncDatabase
from isthmus.backends.s3.backend import S3Backend
from isthmus.backends.s3.envelope import order_of
from isthmus.errors import BatchError
from tests.changes.writers import Writers


class LogWriters(Writers):
    """Tasks on three handles that know nothing of each other; a fourth one compacts the log."""

    def __init__(self, settings: dict[str, Any], wanted: int, seed: int) -> None:
        super().__init__("s3", settings, wanted, seed)
        self.compactions = 0

    async def open(self) -> None:
        # Handles with one timeout share a pool, and what they know of the log.
        for number in range(4):
            db = await AsyncDatabase.create("s3", {**self._settings, "timeout": 20 + number})
            self._dbs.append(db)

    async def run(self) -> None:
        compacting = asyncio.create_task(self._compact())
        try:
            await super().run()
        finally:
            compacting.cancel()
            await asyncio.wait([compacting])
        if not compacting.cancelled() and (error := compacting.exception()):
            raise error

    async def _compact(self) -> None:
        db = self._dbs.pop()
        assert isinstance(db._backend, S3Backend)
        try:
            while True:
                await db._backend.compact(db.collection_name)
                self.compactions += 1
                await asyncio.sleep(0.2)
        finally:
            await db.close()

    def _kinds(self, number: int) -> list[Callable[[random.Random], Awaitable[list[tuple[str, int]]]]]:
        return [self._one, self._batch, self._batch, self._upserts, self._upserts, self._clear]

    async def _upserts(self, rng: random.Random) -> list[tuple[str, int]]:
        """Write some records in one entry; now and then a batch that is refused as a whole."""
        ids = [self._hot(rng) for _ in range(rng.randrange(1, 30))]
        items: list[tuple[str, dict[str, Any]]] = [(id, {"n": rng.random()}) for id in ids]
        if rng.random() < 0.2:
            items.append(("invalid", {"n": float("nan")}))
        try:
            versions = await rng.choice(self._dbs).upsert_batch(items)
        except BatchError:
            return []
        return [(id, order_of(version)) for id, version in zip(ids, versions, strict=True)]

    async def _clear(self, rng: random.Random) -> list[tuple[str, int]]:
        if rng.random() < 0.02:
            await rng.choice(self._dbs).clear()
        return []
