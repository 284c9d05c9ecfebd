"""Records over the rows of a select."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from isthmus._core.executor import StoredTexts
from isthmus._core.lazy_record import LazyRecord, row_field
from isthmus._record import Record
from isthmus._values import decode_numeric
from isthmus.errors import UnexpectedError

_id, _data, _metadata = itemgetter(0), itemgetter(1), itemgetter(2)
# The server counts microseconds from 2000.
_EPOCH = 946_684_800_000_000
_unpack = struct.Struct(">qqq").unpack


class PostgresRecord(LazyRecord):
    """A record over a row of `fields.COLUMNS`.

    jsonb prints numbers in its own form (1e300 as 301 digits), so it needs a decoder of its own.
    """

    __slots__ = ()

    _decode = staticmethod(decode_numeric)

    @classmethod
    def wrap(cls, rows: Sequence[Any]) -> list[Record]:  # type: ignore[override]
        """Return the records of rows, in order; 0.1 µs a row more to check that each holds objects.

        Raises `UnexpectedError` for a row whose data or metadata is no object: no write of isthmus
        stores one.
        """
        # The first character of any other JSON text sorts before an object's.
        if min(map(_data, rows), default="{") < "{" or min(map(_metadata, rows), default="{") < "{":
            raise _wrong_row(rows)
        return super().wrap(rows)

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


def texts_of(rows: Sequence[Any]) -> StoredTexts:
    """Return the ids and the data of rows; raises `UnexpectedError` for data that is no object."""
    texts = list(map(_data, rows))
    if min(texts, default="{") < "{":
        raise _wrong_row(rows)
    return StoredTexts(list(map(_id, rows)), texts, decode_numeric)


def _wrong_row(rows: Sequence[Any]) -> UnexpectedError:
    for row in rows:
        for name, text in zip(("data", "metadata"), row[1:3], strict=False):
            if text < "{":
                return UnexpectedError(
                    f"postgres: the {name} of record {row[0]!r} is not a JSON object but {text[:40]}:"
                    " SQL or another program wrote it; correct or delete the row with SQL"
                )
    raise AssertionError("every row holds objects")
