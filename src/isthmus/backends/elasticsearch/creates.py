"""Creates of one bulk request, in columns: an object for each record would cost more than its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.layout import document, mark, marks, times_json, whole_document
from isthmus.backends.elasticsearch.shape import Shape

NO_METADATA = b"{}"
_LINE = b'{"create":{"_id":%b}}\n{"id":%b,"data":%b%b'


def ending(index: Index, shape: Shape, other: Shape | None) -> bytes:
    """Return the end of a document whose data and metadata have these shapes."""
    end = shape.suffix
    if end is None:
        end = index.ending(shape)
    if end is None:
        end = shape.ending(index.types)
    if other is None or index.ending(other) == b"":
        return end
    odd = shape.odd(index.types) + other.odd(index.types)
    return marks(odd, sorted(map(mark, shape.objects | other.objects)))


class Creates:
    """What is to be created, ready but for the types of new fields."""

    __slots__ = ("_lines", "_pending", "_tails", "_times", "at", "time")

    def __init__(self, time: str) -> None:
        self.at: list[int] = []
        """The places in the batch."""
        self.time = time
        """When the records are created."""
        self._times = times_json(time, time)
        self._lines: list[bytes] = []
        # Records that do not follow from their shape alone, by the place in this request.
        self._pending: dict[int, tuple[bytes, bytes, bytes, Shape, Shape | None, bytes]] = {}
        # What follows the data, by the end that a shape gives: few, and each is many records'.
        self._tails: dict[bytes | None, bytes] = {}

    def __len__(self) -> int:
        return len(self.at)

    def add(
        self,
        at: int,
        identity: bytes,
        data: bytes,
        shape: Shape,
        metadata: bytes = NO_METADATA,
        other: Shape | None = None,
        vectors: bytes = b"",
    ) -> None:
        """Add a record; its id is JSON already. One of a usual shape is formatted in one step.

        `vectors` are what follows the data in a document that is indexed.
        """
        end = shape.suffix
        if end is None or shape.refused or other is not None:
            self._pending[len(self.at)] = (identity, data, metadata, shape, other, vectors)
            self._lines.append(b"")
        else:
            tail = self._tails.get(end)
            if tail is None:
                tail = self._tails[end] = self._times + end + b"}\n"
            self._lines.append(_LINE % (identity, identity, data + vectors if vectors else data, tail))
        self.at.append(at)

    def add_many(
        self, at: Sequence[int], identities: Sequence[str], texts: Sequence[str], shapes: Sequence[Shape]
    ) -> None:
        """Add records without metadata; ids and data are JSON."""
        kinds = set(shapes)
        if any(shape.suffix is None or shape.refused for shape in kinds):
            for place, identity, text, shape in zip(at, identities, texts, shapes, strict=True):
                self.add(place, identity.encode(), text.encode(), shape)
            return
        tails = {shape: f"{self._times.decode()}{(shape.suffix or b'').decode()}}}\n" for shape in kinds}
        self._lines += [
            f'{{"create":{{"_id":{identity}}}}}\n{{"id":{identity},"data":{text}{tails[shape]}'.encode()
            for identity, text, shape in zip(identities, texts, shapes, strict=True)
        ]
        self.at += at

    def shapes(self) -> Iterator[Shape]:
        """Yield the shapes of data and metadata of which something may not be known."""
        for _, _, _, shape, other, _ in self._pending.values():
            yield shape
            if other is not None:
                yield other

    def lines(self, index: Index) -> list[bytes]:
        """Return the actions and documents."""
        lines = self._lines
        for place, (identity, data, metadata, shape, other, vectors) in self._pending.items():
            if shape.refused or (other is not None and other.refused):
                lines[place] = self.whole(identity, data, metadata)
            else:
                end = ending(index, shape, other)
                text = document(identity, data + vectors, metadata, self._times, end)
                lines[place] = b'{"create":{"_id":%b}}\n%b\n' % (identity, text)
        return lines

    def whole(self, identity: bytes, data: bytes, metadata: bytes) -> bytes:
        """Return the action and the document of a record that cannot be indexed."""
        text = whole_document(identity, data, metadata, self._times)
        return b'{"create":{"_id":%b}}\n%b\n' % (identity, text)
