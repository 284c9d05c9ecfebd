"""Replace, update and upsert: read, then write on condition that nothing changed in between."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus._core.apply import refusal
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._values import decode, encode
from isthmus.backends.elasticsearch import doubt
from isthmus.backends.elasticsearch.bulk import Bulk, Item
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.documents import get_many
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.layout import time_text, times_json, version_of
from isthmus.backends.elasticsearch.outcomes import doing, replaced, unparsed
from isthmus.backends.elasticsearch.prepare import LARGEST, Prepared, condition, shaped
from isthmus.backends.elasticsearch.stored import contents
from isthmus.errors import ConflictError, InvalidRecordError


class Merge:
    """One chunk of changes of one kind, tried until each is made or refused."""

    def __init__(
        self,
        pool: ClientPool,
        index: Index,
        bulk: Bulk,
        kind: WriteKind,
        mutations: Sequence[Mutation],
        attempts: int,
    ) -> None:
        self._pool = pool
        self._index = index
        self._bulk = bulk
        self._kind = kind
        self._changes = mutations
        self._attempts = attempts

    async def apply(self, chunk: list[Prepared], results: list[ItemResult | None]) -> None:
        """Fill in the results of a chunk."""
        mutations, pending = self._changes, chunk
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(random.random() * min(0.01 * 2**attempt, 0.5))  # noqa: S311
            ready = await self._ready(pending, results)
            if not ready:
                return
            documents = [document for _, document in ready]
            await self._index.prepare(
                self._pool, [shape for document in documents for shape in document.shapes()]
            )
            items = await self._send(documents)
            pending = []
            for (prepared, document), item in zip(ready, items, strict=True):
                at = prepared.at
                if doubt.refused_again(item):
                    said = replaced(self._kind, self._index, mutations[at], item)
                    results[at] = await doubt.replaced(
                        self._pool, self._index, self._kind, mutations[at], item, document, said
                    )
                elif item.status == 409 and mutations[at].if_version is None:
                    pending.append(prepared)
                else:
                    results[at] = replaced(self._kind, self._index, mutations[at], item)
            if not pending:
                return
        for prepared in pending:
            results[prepared.at] = ConflictError(
                f"{self._kind.value}: others changed the record in each of {self._attempts} attempts",
                record_id=mutations[prepared.at].id,
            )

    async def _ready(
        self, pending: Sequence[Prepared], results: list[ItemResult | None]
    ) -> list[tuple[Prepared, Prepared]]:
        """Read the records and return the changes that can be made, each with what is to be sent."""
        kind = self._kind
        wanted = None if kind is WriteKind.UPDATE else "created_at"
        ids = [self._changes[prepared.at].id for prepared in pending]
        hits = await get_many(self._pool, self._index, ids, only=wanted)
        now = time_text(dt.datetime.now(dt.UTC))
        ready = []
        for prepared, hit in zip(pending, hits, strict=True):
            mutation = self._changes[prepared.at]
            no = refusal(kind, mutation, None if hit is None else version_of(hit))
            if no is not None:
                results[prepared.at] = no
                continue
            try:
                ready.append((prepared, self._conditional(prepared, hit, now)))
            except InvalidRecordError as error:  # the merged record is too large
                error.record_id = mutation.id
                results[prepared.at] = error
        return ready

    async def _send(self, chunk: Sequence[Prepared]) -> list[Item]:
        """Send documents; those that the server cannot parse go once more, as one text each."""
        index, what = self._index, doing(self._kind, self._index)
        items = await self._bulk.send(self._pool, index, [p.line(index) for p in chunk], what)
        again = unparsed(items)
        if again:
            whole = [chunk[at].line(index, whole=True) for at in again]
            for at, item in zip(again, await self._bulk.send(self._pool, index, whole, what), strict=True):
                items[at] = item
        return items

    def _conditional(self, prepared: Prepared, hit: Mapping[str, Any] | None, now: str) -> Prepared:
        if hit is None:
            return prepared.sent(b"", times_json(now, now))
        head = b'{"index":{"_id":' + prepared.identity + condition(version_of(hit)) + b"}}\n"
        times = times_json(hit["_source"]["created_at"], now)
        if self._kind is not WriteKind.UPDATE:
            return prepared.sent(head, times)
        data, metadata = contents(hit["_source"])
        data = {**data, **decode(prepared.data)}
        metadata = {**metadata, **decode(prepared.metadata)}
        text, beside = encode(data), encode(metadata, "metadata") if metadata else b"{}"
        if len(text) + len(beside) > LARGEST:
            raise InvalidRecordError(f"data: the merged record has more than {LARGEST} bytes", path="data")
        merged = shaped(self._index, prepared.at, prepared.identity, text, beside, data, metadata)
        merged.head, merged.times = head, times
        return merged
