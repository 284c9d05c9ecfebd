"""Records over the rows of a native table, whose values are read on demand."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson

from isthmus._core.lazy_record import LazyRecord, _set_row, row_field
from isthmus._record import Record
from isthmus._times import format_datetime
from isthmus._values import JSON
from isthmus.backends._tables.column import Kind, TableColumn
from isthmus.backends._tables.keys import id_of
from isthmus.backends._tables.records import invalid_key
from isthmus.backends._tables.values import NoCanonicalFormError, invalid_record, read_value
from isthmus.backends.postgres.native.binary import read_array, read_float, read_interval
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.backends.postgres.native.columns import output, valid, version_of

_int4, _int8 = struct.Struct(">i").unpack, struct.Struct(">q").unpack
_DAY, _MOMENT = date(2000, 1, 1), datetime(2000, 1, 1)


def _date(value: bytes) -> str:
    try:
        return (_DAY + timedelta(days=_int4(value)[0])).isoformat()
    except OverflowError:
        raise _outside(value) from None


def _moment(value: bytes) -> datetime:
    try:
        return _MOMENT + timedelta(microseconds=_int8(value)[0])
    except OverflowError:
        raise _outside(value) from None


def _outside(value: bytes) -> NoCanonicalFormError:
    number = int.from_bytes(value, "big", signed=True)
    if abs(number) >= 2 ** (8 * len(value) - 1) - 1:
        return NoCanonicalFormError("infinity" if number > 0 else "-infinity")
    return NoCanonicalFormError("a date outside of the years 1 to 9999")


def reader_of(column: TableColumn) -> Callable[[Any], JSON] | None:
    """Return the function from what is read to canonical JSON; None if they are the same."""
    match column.kind:
        case Kind.INTEGER | Kind.BOOL:
            return None
        case Kind.TEXT | Kind.UUID | Kind.OTHER:
            return None
        case Kind.INTERVAL:
            return read_interval
        case Kind.DATE:
            return _date
        case Kind.TIMESTAMP:
            return lambda value: read_value(column, _moment(value))
        case Kind.TIMESTAMPTZ:
            return lambda value: format_datetime(_moment(value).replace(tzinfo=UTC))
        case Kind.ARRAY:
            return _array_reader(column)
    return lambda value: read_value(column, value)


# Elements that are read in their binary form, as `output` has them.
_ELEMENTS: dict[Kind, Callable[[bytes], Any]] = {
    Kind.FLOAT: read_float,
    Kind.BYTES: bytes,
    Kind.INTERVAL: read_interval,
}


def _array_reader(column: TableColumn) -> Callable[[Any], JSON]:
    element = _ELEMENTS.get(column.element.kind) if column.element is not None else None
    if element is None:
        return lambda value: read_value(column, orjson.loads(value))
    return lambda value: read_value(column, read_array(value, element))


class RowReader:
    """What is selected of a table, and how its rows are read: the key's columns, others, the version."""

    def __init__(
        self, table: NativeTable, names: Iterable[str] | None = None, *, versioned: bool = True
    ) -> None:
        self.table = table
        columns = table.table.key_columns
        wanted = None if names is None else set(names)
        others = [
            column
            for column in table.table.columns
            if column.name not in table.table.key and (wanted is None or column.name in wanted)
        ]
        selected = [*columns, *others]
        version = version_of(table) if versioned else "NULL::text"
        version = f"CASE WHEN {table.same_types} THEN {version} END"
        self.select = ", ".join([*map(output, selected), version])
        """The select list."""
        self._key = [reader_of(column) for column in columns]
        self._columns = [(column.name, reader_of(column)) for column in selected]
        self._version = len(selected)
        self._may_lack_id = any(valid(column) is not None for column in columns)

    def key(self, row: Sequence[Any]) -> list[JSON]:
        """Return the canonical values of the key; raises `NoCanonicalFormError`."""
        return [
            value if read is None or value is None else read(value)
            for read, value in zip(self._key, row, strict=False)
        ]

    def id(self, row: Sequence[Any]) -> str:
        """Return the record's id; raises `InvalidRecordError` for a key without a canonical form."""
        try:
            return id_of(self.key(row))
        except NoCanonicalFormError as error:
            raise invalid_key(self.table.table, row[: len(self._key)], error) from None

    def version(self, row: Sequence[Any]) -> str | None:
        """Return the row's version."""
        version: str | None = row[self._version]
        return version

    def data(self, row: Sequence[Any]) -> tuple[dict[str, JSON], tuple[str, str] | None]:
        """Return the fields that have a value; and the first column without a canonical form, and why."""
        data: dict[str, JSON] = {}
        invalid = None
        for (name, read), value in zip(self._columns, row, strict=False):
            if value is None:
                continue
            if read is None:
                data[name] = value
                continue
            try:
                found = read(value)
            except NoCanonicalFormError as error:
                invalid = invalid or (name, str(error))
            else:
                if found is not None:
                    data[name] = found
        return data, invalid

    def wrap(self, rows: Iterable[Sequence[Any]]) -> list[Record]:
        """Return the records of rows, in order; raises `InvalidRecordError` for a row without an id."""
        records: list[Record] = []
        new, add = NativeRecord.__new__, records.append
        for row in rows:
            if self._may_lack_id:
                self.id(row)
            record = new(NativeRecord)
            _set_row(record, row)
            _set_reader(record, self)
            add(record)
        return records


class NativeRecord(LazyRecord):
    """A row as a record: no times, and no metadata but what a reader puts there.

    Reading `data` raises `InvalidRecordError` for a stored value without a canonical form; predicates
    and orders take it as no value.
    """

    __slots__ = ("_read_data", "_read_metadata", "_reader")

    _reader: RowReader
    _read_data: dict[str, Any]
    _read_metadata: dict[str, Any]
    _raw = _raw_metadata = _created = _updated = None

    id = row_field(lambda record: record._reader.id(record._row))
    version = row_field(lambda record: record._reader.version(record._row))
    _data = row_field(lambda record: record._read())
    _metadata = row_field(lambda record: record._make_metadata())

    def _read(self) -> dict[str, Any]:
        """Return the columns that are not NULL, at every call the same object."""
        try:
            data = self._read_data
        except AttributeError:  # never read before
            data, invalid = self._reader.data(self._row)
            if invalid is not None:
                raise invalid_record(invalid[0], self.id, invalid[1]) from None
            _keep_data(self, data)
        return data

    def _make_metadata(self) -> dict[str, Any]:
        try:
            metadata = self._read_metadata
        except AttributeError:
            metadata = {}
            _keep_metadata(self, metadata)
        return metadata

    @property
    def _queried(self) -> dict[str, Any]:
        try:
            return self._read_data
        except AttributeError:
            return self._reader.data(self._row)[0]


def _setter(name: str) -> Callable[[NativeRecord, Any], None]:
    """Return a slot's own setter: attributes of records are read-only for users."""
    return NativeRecord.__dict__[name].__set__  # type: ignore[no-any-return]


_set_reader, _keep_data, _keep_metadata = map(_setter, ("_reader", "_read_data", "_read_metadata"))
