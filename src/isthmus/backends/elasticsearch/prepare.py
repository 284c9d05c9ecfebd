"""Changes made ready to be sent: encoded, with the shape of their fields, in chunks of distinct ids."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import orjson

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.mutation_batch import MutationBatch
from isthmus._values import decode
from isthmus.backends.elasticsearch import CAPABILITIES, vectors
from isthmus.backends.elasticsearch.bulk import Bulk
from isthmus.backends.elasticsearch.creates import NO_METADATA, Creates, ending
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.layout import document, time_text, whole_document
from isthmus.backends.elasticsearch.shape import Foreign, Shape, Shapes, needs_look, walk
from isthmus.errors import InvalidRecordError

LARGEST = CAPABILITIES.max_record_bytes or 0
_TOKEN = re.compile(r"(0|[1-9][0-9]{0,17})\.[1-9][0-9]{0,17}")
_NO_SHAPE = Shape()
json_of = orjson.dumps


class Prepared:
    """A change ready to be sent but for its fields' types and its times."""

    __slots__ = ("at", "beside", "data", "head", "identity", "metadata", "metadata_shape", "shape", "times")

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
        self.beside = b""
        """The vectors, as what follows the data in a document."""

    def sent(self, head: bytes, times: bytes) -> Prepared:
        """Return the same change with the action and the times of an attempt."""
        shapes = self.shape, self.metadata_shape
        same = Prepared(self.at, self.identity, self.data, self.metadata, *shapes, head, times)
        same.beside = self.beside
        return same

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
            end = ending(index, self.shape, other)
            text = document(self.identity, self.data + self.beside, self.metadata, self.times, end)
        head = self.head or b'{"create":{"_id":%b}}\n' % self.identity
        return b"".join((head, text, b"\n"))


def shaped(
    index: Index, at: int, identity: bytes, data: bytes, metadata: bytes, given: Any, given_metadata: Any
) -> Prepared:
    """Return a change with its encoded data; `given` is the data as it was before, if there is one."""
    shape = shape_of(index.data_shapes, data, given)
    beside = None
    if metadata != NO_METADATA:
        beside = shape_of(index.metadata_shapes, metadata, given_metadata)
    prepared = Prepared(at, identity, data, metadata, shape, beside)
    if index.vectors:
        prepared.beside = vectors.beside(index.vectors, data)
    return prepared


def creates(
    index: Index,
    bulk: Bulk,
    max_bytes: int,
    mutations: Sequence[Mutation],
    positions: Sequence[int],
    results: list[ItemResult | None],
) -> Generator[Creates, None, None]:
    """Yield chunks of creates; encodes while earlier ones are under way."""
    shapes, beside = index.data_shapes, index.metadata_shapes
    chunk, size = begun(), 0
    for at in positions:
        mutation = mutations[at]
        try:
            data, metadata = encoded(mutation)
        except InvalidRecordError as error:
            error.record_id = mutation.id
            results[at] = error
            continue
        length = len(data) + len(metadata) + 200
        if size and (len(chunk.at) >= bulk.size or size + length > max_bytes):
            yield chunk
            chunk, size = begun(), 0
        shape = shape_of(shapes, data, mutation.data)
        if metadata == NO_METADATA and not index.vectors:
            chunk.add(at, json_of(mutation.id), data, shape)
        else:
            other = None if metadata == NO_METADATA else shape_of(beside, metadata, mutation.metadata)
            near = vectors.beside(index.vectors, data) if index.vectors else b""
            chunk.add(at, json_of(mutation.id), data, shape, metadata, other, near)
            length += len(near)
        size += length
    if size:
        yield chunk


def chunks(
    index: Index,
    bulk: Bulk,
    max_bytes: int,
    kind: WriteKind,
    mutations: Sequence[Mutation],
    positions: Sequence[int],
    results: list[ItemResult | None],
) -> Generator[list[Prepared], None, None]:
    """Yield chunks of prepared changes; encodes while earlier ones are under way."""
    chunk: list[Prepared] = []
    size = 0
    for at in positions:
        try:
            prepared = _prepare(index, kind, at, mutations[at])
        except InvalidRecordError as error:
            error.record_id = mutations[at].id
            results[at] = error
            continue
        length = len(prepared.data) + len(prepared.metadata)
        if chunk and (len(chunk) >= bulk.size or size + length > max_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(prepared)
        size += length + 200
    if chunk:
        yield chunk


def _prepare(index: Index, kind: WriteKind, at: int, mutation: Mutation) -> Prepared:
    identity = json_of(mutation.id)
    if kind is WriteKind.DELETE:
        return Prepared(at, identity, b"", b"", _NO_SHAPE, None)
    data, metadata = encoded(mutation)
    return shaped(index, at, identity, data, metadata, mutation.data, mutation.metadata)


def begun() -> Creates:
    """Return a chunk of creates with the time that they have."""
    now = time_text(dt.datetime.now(dt.UTC))
    return Creates(now)


def encoded(mutation: Mutation) -> tuple[bytes, bytes]:
    """Return a change's data and metadata as JSON, of a size that can be stored."""
    data = mutation.encoded()
    metadata = NO_METADATA
    if mutation.metadata or mutation.raw_metadata is not None:
        metadata = mutation.encoded_metadata()
    length = len(data) + len(metadata)
    if length > LARGEST:
        raise InvalidRecordError(f"data: the record has {length} bytes, more than {LARGEST}", path="data")
    return data, metadata


def shape_of(shapes: Shapes, encoded: bytes, given: Any) -> Shape:
    """Return the shape of an encoded record; `given` is what it was before, if there is that."""
    if needs_look(encoded):
        return walk(decode(encoded), shapes.root)
    if type(given) is dict:
        try:
            return shapes.of(given)
        except Foreign:
            pass
    return shapes.of(decode(encoded))


def rounds(mutations: Sequence[Mutation]) -> list[Sequence[int]]:
    """Return positions in rounds without a repeated id: the k-th change of an id is in the k-th round."""
    ids = (
        set(mutations.ids)
        if isinstance(mutations, MutationBatch)
        else {mutation.id for mutation in mutations}
    )
    if len(ids) == len(mutations):
        return [range(len(mutations))] if mutations else []
    seen: dict[str, int] = {}
    rounds: list[list[int]] = []
    for at, mutation in enumerate(mutations):
        turn = seen.get(mutation.id, 0)
        seen[mutation.id] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(at)
    return list(rounds)


def condition(version: str | None) -> bytes:
    """Return the part of an action that makes it conditional; the token is ours or fits no record."""
    if version is None:
        return b""
    number, _, term = version.partition(".")
    if _TOKEN.fullmatch(version) is None:
        number, term = str(2**62), "1"
    return f',"if_seq_no":{number},"if_primary_term":{term}'.encode()
