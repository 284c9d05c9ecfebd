"""The mutations of a batch as columns: an item's object is created on first access only.

Ten thousand objects cost more than their JSON, and the garbage collector walks all of them again
and again while a batch is built; it skips lists of strings.
"""

from __future__ import annotations

import itertools
import operator
import string
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, overload

import orjson

from isthmus._core.executor import Mutation
from isthmus._ids import check_ids, new_ids
from isthmus._record import Record
from isthmus._values import encode, encode_many
from isthmus.errors import InvalidRecordError


class EncodedRecords(Sequence[Record]):
    """Records to write as columns, ids and canonical JSON; a `Record` is made on access."""

    __slots__ = ("ids", "texts")

    def __init__(self, ids: list[str], texts: list[str]) -> None:
        self.ids = ids
        self.texts = texts

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> EncodedRecords: ...
    def __getitem__(self, index: int | slice) -> Record | EncodedRecords:
        if isinstance(index, slice):
            return EncodedRecords(self.ids[index], self.texts[index])
        return Record.stored(self.ids[index], self.texts[index], None, "", None, None)


class MutationBatch(Sequence[Mutation]):
    """Mutations of one kind without `if_version`, as columns.

    A backend that sends whole columns reads `ids` and `texts()`; for the others it is a sequence
    whose `Mutation` objects are created on first access and kept.
    """

    __slots__ = ("_data", "_items", "_metadata", "_own_ids", "_raw", "_raw_metadata", "_texts", "ids")

    def __init__(
        self,
        ids: list[str],
        data: Sequence[Any] = (),
        metadata: Sequence[Any] | None = None,
        *,
        own_ids: bool = False,
    ) -> None:
        self.ids = ids
        self._data = data
        self._metadata = metadata
        self._own_ids = own_ids
        self._raw: Sequence[bytes | None] | None = None
        self._raw_metadata: Sequence[bytes | None] | None = None
        self._texts: list[str] | None = None
        """The data as canonical JSON, where all records came so."""
        self._items: Sequence[Mutation] | None = None

    @classmethod
    def of(cls, mutations: Sequence[Mutation]) -> MutationBatch:
        """Return mutations as columns; `if_version` is not among them."""
        if isinstance(mutations, MutationBatch):
            return mutations
        self = cls([c.id for c in mutations], [c.data for c in mutations])
        if any(c.metadata for c in mutations):
            self._metadata = [c.metadata for c in mutations]
        if any(c.raw is not None for c in mutations):
            self._raw = [c.raw for c in mutations]
        if any(c.raw_metadata is not None and c.raw_metadata != b"{}" for c in mutations):
            self._raw_metadata = [c.raw_metadata for c in mutations]
        self._items = mutations
        return self

    @property
    def plain(self) -> Sequence[Any] | None:
        """Each item's data as given; None if an item has metadata or is JSON text already."""
        more = self._metadata or self._raw or self._raw_metadata or self._texts
        return self._data if more is None else None

    def texts(self) -> Iterator[str]:
        """Yield each item's data as canonical JSON, encoded one by one as they are consumed.

        Raises `InvalidRecordError` without the record's id: `reject_invalid` finds the item.
        """
        if self._texts is not None:
            return iter(self._texts)
        if self._raw is None:
            return encode_many(self._data)
        return (
            (encode(data) if raw is None else raw).decode()
            for data, raw in zip(self._data, self._raw, strict=True)
        )

    def metadata_texts(self) -> Iterator[str] | None:
        """Yield each item's metadata as canonical JSON; None if no item has any."""
        if self._raw_metadata is None:
            return (
                None if self._metadata is None else encode_many([m or {} for m in self._metadata], "metadata")
            )
        return (mutation.encode_metadata().decode() for mutation in self)

    def by_id(self) -> MutationBatch:
        """Return the mutations in the order of their ids."""
        ids = self.ids
        if all(map(operator.lt, ids, islice(ids, 1, None))):  # as generated ids are
            return self
        positions = sorted(range(len(ids)), key=ids.__getitem__)
        pick: Callable[[Any], Any] = lambda column: column and [column[position] for position in positions]  # noqa: E731
        ordered = MutationBatch(pick(ids), pick(self._data), pick(self._metadata), own_ids=self._own_ids)
        ordered._raw, ordered._raw_metadata = pick(self._raw), pick(self._raw_metadata)
        ordered._texts, ordered._items = pick(self._texts), pick(self._items)
        return ordered

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Mutation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mutation]: ...
    def __getitem__(self, index: int | slice) -> Mutation | Sequence[Mutation]:
        return self._items_made()[index]

    def __iter__(self) -> Iterator[Mutation]:
        return iter(self._items_made())

    def _items_made(self) -> Sequence[Mutation]:
        items = self._items
        if items is None:
            none = (None,) * len(self.ids)
            items = list(map(Mutation, self.ids, self._data or none, self._metadata or none))
            if self._own_ids:
                for mutation in items:
                    mutation.own_id = True
            raws = self._raw if self._texts is None else list(map(str.encode, self._texts))
            if raws is not None:
                for mutation, raw, metadata in zip(
                    items, raws, self._raw_metadata or itertools.repeat(b"{}"), strict=False
                ):
                    mutation.raw, mutation.raw_metadata = raw, metadata
            self._items = items
        return items


