"""Lines of a bulk request: the action and the document of each mutation, as bytes.

The end of a document depends on the index's mapping, so a line is encoded only when its fields
have been mapped.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.layout import (
    document,
    encode_marks,
    field_mark,
    raw_document,
    time_text,
    times_json,
)
from isthmus.backends.elasticsearch.shape import RecordShape

NO_METADATA = b"{}"
_CREATE = b'{"create":{"_id":%b}}\n{"id":%b,"data":%b%b'
_NO_SHAPE = RecordShape()
# See `version_of`.
_TOKEN = re.compile(r"(?P<number>0|[1-9][0-9]{0,17})\.(?P<term>[1-9][0-9]{0,17})\.(?P<index>.+)")
json_of = orjson.dumps


@dataclass(slots=True)
class BulkLine:
    """One mutation, ready to be encoded as the action and the document of a bulk request.

    `position` is its index in the batch, `id_json` its id as JSON. `vectors` is what follows the data
    in its document, `head` the action line (empty for a create), `times` the document's times.
    """

    position: int
    id_json: bytes
    data: bytes = b""
    metadata: bytes = NO_METADATA
    shape: RecordShape = _NO_SHAPE
    metadata_shape: RecordShape | None = None
    vectors: bytes = b""
    head: bytes = b""
    times: bytes = b""

    def with_action(self, head: bytes, times: bytes) -> BulkLine:
        """Return the same mutation with the action and the times of one attempt."""
        content = self.data, self.metadata, self.shape, self.metadata_shape, self.vectors
        return BulkLine(self.position, self.id_json, *content, head, times)

    def shapes(self) -> Iterator[RecordShape]:
        """Yield the shapes of the data and, if there is any, of the metadata."""
        yield self.shape
        if self.metadata_shape is not None:
            yield self.metadata_shape

    def encode(self, index: CollectionIndex, *, as_text: bool = False) -> bytes:
        """Return the action and the document; with `as_text` the record is stored as text, unindexed."""
        metadata_shape = self.metadata_shape
        refused = self.shape.refused or (metadata_shape is not None and metadata_shape.refused)
        if as_text or refused:
            text = raw_document(self.id_json, self.data, self.metadata, self.times)
        else:
            suffix = _suffix(index, self.shape, metadata_shape)
            text = document(self.id_json, self.data + self.vectors, self.metadata, self.times, suffix)
        head = self.head or b'{"create":{"_id":%b}}\n' % self.id_json
        return b"".join((head, text, b"\n"))


def _suffix(index: CollectionIndex, shape: RecordShape, metadata_shape: RecordShape | None) -> bytes:
    """Return the end of a document whose data and metadata have these shapes."""
    suffix = index.suffix_of(shape)
    if suffix is None:
        suffix = shape.encode_suffix(index.types)
    if metadata_shape is None or index.suffix_of(metadata_shape) == b"":
        return suffix
    unindexed = shape.list_unindexed(index.types) + metadata_shape.list_unindexed(index.types)
    return encode_marks(unindexed, sorted(map(field_mark, shape.objects | metadata_shape.objects)))


class CreateLines:
    """The creates of one bulk request.

    Most records have a shape whose fields are all mapped: their lines are formatted at once, many in
    one step, since an object for each record would cost more than its bytes. The others wait as
    `BulkLine` objects until their fields are mapped.
    """

    __slots__ = ("_lines", "_pending", "_tails", "_times", "positions", "time")

    def __init__(self) -> None:
        self.positions: list[int] = []
        """The indexes in the batch."""
        self.time = time_text(dt.datetime.now(dt.UTC))
        """When the records are created."""
        self._times = times_json(self.time, self.time)
        self._lines: list[bytes] = []
        # By index in this request.
        self._pending: dict[int, BulkLine] = {}
        # The end of a line, by the suffix that its shape gives: few, and each serves many records.
        self._tails: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self.positions)

    def add(self, position: int, id_json: bytes, data: bytes, shape: RecordShape) -> None:
        """Add a record without metadata and vectors."""
        suffix = shape.suffix
        if suffix is None or shape.refused:
            self.add_line(BulkLine(position, id_json, data, shape=shape))
            return
        tail = self._tails.get(suffix)
        if tail is None:
            tail = self._tails[suffix] = self._times + suffix + b"}\n"
        self._lines.append(_CREATE % (id_json, id_json, data, tail))
        self.positions.append(position)

    def add_line(self, line: BulkLine) -> None:
        """Add any record."""
        line.times = self._times
        self._pending[len(self.positions)] = line
        self._lines.append(b"")
        self.positions.append(line.position)

    def add_many(
        self,
        positions: Sequence[int],
        ids_json: Sequence[str],
        texts: Sequence[str],
        shapes: Sequence[RecordShape],
    ) -> None:
        """Add records without metadata and vectors; `texts` are their data as JSON."""
        distinct = set(shapes)
        if any(shape.suffix is None or shape.refused for shape in distinct):
            for position, id_json, text, shape in zip(positions, ids_json, texts, shapes, strict=True):
                self.add(position, id_json.encode(), text.encode(), shape)
            return
        tails = {shape: f"{self._times.decode()}{(shape.suffix or b'').decode()}}}\n" for shape in distinct}
        self._lines += [
            f'{{"create":{{"_id":{id_json}}}}}\n{{"id":{id_json},"data":{text}{tails[shape]}'.encode()
            for id_json, text, shape in zip(ids_json, texts, shapes, strict=True)
        ]
        self.positions += positions

    def shapes(self) -> Iterator[RecordShape]:
        """Yield the shapes whose fields may not be mapped yet, one for each record."""
        for line in self._pending.values():
            yield from line.shapes()

    def encode(self, index: CollectionIndex) -> list[bytes]:
        """Return the actions and documents."""
        lines = self._lines
        for number, line in self._pending.items():
            lines[number] = line.encode(index)
        return lines

    def encode_as_text(self, index: CollectionIndex, id: str, data: bytes, metadata: bytes) -> bytes:
        """Return the action and the document of a record that the server refused to index."""
        return BulkLine(0, json_of(id), data, metadata, times=self._times).encode(index, as_text=True)


def encode_delete(id_json: bytes, condition: bytes = b"") -> bytes:
    """Return the action that deletes a record; with a `version_condition`, only if that is met."""
    return b'{"delete":{"_id":' + id_json + condition + b"}}\n"


def version_condition(version: str | None, index: CollectionIndex) -> bytes:
    """Return the part of an action that makes it conditional on a version; empty for None.

    A token of another index, or one that isthmus cannot have made, becomes a condition that no record
    meets.
    """
    if version is None:
        return b""
    token = _TOKEN.fullmatch(version)
    if token is None or token["index"] != index.uuid:
        return b',"if_seq_no":%d,"if_primary_term":1' % 2**62
    return f',"if_seq_no":{token["number"]},"if_primary_term":{token["term"]}'.encode()
