"""Writes: the five kinds as bulk requests, compare-and-set where a record must be read first."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import random
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from isthmus._executor import Change, Kind, Result, refusal
from isthmus._values import decode, encode
from isthmus.backends.elasticsearch import CAPABILITIES
from isthmus.backends.elasticsearch.bulk import Bulk, Item, finished
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.creates import NO_METADATA, Creates, ending
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.layout import (
    document,
    time_text,
    times_json,
    version_of,
    whole_document,
)
from isthmus.backends.elasticsearch.read import get_many
from isthmus.backends.elasticsearch.shape import Foreign, Shape, Shapes, needs_look, walk
from isthmus.backends.elasticsearch.stored import contents
from isthmus.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidRecordError,
    IsthmusError,
    StoreError,
    UnavailableError,
)

_LARGEST = CAPABILITIES.max_record_bytes or 0
_REFUSED = ("parsing", "illegal_argument", "mapper", "input_coercion", "stream_constraints")


_TOKEN = re.compile(r"(0|[1-9][0-9]{0,17})\.[1-9][0-9]{0,17}")


class _Stop(Exception):
    """A request failed as a whole; nothing more is sent."""


class _Prepared:
    """A change ready to be sent but for its fields' types and its times."""

    __slots__ = ("at", "data", "head", "identity", "metadata", "metadata_shape", "shape", "times")

    def __init__(
        self,
        at: int,
        identity: bytes,
        data: bytes,
        metadata: bytes,
        shape: Shape,
        metadata_shape: Shape | None,
        head: bytes = b"",
        times: bytes = b"",
    ) -> None:
        self.at = at
        self.identity = identity
        self.data = data
        self.metadata = metadata
        self.shape = shape
        self.metadata_shape = metadata_shape
        self.head = head
        self.times = times

    def sent(self, head: bytes, times: bytes) -> _Prepared:
        """Return the same change with the action and the times of an attempt."""
        return _Prepared(
            self.at,
            self.identity,
            self.data,
            self.metadata,
            self.shape,
            self.metadata_shape,
            head,
            times,
        )

    def shapes(self) -> Iterator[Shape]:
        yield self.shape
        if self.metadata_shape is not None:
            yield self.metadata_shape

    def line(self, index: Index, *, whole: bool = False) -> bytes:
        """Return the action, a create if there is no other, and the document."""
        other = self.metadata_shape
        if whole or self.shape.refused or (other is not None and other.refused):
            text = whole_document(self.identity, self.data, self.metadata, self.times)
        else:
            text = document(
                self.identity, self.data, self.metadata, self.times, ending(index, self.shape, other)
            )
        head = self.head or b'{"create":{"_id":%b}}\n' % self.identity
        return b"".join((head, text, b"\n"))


