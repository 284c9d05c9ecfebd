"""Records over the rows of a select."""

from __future__ import annotations

import struct
from typing import Any

from isthmus._core.lazy_record import LazyRecord, row_field
from isthmus._values import decode_numeric

# The server counts microseconds from 2000.
_EPOCH = 946_684_800_000_000
_unpack = struct.Struct(">qqq").unpack


class PostgresRecord(LazyRecord):
    """A record over a row of `fields.COLUMNS`.

    jsonb prints numbers in its own form (1e300 as 301 digits), so it needs a decoder of its own.
    """

    __slots__ = ()

    _decode = staticmethod(decode_numeric)

    @row_field
    def id(self) -> Any:
        """The record's id."""
        return self._row[0]

    @row_field
    def _raw(self) -> Any:
        return self._row[1]

    @row_field
    def _raw_metadata(self) -> Any:
        return self._row[2]

    @row_field
    def version(self) -> Any:
        """A token that changes on every write."""
        return str(_unpack(self._row[3])[0])

    _created = row_field(lambda record: _unpack(record._row[3])[1] + _EPOCH)
    _updated = row_field(lambda record: _unpack(record._row[3])[2] + _EPOCH)
