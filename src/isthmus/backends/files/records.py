"""Records of rows: their ids, and the errors of rows that have none."""

from __future__ import annotations

from typing import Any

import orjson

from isthmus._ids import check_id
from isthmus._record import Record, SelectedRecord, make_record
from isthmus._values import decode, decode_numeric
from isthmus.backends.files.catalog import File
from isthmus.backends.files.ids import row_id
from isthmus.backends.files.rows import Refusal, Row
from isthmus.errors import InvalidRecordError, UsageError


class RecordMaker:
    """Makes the records of one file's rows.

    `id` is the path of the field that holds the id, None for the numbers of the rows; with `records`
    each row is a whole record.
    """

    def __init__(self, file: File, id: tuple[str, ...] | None, *, records: bool) -> None:
        self._file = file
        self._id = id
        self._records = records
        self.selected: frozenset[str] | None = None

    @property
    def id_column(self) -> str | None:
        """Return the top-level column that holds the id; None if there is none."""
        return None if self._id is None else self._id[0]

    def __call__(self, number: int, row: Row) -> Record:
        """Return the record of a row; raises `InvalidRecordError` that names file and line."""
        if isinstance(row, Refusal):
            raise self._refuse(number, row.message, row.line, row.path)
        if self._id is None and not self._records:
            return make_record(row_id(self._file.key, number), row, {}, self._file.version, None, None)
        try:
            if self._records:
                id, data, metadata = _take_record(row)
            else:
                assert self._id is not None
                id, data, metadata = _find_id(row, self._id), row, {}
            check_id(id)
        except (InvalidRecordError, UsageError) as error:
            path = error.path if isinstance(error, InvalidRecordError) else "id"
            raise self._refuse(number, str(error), None, path) from None
        return make_record(id, data, metadata, self._file.version, None, None)

    def over_text(self, number: int, text: bytes, *, canonical: bool) -> Record:
        """Return the record of a numbered row over its JSON, undecoded."""
        # Only what `decode` reads counts as canonical.
        read = decode if canonical else decode_numeric
        id, version = row_id(self._file.key, number), self._file.version
        if self.selected is None:
            return Record.stored(id, text, None, version, None, None, read)
        return SelectedRecord.wrap(self.selected, id, text, version, read)

    def place(self, number: int) -> str:
        """Return where a row is, for messages."""
        return f"{self._file.key}, row {number + 1}"

    def _refuse(self, number: int, message: str, line: int | None, path: str) -> InvalidRecordError:
        where = f"{self._file.key}:{line}" if line is not None else f"{self._file.key}, row {number + 1}"
        error = InvalidRecordError(f"{where}: {message}", path=path, record_id=row_id(self._file.key, number))
        error.stored = True
        return error


def _find_id(row: dict[str, Any], path: tuple[str, ...]) -> str:
    value: Any = row
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, str):
        return value
    name = ".".join(path)
    if value is None:
        raise InvalidRecordError(f"there is no field {name!r} for the id", path=name)
    if isinstance(value, dict | list):
        raise InvalidRecordError(f"the field {name!r} for the id holds no text or number", path=name)
    return orjson.dumps(value).decode()


def _take_record(row: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return id, data and metadata of a row as `isthmus dump` writes it."""
    id, data, metadata = row.get("id"), row.get("data"), row.get("metadata") or {}
    if not isinstance(id, str) or not isinstance(data, dict) or not isinstance(metadata, dict):
        raise InvalidRecordError(
            "expected a record with an id (text), data and metadata (objects)", path="data"
        )
    return id, data, metadata