class Writer:
    """One write of one kind to one index."""

    def __init__(self, pool: ClientPool, index: Index, bulk: Bulk, *, attempts: int, max_bytes: int) -> None:
        self._pool = pool
        self._index = index
        self._bulk = bulk
        self._attempts = attempts
        self._max_bytes = max_bytes

    async def write(self, kind: Kind, changes: Sequence[Change]) -> list[Result]:
        """Apply changes as if one after another and return a result for each, in order."""
        results: list[Result | None] = [None] * len(changes)
        try:
            for positions in _rounds(changes):
                await self._round(kind, changes, positions, results)
        except _Stop as stop:
            failure = stop.__cause__
            assert isinstance(failure, StoreError)
            if all(result is None or result is failure for result in results):
                raise failure from failure.__cause__
            unsent = UnavailableError(f"not sent: an earlier part of the batch failed ({failure})")
            results = [unsent if result is None else result for result in results]
        return results  # type: ignore[return-value]

    async def _round(
        self, kind: Kind, changes: Sequence[Change], positions: Sequence[int], results: list[Result | None]
    ) -> None:
        """Apply changes of distinct ids, some chunks at a time."""
        running: set[asyncio.Task[None]] = set()
        chunks = self._prepared(kind, changes, positions, results)
        first = next(chunks, None)
        if first is None:
            return
        if len(first) == len(positions):  # one chunk needs no task of its own
            await self._guarded(kind, changes, first, results)
            return
        waiting = itertools.chain([first], chunks)
        running = {
            asyncio.create_task(self._worker(number, kind, changes, waiting, results))
            for number in range(self._bulk.concurrency)
        }
        try:
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            chunks.close()  # nobody begins another
            if running:
                await self._settle(running)

    def _prepared(
        self, kind: Kind, changes: Sequence[Change], positions: Sequence[int], results: list[Result | None]
    ) -> Generator[Creates | list[_Prepared], None, None]:
        if kind is Kind.CREATE:
            return self._creates(changes, positions, results)
        return self._chunks(kind, changes, positions, results)

    async def _worker(
        self,
        number: int,
        kind: Kind,
        changes: Sequence[Change],
        chunks: Iterator[Creates | list[_Prepared]],
        results: list[Result | None],
    ) -> None:
        """Prepare and send chunks, each as soon as it is prepared, unless fewer are to be in flight now."""
        while number < self._bulk.concurrency:
            chunk = next(chunks, None)
            if chunk is None:
                return
            await self._guarded(kind, changes, chunk, results)

    async def _settle(self, running: set[asyncio.Task[None]]) -> None:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            await finished(running)
            return
        # A chunk that is under way may be applied: its results must be known, not guessed.
        await asyncio.gather(*running, return_exceptions=True)

    async def _guarded(
        self,
        kind: Kind,
        changes: Sequence[Change],
        chunk: Creates | list[_Prepared],
        results: list[Result | None],
    ) -> None:
        try:
            if isinstance(chunk, Creates):
                await self._create(changes, chunk, results)
            elif kind is Kind.DELETE:
                await self._delete(changes, chunk, results)
            else:
                await self._merged(kind, changes, chunk, results)
        except StoreError as error:
            places = chunk.at if isinstance(chunk, Creates) else [prepared.at for prepared in chunk]
            for at in places:
                if results[at] is None:
                    results[at] = error
            raise _Stop from error

    def _creates(
        self, changes: Sequence[Change], positions: Sequence[int], results: list[Result | None]
    ) -> Generator[Creates, None, None]:
        """Yield chunks of creates; encodes while earlier ones are under way."""
        shapes, beside = self._index.data_shapes, self._index.metadata_shapes
        chunk, size = _begun(), 0
        for at in positions:
            change = changes[at]
            try:
                data, metadata = _encoded(change)
            except InvalidRecordError as error:
                error.record_id = change.id
                results[at] = error
                continue
            length = len(data) + len(metadata) + 200
            if size and (len(chunk.at) >= self._bulk.size or size + length > self._max_bytes):
                yield chunk
                chunk, size = _begun(), 0
            shape = _shape(shapes, data, change.data)
            if metadata == NO_METADATA:
                chunk.add(at, _json(change.id), data, shape)
            else:
                other = _shape(beside, metadata, change.metadata)
                chunk.add(at, _json(change.id), data, shape, metadata, other)
            size += length
        if size:
            yield chunk

    def _chunks(
        self, kind: Kind, changes: Sequence[Change], positions: Sequence[int], results: list[Result | None]
    ) -> Generator[list[_Prepared], None, None]:
        """Yield chunks of prepared changes; encodes while earlier ones are under way."""
        chunk: list[_Prepared] = []
        size = 0
        for at in positions:
            try:
                prepared = self._prepare(kind, at, changes[at])
            except InvalidRecordError as error:
                error.record_id = changes[at].id
                results[at] = error
                continue
            length = len(prepared.data) + len(prepared.metadata)
            if chunk and (len(chunk) >= self._bulk.size or size + length > self._max_bytes):
                yield chunk
                chunk, size = [], 0
            chunk.append(prepared)
            size += length + 200
        if chunk:
            yield chunk

    def _prepare(self, kind: Kind, at: int, change: Change) -> _Prepared:
        identity = _json(change.id)
        if kind is Kind.DELETE:
            return _Prepared(at, identity, b"", b"", _NO_SHAPE, None)
        data, metadata = _encoded(change)
        return self._shaped(at, identity, data, metadata, change.data, change.metadata)

    def _shaped(
        self, at: int, identity: bytes, data: bytes, metadata: bytes, given: Any, given_metadata: Any
    ) -> _Prepared:
        shape = _shape(self._index.data_shapes, data, given)
        beside = None
        if metadata != b"{}":
            beside = _shape(self._index.metadata_shapes, metadata, given_metadata)
        return _Prepared(at, identity, data, metadata, shape, beside)

    async def _grow(self, shapes: Iterable[Shape]) -> None:
        """Map the fields of these shapes, one for each record: each has a vote on a new field's type."""
        index = self._index
        shapes = list(shapes)
        if any(shape.suffix is None and index.ending(shape) is None for shape in set(shapes)):
            new = [shape for shape in shapes if shape.suffix is None and index.ending(shape) is None]
            await index.grow(self._pool, new)

    async def _create(self, changes: Sequence[Change], chunk: Creates, results: list[Result | None]) -> None:
        index, doing = self._index, self._doing(Kind.CREATE)
        await self._grow(chunk.shapes())
        items = await self._bulk.send(self._pool, index, chunk.lines(index), doing, creates=True)
        again = _unparsed(items)
        if again:
            refused = [changes[chunk.at[place]] for place in again]
            whole = [chunk.whole(_json(change.id), *_encoded(change)) for change in refused]
            for place, item in zip(
                again, await self._bulk.send(self._pool, index, whole, doing), strict=True
            ):
                items[place] = item
        for at, item in zip(chunk.at, items, strict=True):
            change = changes[at]
            results[at] = change.id if item.status == 201 else self._uncreated(change, item)

    async def _delete(
        self, changes: Sequence[Change], chunk: list[_Prepared], results: list[Result | None]
    ) -> None:
        lines = [
            b'{"delete":{"_id":' + p.identity + _condition(changes[p.at].if_version) + b"}}\n" for p in chunk
        ]
        items = await self._bulk.send(self._pool, self._index, lines, self._doing(Kind.DELETE))
        for prepared, item in zip(chunk, items, strict=True):
            results[prepared.at] = self._deleted(changes[prepared.at], item)

    async def _send(self, kind: Kind, chunk: Sequence[_Prepared]) -> list[Item]:
        """Send documents; those that the server cannot parse go once more, as one text each."""
        index, doing = self._index, self._doing(kind)
        items = await self._bulk.send(self._pool, index, [p.line(index) for p in chunk], doing)
        again = _unparsed(items)
        if again:
            whole = [chunk[at].line(index, whole=True) for at in again]
            for at, item in zip(again, await self._bulk.send(self._pool, index, whole, doing), strict=True):
                items[at] = item
        return items

    async def _merged(
        self, kind: Kind, changes: Sequence[Change], chunk: list[_Prepared], results: list[Result | None]
    ) -> None:
        """Replace, update or upsert: read, then write on condition that nothing changed in between."""
        pending = chunk
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(random.random() * min(0.01 * 2**attempt, 0.5))  # noqa: S311
            wanted = None if kind is Kind.UPDATE else "created_at"
            hits = await get_many(self._pool, self._index, [changes[p.at].id for p in pending], only=wanted)
            now = time_text(dt.datetime.now(dt.UTC))
            ready = []
            for prepared, hit in zip(pending, hits, strict=True):
                change = changes[prepared.at]
                no = refusal(kind, change, None if hit is None else version_of(hit))
                if no is not None:
                    results[prepared.at] = no
                    continue
                try:
                    ready.append((prepared, self._conditional(kind, change, prepared, hit, now)))
                except InvalidRecordError as error:  # the merged record is too large
                    error.record_id = change.id
                    results[prepared.at] = error
            if not ready:
                return
            documents = [document for _, document in ready]
            await self._grow(shape for document in documents for shape in document.shapes())
            items = await self._send(kind, documents)
            pending = []
            for (prepared, _), item in zip(ready, items, strict=True):
                change = changes[prepared.at]
                if item.status == 409 and change.if_version is None:
                    pending.append(prepared)
                else:
                    results[prepared.at] = self._replaced(kind, change, item)
            if not pending:
                return
        for prepared in pending:
            results[prepared.at] = ConflictError(
                f"{kind.value}: others changed the record in each of {self._attempts} attempts",
                record_id=changes[prepared.at].id,
            )

    def _conditional(
        self, kind: Kind, change: Change, prepared: _Prepared, hit: Mapping[str, Any] | None, now: str
    ) -> _Prepared:
        if hit is None:
            return prepared.sent(b"", times_json(now, now))
        head = b'{"index":{"_id":' + prepared.identity + _condition(version_of(hit)) + b"}}\n"
        times = times_json(hit["_source"]["created_at"], now)
        if kind is not Kind.UPDATE:
            return prepared.sent(head, times)
        data, metadata = contents(hit["_source"])
        data = {**data, **decode(prepared.data)}
        metadata = {**metadata, **decode(prepared.metadata)}
        text, beside = encode(data), encode(metadata, "metadata") if metadata else b"{}"
        if len(text) + len(beside) > _LARGEST:
            raise InvalidRecordError(f"data: the merged record has more than {_LARGEST} bytes", path="data")
        merged = self._shaped(prepared.at, prepared.identity, text, beside, data, metadata)
        merged.head, merged.times = head, times
        return merged

    def _doing(self, kind: Kind) -> str:
        return f"{kind.value} in {self._index.name}"

    def _uncreated(self, change: Change, item: Item) -> IsthmusError:
        if item.status == 409:
            return AlreadyExistsError(f"a record {change.id!r} exists", record_id=change.id)
        return self._failure(Kind.CREATE, change, item)

    def _deleted(self, change: Change, item: Item) -> Result:
        if item.status == 409:
            return _conflict(change)
        if item.status == 404 and not item.kind:
            return False
        return True if item.status == 200 else self._failure(Kind.DELETE, change, item)

    def _replaced(self, kind: Kind, change: Change, item: Item) -> Result:
        if item.status == 409:
            return _conflict(change)
        return item.version if item.status in (200, 201) else self._failure(kind, change, item)

    def _failure(self, kind: Kind, change: Change, item: Item) -> IsthmusError:
        if item.status == 413:
            return InvalidRecordError(f"data: {item.reason}", path="data", record_id=change.id)
        if item.status == 404 and "index_not_found" in item.kind:
            return self._index.gone()
        return item.failure(f"{self._doing(kind)} ({change.id!r})")


