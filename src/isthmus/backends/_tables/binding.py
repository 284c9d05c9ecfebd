"""Values of columns: from canonical JSON to what a driver binds, if the column holds them exactly."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import re
import struct
import uuid
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from isthmus._values import JSON
from isthmus.backends._tables.column import Kind, TableColumn
from isthmus.backends._tables.values import read_value
from isthmus.errors import InvalidRecordError

EXACT = decimal.Context(prec=1_000)
"""For decimals with all digits that a column can have; the default is 28."""


def bind_value(column: TableColumn, value: JSON) -> Any:
    """Return what a driver binds for a canonical JSON value: exactly that value, or an error.

    An int, float, Decimal, bool, text, UUID, date, datetime (naive for a column without zone), bytes, the
    text of JSON, or for an array a list of these. Raises `InvalidRecordError` that names the column.
    """
    if value is None:
        if not column.nullable:
            raise column.refuse("does not admit NULL")
        return None
    return _BINDERS[column.kind](column, value)


def bind_key(column: TableColumn, value: JSON) -> Any:
    """Return what a driver binds to find a key: of a type that is not written, the server's text."""
    if column.kind is not Kind.OTHER:
        return bind_value(column, value)
    if not isinstance(value, str):
        raise column.refuse(f"is read as text, not {_shorten(value)}")
    return value


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bind_integer(column: TableColumn, value: Any) -> int:
    if not _is_number(value) or value != int(value):
        raise column.refuse(f"holds integers, not {_shorten(value)}")
    number = int(value)
    low, high = (
        # Beyond 63 bits a number has no canonical form.
        (0, 2 ** min(column.bits, 63))
        if column.unsigned
        else (-(2 ** (column.bits - 1)), 2 ** (column.bits - 1))
    )
    if not low <= number < high:
        raise column.refuse(f"cannot hold {number}: it is out of range")
    return number


def _bind_numeric(column: TableColumn, value: Any) -> decimal.Decimal:
    if column.numeric == "text" and isinstance(value, str):
        try:
            number = decimal.Decimal(value)
        except decimal.InvalidOperation:
            raise column.refuse(f"holds numbers, not {_shorten(value)}") from None
    elif _is_number(value):
        number = decimal.Decimal(repr(value))
    else:
        raise column.refuse(f"holds numbers, not {_shorten(value)}")
    if not number.is_finite():
        raise column.refuse(f"cannot hold {number}")
    if column.scale is not None and column.precision is not None and number:
        _, digits, exponent = number.normalize(EXACT).as_tuple()
        assert isinstance(exponent, int)
        if -exponent > column.scale or len(digits) + exponent > column.precision - column.scale:
            raise column.refuse(f"cannot hold {number} exactly")
    return number


def _bind_float(column: TableColumn, value: Any) -> float:
    if not _is_number(value):
        raise column.refuse(f"holds numbers, not {_shorten(value)}")
    number = float(value)
    exact = number == value
    if exact and column.bits == 32:
        try:
            exact = struct.unpack("f", struct.pack("f", number))[0] == number
        except OverflowError:
            exact = False
    if not exact:
        raise column.refuse(f"cannot hold {value!r} exactly")
    return number


def _bind_bool(column: TableColumn, value: Any) -> bool:
    if not isinstance(value, bool):
        raise column.refuse(f"holds booleans, not {_shorten(value)}")
    return value


def _bind_text(column: TableColumn, value: Any) -> str:
    if not isinstance(value, str):
        raise column.refuse(f"holds text, not {_shorten(value)}")
    if column.labels is not None and value not in column.labels:
        raise column.refuse(f"has no label {_shorten(value)}")
    if column.max_length is not None and len(value) > column.max_length:
        raise column.refuse(f"cannot hold a text of {len(value)} characters")
    if column.padded and value.endswith(" "):
        raise column.refuse("does not keep blanks at the end of a text")
    return value


def _bind_uuid(column: TableColumn, value: Any) -> uuid.UUID:
    found = parse_uuid(value)
    if found is None:
        raise column.refuse(f"holds UUIDs in lower case with hyphens, not {_shorten(value)}")
    return found


def parse_uuid(value: Any) -> uuid.UUID | None:
    """Return the UUID of a canonical text; None for any other value."""
    try:
        found = uuid.UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and str(found) == value else None


_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", re.ASCII)


def parse_date(value: Any) -> dt.date | None:
    """Return the date of a canonical text; None for any other value."""
    if not isinstance(value, str) or _DATE.fullmatch(value) is None:
        return None
    try:
        return dt.date.fromisoformat(value)
    except ValueError:
        return None


def parse_timestamp(value: Any) -> dt.datetime | None:
    """Return the naive datetime of a canonical text without a zone; None for any other value."""
    if not isinstance(value, str) or _TIMESTAMP.fullmatch(value) is None:
        return None
    try:
        return dt.datetime.fromisoformat(value)
    except ValueError:
        return None


