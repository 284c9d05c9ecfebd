"""Creates of plain records, some at a time: what holds for all of them is found out once."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from isthmus._core.executor import ItemResult
from isthmus._core.mutation_batch import MAX_BYTES_PER_CHARACTER, MutationBatch, encode_together, quote_ids
from isthmus._values import encode
from isthmus.backends.elasticsearch.bulk import Bulk
from isthmus.backends.elasticsearch.creates import Creates
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.prepare import LARGEST, begun, shape_of
from isthmus.backends.elasticsearch.shape import Foreign, Shape, Shapes, needs_look
from isthmus.errors import InvalidRecordError

# A chunk of the usual size is made of whole groups.
_TOGETHER = 50
# No text in fewer characters than this is too long to be indexed.
_SHORT = 4_000
_AROUND = 200


def fits(index: Index, mutations: MutationBatch) -> bool:
    """Return whether changes are such that `creates_in_columns` may make them."""
    return mutations.plain is not None and not index.vectors


def creates_in_columns(
    index: Index, bulk: Bulk, max_bytes: int, mutations: MutationBatch, results: list[ItemResult | None]
) -> Generator[Creates, None, None]:
    """Yield chunks of creates, as `prepare.creates` does for a third of its price."""
    data, ids = mutations.plain or (), quote_ids(mutations.ids)
    chunk, size, start = begun(), 0, 0
    while start < len(ids):
        stop = min(start + min(_TOGETHER, bulk.size), len(ids))
        items = data[start:stop]
        texts = _texts(items, mutations.ids, start, results)
        at = [place for place, text in enumerate(texts, start) if text is not None]
        good = [text for text in texts if text is not None]
        if len(at) < len(items):
            items = [data[place] for place in at]
        start = stop
        for part in _parts(good, max_bytes):
            length = _bytes_of(good[part])
            if chunk.at and (len(chunk.at) + len(at[part]) > bulk.size or size + length > max_bytes):
                yield chunk
                chunk, size = begun(), 0
            shapes = _shapes(index.data_shapes, items[part], good[part])
            chunk.add_many(at[part], [ids[place] for place in at[part]], good[part], shapes)
            size += length
    if chunk.at:
        yield chunk


def _texts(
    items: Sequence[Any], ids: list[str], start: int, results: list[ItemResult | None]
) -> Sequence[str | None]:
    """Return the records as JSON; None for one that is invalid, whose result that is."""
    return encode_together(items, LARGEST) or [
        _text(item, ids, at, results) for at, item in enumerate(items, start)
    ]


def _text(item: Any, ids: list[str], at: int, results: list[ItemResult | None]) -> str | None:
    try:
        text = encode(item)
        if len(text) > LARGEST:
            raise InvalidRecordError(
                f"data: the record has {len(text)} bytes, more than {LARGEST}", path="data"
            )
    except InvalidRecordError as error:
        error.record_id = ids[at]
        results[at] = error
        return None
    return text.decode()


def _parts(texts: list[str], max_bytes: int) -> Iterator[slice]:
    """Yield the parts of a group that go into one request: all, or each by itself if it is large."""
    if _bytes_of(texts) <= max_bytes:
        if texts:
            yield slice(None)
        return
    for place in range(len(texts)):
        yield slice(place, place + 1)


def _bytes_of(texts: list[str]) -> int:
    length = sum(map(len, texts))
    plain = all(map(str.isascii, texts))
    return (length if plain else length * MAX_BYTES_PER_CHARACTER) + _AROUND * len(texts)


def _shapes(shapes: Shapes, items: Sequence[Any], texts: list[str]) -> list[Shape]:
    if len(max(texts, key=len)) <= _SHORT and not needs_look("".join(texts).encode(), long=False):
        try:
            return shapes.of_many(items)
        except Foreign:
            pass
    return [shape_of(shapes, text.encode(), item) for text, item in zip(texts, items, strict=True)]