_NO_SHAPE = Shape()
_json = orjson.dumps


def _begun() -> Creates:
    now = time_text(dt.datetime.now(dt.UTC))
    return Creates(times_json(now, now))


def _encoded(change: Change) -> tuple[bytes, bytes]:
    """Return a change's data and metadata as JSON, of a size that can be stored."""
    data = change.encoded()
    metadata = NO_METADATA
    if change.metadata or change.raw_metadata is not None:
        metadata = change.encoded_metadata()
    length = len(data) + len(metadata)
    if length > _LARGEST:
        raise InvalidRecordError(f"data: the record has {length} bytes, more than {_LARGEST}", path="data")
    return data, metadata


def _unparsed(items: Sequence[Item]) -> list[int]:
    """Return the places of documents that the server could not parse."""
    return [
        at
        for at, item in enumerate(items)
        if item.status == 400 and any(sign in item.kind for sign in _REFUSED)
    ]


def _shape(shapes: Shapes, encoded: bytes, given: Any) -> Shape:
    if needs_look(encoded):
        return walk(decode(encoded), shapes.root)
    if type(given) is dict:
        try:
            return shapes.of(given)
        except Foreign:
            pass
    return shapes.of(decode(encoded))


def _rounds(changes: Sequence[Change]) -> list[Sequence[int]]:
    """Return positions in rounds without a repeated id: the k-th change of an id is in the k-th round."""
    if len({change.id for change in changes}) == len(changes):
        return [range(len(changes))] if changes else []
    seen: dict[str, int] = {}
    rounds: list[list[int]] = []
    for at, change in enumerate(changes):
        turn = seen.get(change.id, 0)
        seen[change.id] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(at)
    return list(rounds)


def _conflict(change: Change) -> ConflictError:
    return ConflictError(
        f"record {change.id!r} is not at version {change.if_version!r} any more", record_id=change.id
    )


def _condition(version: str | None) -> bytes:
    """Return the part of an action that makes it conditional; the token is ours or fits no record."""
    if version is None:
        return b""
    number, _, term = version.partition(".")
    if _TOKEN.fullmatch(version) is None:
        number, term = str(2**62), "1"
    return f',"if_seq_no":{number},"if_primary_term":{term}'.encode()
