"""Cuts a batch into bulk requests: encodes mutations into chunks of distinct ids.

Chunks are generated, so that one is encoded while earlier ones are in flight.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.mutation_batch import MAX_BYTES_PER_CHARACTER, MutationBatch, encode_together, quote_ids
from isthmus._values import decode
from isthmus.backends.elasticsearch import vectors
from isthmus.backends.elasticsearch.capabilities import MAX_RECORD_BYTES
from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.shape import NotJsonTypes, RecordShape, ShapeCache, needs_values, walk
from isthmus.backends.elasticsearch.write.bulk import BulkSender
from isthmus.backends.elasticsearch.write.bulk_lines import NO_METADATA, BulkLine, CreateLines, json_of
from isthmus.errors import InvalidRecordError

# Records that are encoded together; a chunk of the usual size is made of whole groups.
_GROUP = 50
# A text of no more characters than this is never too long to be indexed.
_SHORT = 4_000
# Bytes of a line besides the record: action, id, times.
_OVERHEAD = 200


def split_rounds(mutations: Sequence[Mutation]) -> list[Sequence[int]]:
    """Return positions in rounds without a repeated id: the k-th mutation of an id is in the k-th round."""
    ids = mutations.ids if isinstance(mutations, MutationBatch) else [mutation.id for mutation in mutations]
    if len(set(ids)) == len(ids):
        return [range(len(ids))] if ids else []
    seen: dict[str, int] = {}
    rounds: list[list[int]] = []
    for position, id in enumerate(ids):
        number = seen.get(id, 0)
        seen[id] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(position)
    return list(rounds)


@dataclass(slots=True)
class BatchEncoder:
    """Encodes a batch into chunks of at most `bulk.size` records and about `max_bytes` bytes.

    An invalid record is in no chunk; its error becomes its result.
    """

    index: CollectionIndex
    bulk: BulkSender
    max_bytes: int
    mutations: Sequence[Mutation]
    results: list[ItemResult | None]

    def creates(self, positions: Sequence[int]) -> Generator[CreateLines, None, None]:
        """Yield the creates at these positions of the batch."""
        index = self.index
        chunk, size = CreateLines(), 0
        for position in positions:
            mutation = self.mutations[position]
            if (encoded := self._encode(position, mutation)) is None:
                continue
            data, metadata = encoded
            length = len(data) + len(metadata) + _OVERHEAD
            if self._is_full(chunk, size + length):
                yield chunk
                chunk, size = CreateLines(), 0
            id_json = json_of(mutation.id)
            if metadata == NO_METADATA and not index.vectors:
                chunk.add(position, id_json, data, shape_of(index.data_shapes, data, mutation.data))
            else:
                line = make_line(index, position, id_json, data, metadata, mutation.data, mutation.metadata)
                chunk.add_line(line)
                length += len(line.vectors)
            size += length
        if chunk:
            yield chunk

    def lines(self, kind: WriteKind, positions: Sequence[int]) -> Generator[list[BulkLine], None, None]:
        """Yield the mutations of another kind at these positions of the batch."""
        chunk: list[BulkLine] = []
        size = 0
        for position in positions:
            mutation = self.mutations[position]
            line = BulkLine(position, json_of(mutation.id))
            if kind is not WriteKind.DELETE:
                if (encoded := self._encode(position, mutation)) is None:
                    continue
                originals = mutation.data, mutation.metadata
                line = make_line(self.index, position, line.id_json, *encoded, *originals)
            length = len(line.data) + len(line.metadata)
            if self._is_full(chunk, size + length):
                yield chunk
                chunk, size = [], 0
            chunk.append(line)
            size += length + _OVERHEAD
        if chunk:
            yield chunk

    def _is_full(self, chunk: CreateLines | list[BulkLine], size: int, more: int = 1) -> bool:
        """Return whether a chunk has to be sent before it grows by `more` records to `size` bytes."""
        return bool(chunk) and (len(chunk) + more > self.bulk.size or size > self.max_bytes)

    def _encode(self, position: int, mutation: Mutation) -> tuple[bytes, bytes] | None:
        try:
            return encode_mutation(mutation)
        except InvalidRecordError as error:
            error.record_id = mutation.id
            self.results[position] = error
            return None

    def is_groupable(self, positions: Sequence[int]) -> bool:
        """Return whether `creates_in_groups` can encode the batch; `positions` are those to be encoded."""
        batch = self.mutations
        if not isinstance(batch, MutationBatch) or self.index.vectors:
            return False
        return len(positions) == len(batch) and batch.plain is not None

    def creates_in_groups(self) -> Generator[CreateLines, None, None]:
        """Yield all creates of a plain `MutationBatch`, as `creates` does at three times its cost.

        Records are encoded in groups: work that is the same for all of them is done once.
        """
        batch = MutationBatch.of(self.mutations)
        data, ids = batch.plain or (), quote_ids(batch.ids)
        chunk, size, start = CreateLines(), 0, 0
        while start < len(ids):
            stop = min(start + min(_GROUP, self.bulk.size), len(ids))
            items = data[start:stop]
            texts = self._encode_group(items, batch.ids[start:stop], start)
            positions = [position for position, text in enumerate(texts, start) if text is not None]
            valid = [text for text in texts if text is not None]
            if len(positions) < len(items):
                items = [data[position] for position in positions]
            start = stop
            for part in _split_group(valid, self.max_bytes):
                chosen, length = positions[part], _max_bytes_of(valid[part])
                if self._is_full(chunk, size + length, len(chosen)):
                    yield chunk
                    chunk, size = CreateLines(), 0
                shapes = _shapes_of_group(self.index.data_shapes, items[part], valid[part])
                chunk.add_many(chosen, [ids[position] for position in chosen], valid[part], shapes)
                size += length
        if chunk:
            yield chunk

    def _encode_group(self, items: Sequence[Any], ids: Sequence[str], start: int) -> Sequence[str | None]:
        """Return records as JSON; None for an invalid one."""
        together = encode_together(items, MAX_RECORD_BYTES)
        if together is not None:
            return together
        texts: list[str | None] = []
        for position, (item, id) in enumerate(zip(items, ids, strict=True), start):
            encoded = self._encode(position, Mutation(id, item))
            texts.append(None if encoded is None else encoded[0].decode())
        return texts


def make_line(
    index: CollectionIndex,
    position: int,
    id_json: bytes,
    data: bytes,
    metadata: bytes,
    original: Any = None,
    original_metadata: Any = None,
) -> BulkLine:
    """Return the line of a record; `original` is its data before encoding, None if only `data` is there."""
    shape = shape_of(index.data_shapes, data, original)
    metadata_shape = None
    if metadata != NO_METADATA:
        metadata_shape = shape_of(index.metadata_shapes, metadata, original_metadata)
    extra = vectors.encode(index.vectors, data) if index.vectors else b""
    return BulkLine(position, id_json, data, metadata, shape, metadata_shape, extra)


def encode_mutation(mutation: Mutation) -> tuple[bytes, bytes]:
    """Return data and metadata as JSON; raises `InvalidRecordError`, also for a record that is too large."""
    data = mutation.encode()
    metadata = NO_METADATA
    if mutation.metadata or mutation.raw_metadata is not None:
        metadata = mutation.encode_metadata()
    check_size(len(data) + len(metadata))
    return data, metadata


def check_size(length: int) -> None:
    """Raise `InvalidRecordError` for a record of so many bytes if that is too large."""
    if length > MAX_RECORD_BYTES:
        raise InvalidRecordError(
            f"data: the record has {length} bytes, more than {MAX_RECORD_BYTES}", path="data"
        )


def shape_of(shapes: ShapeCache, encoded: bytes, original: Any) -> RecordShape:
    """Return the shape of an encoded record; `original` is the value before encoding, if it is there."""
    if needs_values(encoded):
        return walk(decode(encoded), shapes.root)
    if type(original) is dict:
        try:
            return shapes.of(original)
        except NotJsonTypes:
            pass
    return shapes.of(decode(encoded))


def _split_group(texts: list[str], max_bytes: int) -> Iterator[slice]:
    """Yield the parts of a group that go into one request: all of it, or each record if it is large."""
    if _max_bytes_of(texts) <= max_bytes:
        if texts:
            yield slice(None)
        return
    for number in range(len(texts)):
        yield slice(number, number + 1)


def _max_bytes_of(texts: list[str]) -> int:
    """Return a bound on the bytes of the lines of these records."""
    length = sum(map(len, texts))
    ascii_only = all(map(str.isascii, texts))
    return (length if ascii_only else length * MAX_BYTES_PER_CHARACTER) + _OVERHEAD * len(texts)


def _shapes_of_group(shapes: ShapeCache, items: Sequence[Any], texts: list[str]) -> list[RecordShape]:
    if len(max(texts, key=len)) <= _SHORT and not needs_values("".join(texts).encode(), long=False):
        try:
            return shapes.of_many(items)
        except NotJsonTypes:
            pass
    return [shape_of(shapes, text.encode(), item) for text, item in zip(texts, items, strict=True)]
