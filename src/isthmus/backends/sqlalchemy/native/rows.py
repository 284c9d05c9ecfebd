"""Records of a table's rows: which columns are selected, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from isthmus._core.executor import PageRequest
from isthmus._path import Root
from isthmus._record import Record, make_record
from isthmus._values import JSON
from isthmus.backends._tables.keys import id_of
from isthmus.backends._tables.records import InvalidRowRecord, invalid_key, repetition_error
from isthmus.backends._tables.values import NoCanonicalFormError, invalid_record
from isthmus.backends.sqlalchemy.native.table import ColumnSQL, ReflectedTable


def columns_of(request: PageRequest) -> set[str] | None:
    """Return the names of the columns that a page needs; None if it needs all."""
    if request.select is None:
        return None
    paths = [path for path in request.select if path.root is Root.DATA]
    return {path.keys[0] for path in paths} if all(path.keys for path in paths) else None


class RecordReader:
    """The columns that are selected of a table: those of the key, the version, and others as wanted."""

    def __init__(self, table: ReflectedTable, names: Iterable[str] | None = None) -> None:
        self._table = table
        first = dict.fromkeys(
            (*table.table.key, *([] if table.table.version is None else [table.table.version]))
        )
        wanted = None if names is None else set(names)
        others = [
            c.name for c in table.columns if c.name not in first and (wanted is None or c.name in wanted)
        ]
        self._columns: list[ColumnSQL] = [table.by_name[name] for name in (*first, *others)]
        self.select = ", ".join(column.read for column in self._columns)
        """The select list."""

    def records(self, rows: Iterable[Sequence[Any]]) -> list[Record]:
        """Return the records of rows.

        Raises `InvalidRecordError` for a key that has no canonical form, and for two rows of one key.
        """
        records = [self.record(row) for row in rows]
        if not self._table.is_keyed:
            seen: set[str] = set()
            for record in records:
                assert record.id is not None
                if record.id in seen:
                    raise repetition_error(self._table.table, record.id)
                seen.add(record.id)
        return records

    def record(self, row: Sequence[Any]) -> Record:
        """Return the record of a row; raises `InvalidRecordError` for a key that has no canonical form."""
        data: dict[str, JSON] = {}
        invalid: tuple[str, str] | None = None
        for column, stored in zip(self._columns, row, strict=True):
            if stored is None:
                continue
            try:
                value = stored if column.decode is None else column.decode(stored)
            except NoCanonicalFormError as error:
                invalid = invalid or (column.name, str(error))
            else:
                if value is not None:
                    data[column.name] = value
        id = self._id(row, data)
        version = data.get(self._table.table.version or "")
        text = None if version is None else str(version)
        if invalid is not None:
            return InvalidRowRecord.of(id, data, text, invalid_record(invalid[0], id, invalid[1]))
        return make_record(id, data, {}, text, None, None)

    def _id(self, row: Sequence[Any], data: dict[str, JSON]) -> str:
        table = self._table.table
        missing = [name for name in table.key if name not in data]
        if missing:
            reason = NoCanonicalFormError(f"the key column {missing[0]!r} has no exact JSON form")
            raise invalid_key(table, row[: len(table.key)], reason)
        return id_of([data[name] for name in table.key])
