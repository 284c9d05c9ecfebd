"""Records as rows: nothing is taken out of a row before somebody looks at it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from isthmus._record import _PENDING, Record, _set_data, _set_id, _set_metadata
from isthmus._values import decode_numeric
from isthmus.backends.postgres.drivers.protocol import Row

# The server counts microseconds from 2000.
_EPOCH = 946_684_800_000_000
_stamp = struct.Struct(">qqq").unpack
_EMPTY = "{}"


class StoredRecord(Record):
    """A record over a row of `fields.COLUMNS`; made in a third of a microsecond.

    What its parent keeps in slots is read from the row on demand; jsonb writes numbers in its own
    way (1e300 as 301 digits), so the decoder is its own too.
    """

    __slots__ = ("_row",)

    _row: Any
    _decode = staticmethod(decode_numeric)

    # mypy: these are attributes of the parent, which nobody may set either.
    @property
    def version(self) -> str:  # type: ignore[override]
        """A token that changes on every write."""
        return str(_stamp(self._row[3])[0])

    @property
    def _created(self) -> int:
        return _stamp(self._row[3])[1] + _EPOCH  # type: ignore[no-any-return]

    @property
    def _updated(self) -> int:
        return _stamp(self._row[3])[2] + _EPOCH  # type: ignore[no-any-return]

    @property
    def _raw(self) -> str:
        return self._row[1]  # type: ignore[no-any-return]

    @property
    def _raw_metadata(self) -> str:  # type: ignore[override]
        return self._row[2]  # type: ignore[no-any-return]

    @property
    def data(self) -> dict[str, Any]:
        """The record's own fields."""
        data = self._data
        if data is _PENDING:
            data = decode_numeric(self._row[1])
            _set_data(self, data)
        return data  # type: ignore[no-any-return]

    @property
    def metadata(self) -> dict[str, Any]:
        """What is said about the record beside its data."""
        try:
            return self._metadata  # type: ignore[no-any-return]
        except AttributeError:  # not looked at before; most records never are
            text = self._row[2]
            metadata = {} if text == _EMPTY else decode_numeric(text)
            _set_metadata(self, metadata)
            return metadata


_set_row: Callable[[Record, object], None] = StoredRecord.__dict__["_row"].__set__


def records(rows: Iterable[Row]) -> list[Record]:
    """Return the records of rows."""
    found: list[Record] = []
    new, add = StoredRecord.__new__, found.append
    for row in rows:
        record = new(StoredRecord)
        _set_id(record, row[0])
        _set_data(record, _PENDING)
        _set_row(record, row)
        add(record)
    return found