# Characters that need no escape in JSON.
_PLAIN = f"{string.ascii_letters}{string.digits}-_.:/@ ".encode()


def quote_ids(ids: list[str]) -> list[str]:
    """Return ids as JSON."""
    plain = not "".join(ids).encode().translate(None, _PLAIN)
    return [f'"{id}"' for id in ids] if plain else [orjson.dumps(id).decode() for id in ids]


# The largest UTF-8 encoding of a character.
MAX_BYTES_PER_CHARACTER = 4


def encode_together(items: Sequence[Any], largest: int) -> list[str] | None:
    """Return the data of records as JSON; None if one is invalid, or may exceed `largest` bytes."""
    try:
        texts = list(encode_many(items))
    except InvalidRecordError:
        return None
    return texts if max(map(len, texts), default=0) * MAX_BYTES_PER_CHARACTER <= largest else None


def batch_creates(records: Sequence[Any]) -> MutationBatch | None:
    """Return the creation of records as columns; None unless all are dicts, or all are alike Records.

    They were made by the user, and either all have an id or all need one; or all have ids and the JSON
    text of a store, which nobody has accessed.
    """
    if isinstance(records, EncodedRecords):
        batch = MutationBatch(records.ids)
        batch._texts = records.texts
        return batch
    kinds = set(map(type, records))
    if kinds == {dict}:
        return MutationBatch(new_ids(len(records)), records, own_ids=True)
    if kinds != {Record}:
        return None
    ids = [record.id for record in records]
    if any(record._raw is not None for record in records):
        return _batch_texts(ids, records)
    own_ids = None in ids
    if own_ids:
        if ids.count(None) != len(ids):
            return None
        ids = new_ids(len(ids))
    metadata = [record._metadata for record in records]
    return MutationBatch(
        ids, [record._data for record in records], metadata if any(metadata) else None, own_ids=own_ids
    )


def _batch_texts(ids: list[str], records: Sequence[Record]) -> MutationBatch | None:
    """Return writes of records of a store as columns; None if one has no id, or its text cannot be kept."""
    if None in ids:
        return None
    texts, metadata = zip(*(record.raw for record in records), strict=True)
    if None in texts or None in metadata:
        return None
    batch = MutationBatch(ids, [None] * len(ids))
    batch._raw = texts
    if any(text != b"{}" for text in metadata):
        batch._raw_metadata = metadata
    return batch


def batch_writes(items: Sequence[Any]) -> MutationBatch | None:
    """Return writes of `(id, data)`, or of Records with ids, as columns; None unless all are plain."""
    kinds = set(map(type, items))
    if kinds == {Record} and all(record.id for record in items):
        return batch_creates(items)
    if kinds != {tuple} or set(map(len, items)) != {2}:
        return None
    data = [item[1] for item in items]
    if set(map(type, data)) != {dict}:
        return None
    return MutationBatch(check_ids([item[0] for item in items]), data)
