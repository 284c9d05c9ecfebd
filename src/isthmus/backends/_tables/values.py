"""Values of columns: from what a store returns to canonical JSON."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import math
import re
import uuid
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from isthmus._times import format_datetime
from isthmus._values import INT_MAX, INT_MIN, JSON, check_text, decode, restore_floats
from isthmus.backends._tables.column import Kind, TableColumn
from isthmus.errors import InvalidRecordError


class NoCanonicalFormError(ValueError):
    """A stored value has no canonical JSON form: it makes its record invalid, and is no value in queries."""


def read_value(column: TableColumn, value: Any) -> JSON:
    """Return the canonical JSON of a stored value, given as the driver's object or as the server's text.

    Raises `NoCanonicalFormError`.
    """
    if value is None:
        return None
    reader = _READERS[column.kind]
    try:
        return reader(column, value)
    except (ValueError, OverflowError, decimal.InvalidOperation) as error:
        raise NoCanonicalFormError(str(error)) from None


def invalid_record(column: str, id: str | None, reason: str = "") -> InvalidRecordError:
    """Return the error of a record whose stored value has no canonical form."""
    error = InvalidRecordError(
        f"record {id!r}: the value of the column {column!r} has no exact JSON form{reason and ': '}{reason};"
        " correct it in the table, or for a numeric read it otherwise with numeric='float' or 'text'",
        path=f"data.{column}",
        record_id=id,
    )
    error.stored = True
    return error


def read_number(value: Any) -> int | float:
    """Return the canonical form of a finite number: an int of 64 bits, or the float that equals it."""
    if isinstance(value, float):
        return _read_float(value)
    if isinstance(value, int):
        if INT_MIN <= value <= INT_MAX:
            return value
        value = decimal.Decimal(value)
    number = value if isinstance(value, decimal.Decimal) else decimal.Decimal(value)
    if not number.is_finite():
        raise NoCanonicalFormError(f"{number} is not finite")
    if number == number.to_integral_value() and INT_MIN <= number <= INT_MAX:
        return int(number)
    nearest = float(number)
    if not math.isfinite(nearest) or decimal.Decimal(repr(nearest)) != number:
        raise NoCanonicalFormError(f"{number} is neither a float nor an integer of 64 bits")
    return nearest


def _read_float(value: float) -> int | float:
    if not math.isfinite(value):
        raise NoCanonicalFormError(f"{value} is not finite")
    if value == 0.0:
        return 0.0
    return int(value) if 2**53 <= abs(value) < 2.0**63 or value == -(2.0**63) else value


def _numeric(column: TableColumn, value: Any) -> JSON:
    if column.numeric == "text":
        return str(value)
    if column.numeric == "float":
        return _read_float(float(value))
    return read_number(value)


def _bool(column: TableColumn, value: Any) -> JSON:
    if isinstance(value, str):
        return {"t": True, "true": True, "f": False, "false": False}[value]
    return bool(value)


def _text(column: TableColumn, value: Any) -> JSON:
    text = value if isinstance(value, str) else str(value)
    if "\0" in text:
        raise NoCanonicalFormError("text with U+0000")
    return text.rstrip(" ") if column.padded else text


def _uuid(column: TableColumn, value: Any) -> JSON:
    return str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))


def _date(column: TableColumn, value: Any) -> JSON:
    return (value if isinstance(value, dt.date) else dt.date.fromisoformat(value)).isoformat()


def _timestamp(column: TableColumn, value: Any) -> JSON:
    moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
    if column.zone is not None:
        return format_datetime(moment.replace(tzinfo=ZoneInfo(column.zone)))
    return f"{moment.replace(tzinfo=None):%Y-%m-%dT%H:%M:%S.%f}".rjust(26, "0")


def _timestamptz(column: TableColumn, value: Any) -> JSON:
    return format_datetime(value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value))


def _bytes(column: TableColumn, value: Any) -> JSON:
    if isinstance(value, str):  # the server's text
        value = bytes.fromhex(value.removeprefix("\\x"))
    return base64.b64encode(value).decode("ascii")


def _json(column: TableColumn, value: Any) -> JSON:
    if not isinstance(value, str | bytes):
        return value  # type: ignore[no-any-return]
    text = value if isinstance(value, str) else value.decode()
    if '"' in text and len(text) > 4:
        _refuse_doubled_keys(text)
    found = decode(text)
    return restore_floats(found) if _LONG_INTEGER.search(text) else found  # type: ignore[no-any-return]


# orjson reads integers up to 2^64 as they are.
_LONG_INTEGER = re.compile(r"\d{19}", re.ASCII)


def _refuse_doubled_keys(text: str) -> None:
    import json

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) != len(items):
            raise NoCanonicalFormError("a JSON text with a doubled key")
        return made

    whole = json.loads(text, object_pairs_hook=pairs)
    if "\\u" in text:
        for part in _texts(whole):
            try:
                check_text(part, "")
            except InvalidRecordError as error:
                raise NoCanonicalFormError(str(error)) from None


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in _texts(item))]
    return []


def _array(column: TableColumn, value: Any) -> JSON:
    element = column.element
    assert element is not None
    return [_array(column, item) if isinstance(item, list) else read_value(element, item) for item in value]


def _cell(column: TableColumn, value: Any) -> JSON:
    if isinstance(value, int | float):
        return read_number(value)
    return _bytes(column, value) if isinstance(value, bytes) else _text(column, value)


_READERS: dict[Kind, Callable[[TableColumn, Any], JSON]] = {
    Kind.INTEGER: lambda column, value: read_number(int(value)),
    Kind.NUMERIC: _numeric,
    Kind.FLOAT: lambda column, value: _read_float(float(value)),
    Kind.BOOL: _bool,
    Kind.TEXT: _text,
    Kind.UUID: _uuid,
    Kind.DATE: _date,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMESTAMPTZ: _timestamptz,
    Kind.INTERVAL: _text,
    Kind.BYTES: _bytes,
    Kind.JSON: _json,
    Kind.ARRAY: _array,
    Kind.CELL: _cell,
    Kind.OTHER: _text,
}