def parse_timestamptz(value: Any) -> dt.datetime | None:
    """Return the datetime in UTC of a canonical text; None for any other value."""
    naive = parse_timestamp(value[:-1]) if isinstance(value, str) and value.endswith("Z") else None
    return None if naive is None else naive.replace(tzinfo=dt.UTC)


def _bind_date(column: TableColumn, value: Any) -> dt.date:
    found = parse_date(value)
    if found is None:
        raise column.refuse(f"holds dates as YYYY-MM-DD, not {_shorten(value)}")
    return found


def _bind_timestamp(column: TableColumn, value: Any) -> dt.datetime:
    if column.zone is None:
        found = parse_timestamp(value)
        if found is None:
            raise column.refuse(f"holds times as YYYY-MM-DDTHH:MM:SS.ffffff, not {_shorten(value)}")
        return _fits_precision(column, found)
    moment = parse_timestamptz(value)
    if moment is None:
        raise column.refuse(f"holds times as YYYY-MM-DDTHH:MM:SS.ffffffZ, not {_shorten(value)}")
    local = moment.astimezone(ZoneInfo(column.zone)).replace(tzinfo=None, fold=0)
    if read_value(column, local) != value:
        raise column.refuse(f"cannot hold {value}: its local time in {column.zone} is that of two moments")
    return _fits_precision(column, local)


def _bind_timestamptz(column: TableColumn, value: Any) -> dt.datetime:
    found = parse_timestamptz(value)
    if found is None:
        raise column.refuse(f"holds times as YYYY-MM-DDTHH:MM:SS.ffffffZ, not {_shorten(value)}")
    return _fits_precision(column, found)


def _fits_precision(column: TableColumn, moment: dt.datetime) -> dt.datetime:
    if column.precision is not None and moment.microsecond % 10 ** (6 - min(column.precision, 6)):
        raise column.refuse(f"keeps {column.precision} digits of a second, not {moment.isoformat()}")
    return moment


def parse_bytes(value: Any) -> bytes | None:
    """Return the bytes of a canonical base64 text; None for any other value."""
    if not isinstance(value, str):
        return None
    try:
        found = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if base64.b64encode(found).decode("ascii") == value else None


def _bind_bytes(column: TableColumn, value: Any) -> bytes:
    found = parse_bytes(value)
    if found is None:
        raise column.refuse(f"holds bytes as base64 text, not {_shorten(value)}")
    return found


def _bind_json(column: TableColumn, value: Any) -> str:
    return orjson.dumps(value).decode()


def _bind_array(column: TableColumn, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise column.refuse(f"holds lists, not {_shorten(value)}")
    _shape(column, value)
    return _bind_elements(column, value)


def _bind_elements(column: TableColumn, value: list[Any]) -> list[Any]:
    element = column.element
    assert element is not None
    made = []
    for item in value:
        if isinstance(item, list):
            made.append(_bind_elements(column, item))
            continue
        try:
            made.append(bind_value(element, item))
        except InvalidRecordError as error:
            raise column.refuse(f"has an element that does not fit: {error}") from None
    return made


def _shape(column: TableColumn, value: list[Any]) -> tuple[int, ...]:
    """Return the sizes of the dimensions; an array has one size in each, and none of nothing inside."""
    inner = [_shape(column, item) if isinstance(item, list) else None for item in value]
    if not inner:
        return (0,)
    first = inner[0]
    if any(shape != first for shape in inner) or (first is not None and 0 in first):
        raise column.refuse("holds lists of one shape, not a list of lists of different sizes")
    return (len(value), *(first or ()))


def _bind_cell(column: TableColumn, value: Any) -> Any:
    if isinstance(value, bool | list | dict):
        raise column.refuse(f"holds numbers and text, not {_shorten(value)}")
    return value


def _refuse(column: TableColumn, value: Any) -> Any:
    raise column.refuse("is of a type that isthmus reads and does not write")


_BINDERS: dict[Kind, Callable[[TableColumn, Any], Any]] = {
    Kind.INTEGER: _bind_integer,
    Kind.NUMERIC: _bind_numeric,
    Kind.FLOAT: _bind_float,
    Kind.BOOL: _bind_bool,
    Kind.TEXT: _bind_text,
    Kind.UUID: _bind_uuid,
    Kind.DATE: _bind_date,
    Kind.TIMESTAMP: _bind_timestamp,
    Kind.TIMESTAMPTZ: _bind_timestamptz,
    Kind.INTERVAL: _bind_text,
    Kind.BYTES: _bind_bytes,
    Kind.JSON: _bind_json,
    Kind.ARRAY: _bind_array,
    Kind.CELL: _bind_cell,
    Kind.OTHER: _refuse,
}


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
