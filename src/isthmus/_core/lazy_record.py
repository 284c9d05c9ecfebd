"""A record over a store's own row, whose fields are read on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from isthmus._record import _PENDING, Record, _set_data, _set_metadata
from isthmus._values import decode


def row_field(read: Callable[[Any], Any]) -> Any:
    """Return a read-only attribute of a `LazyRecord` that is computed at every read (a decorator).

    Typed as `Any`, since it takes the place of a plain attribute of `Record`.
    """
    return property(read)


class LazyRecord(Record):
    """A record over the row that a store's client returned; made in a fifth of a microsecond.

    Most records are counted, compared, copied or cut to a few fields, so nothing is taken out of
    `self._row` before it is read. A subclass declares `__slots__ = ()` and, as `row_field`s:

    * `id`, `version`;
    * `_created` and `_updated`, datetimes or microseconds since 1970;
    * `_raw` and `_raw_metadata`, JSON texts, which are decoded at the first read and kept. `_decode`
      has to be replaced where they are not our canonical JSON.

    A store whose client decodes rows itself declares `_data` and `_metadata` instead, and `_raw = None`;
    both must return the same object at every read, since a reader may change it.
    """

    __slots__ = ("_row",)

    _row: Any
    _decode = staticmethod(decode)

    @classmethod
    def wrap(cls, rows: Iterable[Any]) -> list[Record]:
        """Return the records of rows, in order."""
        records: list[Record] = []
        new, add = cls.__new__, records.append
        for row in rows:
            record = new(cls)
            _set_data(record, _PENDING)
            _set_row(record, row)
            add(record)
        return records

    @property
    def metadata(self) -> dict[str, Any]:
        """The user's own fields about the record, apart from its data."""
        try:
            metadata: dict[str, Any] = self._metadata
        except AttributeError:  # never read before, as of most records: `wrap` saves setting it
            metadata = _PENDING
        if metadata is _PENDING:
            text = self._raw_metadata
            metadata = {} if text is None or text in ("{}", b"{}") else self._decode(text)
            _set_metadata(self, metadata)
        return metadata

    @property
    def raw(self) -> tuple[bytes | None, bytes | None]:
        """The data and metadata as canonical JSON where the store kept our text, None where not."""
        if not hasattr(self, "_metadata"):
            _set_metadata(self, _PENDING)
        return super().raw


_set_row: Callable[[Record, object], None] = LazyRecord.__dict__["_row"].__set__
