"""Rows that make no sound record: with a value without a canonical form, or a key that is no id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from isthmus._record import Record
from isthmus._values import JSON
from isthmus.backends._tables.column import Table
from isthmus.errors import InvalidRecordError


class InvalidRowRecord(Record):
    """A row with a value that has no canonical form: reading `data` raises its `InvalidRecordError`.

    Predicates and orders take the value as none.
    """

    __slots__ = ("_error", "_rest")

    _error: InvalidRecordError
    _rest: dict[str, Any]

    @classmethod
    def of(cls, id: str, rest: dict[str, JSON], version: str | None, error: InvalidRecordError) -> Record:
        """Return the record of the other values."""
        record = cls.stored(id, b"", None, version, None, None)
        _set_error(record, error)
        _set_rest(record, rest)
        return record

    @property
    def data(self) -> dict[str, Any]:
        """Nothing: raises `InvalidRecordError` with the column."""
        error = self._error
        found = InvalidRecordError(str(error), path=error.path, record_id=error.record_id)
        found.stored = True
        raise found

    @property
    def raw(self) -> tuple[bytes | None, bytes | None]:
        """No JSON."""
        return None, None

    @property
    def _queried(self) -> dict[str, Any]:
        return self._rest


_set_error: Callable[[Record, InvalidRecordError], None] = InvalidRowRecord.__dict__["_error"].__set__
_set_rest: Callable[[Record, dict[str, Any]], None] = InvalidRowRecord.__dict__["_rest"].__set__


def invalid_key(table: Table, stored: Sequence[Any], reason: Exception) -> InvalidRecordError:
    """Return the error of a row whose key is no id; `stored` are the values of its key columns."""
    shown = ", ".join(f"{name} = {value!r:.60}" for name, value in zip(table.key, stored, strict=True))
    found = InvalidRecordError(
        f"a row of {table.name!r} with {shown} has no id: {reason}; correct it in the table",
        path=f"data.{table.key[0]}",
    )
    found.stored = True
    return found


def repetition_error(table: Table, id: str) -> InvalidRecordError:
    """Return the error of two rows that one id names."""
    names = ", ".join(table.key)
    error = InvalidRecordError(
        f"two rows of {table.name!r} have the id {id!r}: ({names}) is no key of it", path="id", record_id=id
    )
    error.stored = True
    return error
