"""Replace, update and upsert: read the records, then write each on condition that it has not changed."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus._core.apply import merge_documents, refusal
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.layout import time_text, times_json, version_of
from isthmus.backends.elasticsearch.read.documents import contents, get_many
from isthmus.backends.elasticsearch.write.bulk import BulkItem, BulkSender
from isthmus.backends.elasticsearch.write.bulk_chunks import check_size, make_line
from isthmus.backends.elasticsearch.write.bulk_lines import BulkLine, version_condition
from isthmus.backends.elasticsearch.write.bulk_results import (
    action_of,
    find_rejected,
    race_lost,
    replace_result,
)
from isthmus.errors import InvalidRecordError

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5


@dataclass(slots=True)
class MergeWrite:
    """One chunk of mutations of one kind, tried until each is applied or refused."""

    pool: ClientPool
    index: CollectionIndex
    bulk: BulkSender
    kind: WriteKind
    mutations: Sequence[Mutation]
    results: list[ItemResult | None]
    attempts: int

    async def apply(self, chunk: list[BulkLine]) -> None:
        """Fill in the results of a chunk: one read and one bulk request for each attempt."""
        pending = chunk
        for attempt in range(self.attempts):
            if attempt:
                pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
                await asyncio.sleep(random.random() * pause)  # noqa: S311 - jitter, not a secret
            pending = await self._attempt(pending)
            if not pending:
                return
        for line in pending:
            self.results[line.position] = race_lost(self.mutations[line.position], self.attempts)

    async def _attempt(self, pending: Sequence[BulkLine]) -> list[BulkLine]:
        """Apply mutations and return those that another writer was faster than."""
        lines = await self._condition(pending)
        if not lines:
            return []
        await self.index.ensure_mapped(self.pool, [shape for line in lines for shape in line.shapes()])
        originals = {line.position: line for line in pending}
        outrun = []
        for line, item in zip(lines, await self._send(lines), strict=True):
            mutation = self.mutations[line.position]
            if item.status == 409 and mutation.if_version is None and not item.is_ambiguous:
                outrun.append(originals[line.position])
                continue
            self.results[line.position] = await replace_result(
                self.pool, self.index, self.kind, mutation, item, line
            )
        return outrun

    async def _condition(self, pending: Sequence[BulkLine]) -> list[BulkLine]:
        """Read the records and return the lines to send; a refused mutation gets its result."""
        kind = self.kind
        needed = None if kind is WriteKind.UPDATE else "created_at"
        ids = [self.mutations[line.position].id for line in pending]
        hits = await get_many(self.pool, self.index, ids, only=needed)
        now = time_text(dt.datetime.now(dt.UTC))
        lines = []
        for line, hit in zip(pending, hits, strict=True):
            mutation = self.mutations[line.position]
            refused = refusal(kind, mutation, None if hit is None else version_of(hit, self.index.uuid))
            if refused is not None:
                self.results[line.position] = refused
                continue
            try:
                lines.append(self._condition_line(line, hit, now))
            except InvalidRecordError as error:  # the merged record is too large
                error.record_id = mutation.id
                self.results[line.position] = error
        return lines

    def _condition_line(self, line: BulkLine, hit: Mapping[str, Any] | None, now: str) -> BulkLine:
        """Return the line that writes a record if it is still as `hit`; a create if there is none."""
        if hit is None:
            return line.with_action(b"", times_json(now, now))
        source = hit["_source"]
        if self.kind is WriteKind.UPDATE:
            data, metadata = merge_documents(*contents(source), line.data, line.metadata)
            check_size(len(data) + len(metadata))
            line = make_line(self.index, line.position, line.id_json, data, metadata)
        condition = version_condition(version_of(hit, self.index.uuid), self.index)
        head = b'{"index":{"_id":' + line.id_json + condition + b"}}\n"
        return line.with_action(head, times_json(source["created_at"], now))

    async def _send(self, lines: Sequence[BulkLine]) -> list[BulkItem]:
        """Send lines; documents that the server cannot parse are sent once more, as text."""
        index, action = self.index, action_of(self.kind, self.index)
        items = await self.bulk.send(self.pool, index, [line.encode(index) for line in lines], action)
        rejected = find_rejected(items)
        if rejected:
            as_text = [lines[number].encode(index, as_text=True) for number in rejected]
            sent = await self.bulk.send(self.pool, index, as_text, action)
            for number, item in zip(rejected, sent, strict=True):
                items[number] = item
        return items
