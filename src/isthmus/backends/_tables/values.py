"""Values of columns: from what a store returns to canonical JSON, and from JSON to what a driver binds."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import math
import re
import struct
import uuid
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from isthmus._values import INT_MAX, INT_MIN, JSON, check_text, decode_numeric, format_datetime
from isthmus.backends._tables.column import Column, Kind
from isthmus.errors import InvalidRecordError


class NoCanonicalFormError(ValueError):
    """A stored value has no canonical JSON form: it makes its record invalid, and is no value in queries."""


def read_value(column: Column, value: Any) -> JSON:
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


def _numeric(column: Column, value: Any) -> JSON:
    if column.numeric == "text":
        return str(value)
    if column.numeric == "float":
        return _read_float(float(value))
    return read_number(value)


def _bool(column: Column, value: Any) -> JSON:
    if isinstance(value, str):
        return {"t": True, "true": True, "f": False, "false": False}[value]
    return bool(value)


def _text(column: Column, value: Any) -> JSON:
    text = value if isinstance(value, str) else str(value)
    if "\0" in text:
        raise NoCanonicalFormError("text with U+0000")
    return text.rstrip(" ") if column.padded else text


def _uuid(column: Column, value: Any) -> JSON:
    return str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))


def _date(column: Column, value: Any) -> JSON:
    return (value if isinstance(value, dt.date) else dt.date.fromisoformat(value)).isoformat()


def _timestamp(column: Column, value: Any) -> JSON:
    moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
    if column.zone is not None:
        return format_datetime(moment.replace(tzinfo=ZoneInfo(column.zone)))
    return f"{moment.replace(tzinfo=None):%Y-%m-%dT%H:%M:%S.%f}".rjust(26, "0")


def _timestamptz(column: Column, value: Any) -> JSON:
    return format_datetime(value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value))


def _bytes(column: Column, value: Any) -> JSON:
    if isinstance(value, str):  # the server's text
        value = bytes.fromhex(value.removeprefix("\\x"))
    return base64.b64encode(value).decode("ascii")


def _json(column: Column, value: Any) -> JSON:
    if not isinstance(value, str | bytes):
        return value  # type: ignore[no-any-return]
    text = value if isinstance(value, str) else value.decode()
    if '"' in text and len(text) > 4:
        _refuse_doubled_keys(text)
    return decode_numeric(text)  # type: ignore[no-any-return]


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


def _array(column: Column, value: Any) -> JSON:
    element = column.element
    assert element is not None
    return [_array(column, item) if isinstance(item, list) else read_value(element, item) for item in value]


def _cell(column: Column, value: Any) -> JSON:
    if isinstance(value, int | float):
        return read_number(value)
    return _bytes(column, value) if isinstance(value, bytes) else _text(column, value)


_READERS: dict[Kind, Callable[[Column, Any], JSON]] = {
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


def bind_value(column: Column, value: JSON) -> Any:
    """Return what a driver binds for a canonical JSON value: exactly that value, or an error.

    An int, float, Decimal, bool, text, UUID, date, datetime (naive for a column without zone), bytes, the
    text of JSON, or for an array a list of these. Raises `InvalidRecordError` that names the column.
    """
    if value is None:
        if not column.nullable:
            raise column.refuse("does not admit NULL")
        return None
    return _BINDERS[column.kind](column, value)


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bind_integer(column: Column, value: Any) -> int:
    if not _is_number(value) or value != int(value):
        raise column.refuse(f"holds integers, not {_shown(value)}")
    number = int(value)
    low, high = (
        (0, 2**column.bits) if column.unsigned else (-(2 ** (column.bits - 1)), 2 ** (column.bits - 1))
    )
    if not low <= number < high:
        raise column.refuse(f"cannot hold {number}: it is out of range")
    return number


def _bind_numeric(column: Column, value: Any) -> decimal.Decimal:
    if column.numeric == "text" and isinstance(value, str):
        try:
            number = decimal.Decimal(value)
        except decimal.InvalidOperation:
            raise column.refuse(f"holds numbers, not {_shown(value)}") from None
    elif _is_number(value):
        number = decimal.Decimal(repr(value))
    else:
        raise column.refuse(f"holds numbers, not {_shown(value)}")
    if not number.is_finite():
        raise column.refuse(f"cannot hold {number}")
    if column.scale is not None and column.precision is not None and number:
        _, digits, exponent = number.normalize(decimal.Context(prec=1_000)).as_tuple()
        assert isinstance(exponent, int)
        if -exponent > column.scale or len(digits) + exponent > column.precision - column.scale:
            raise column.refuse(f"cannot hold {number} exactly")
    return number


def _bind_float(column: Column, value: Any) -> float:
    if not _is_number(value):
        raise column.refuse(f"holds numbers, not {_shown(value)}")
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


def _bind_bool(column: Column, value: Any) -> bool:
    if not isinstance(value, bool):
        raise column.refuse(f"holds booleans, not {_shown(value)}")
    return value


def _bind_text(column: Column, value: Any) -> str:
    if not isinstance(value, str):
        raise column.refuse(f"holds text, not {_shown(value)}")
    if column.labels is not None and value not in column.labels:
        raise column.refuse(f"has no label {_shown(value)}")
    if column.max_length is not None and len(value) > column.max_length:
        raise column.refuse(f"cannot hold a text of {len(value)} characters")
    if column.padded and value.endswith(" "):
        raise column.refuse("does not keep blanks at the end of a text")
    return value


def _bind_uuid(column: Column, value: Any) -> uuid.UUID:
    found = parse_uuid(value)
    if found is None:
        raise column.refuse(f"holds UUIDs in lower case with hyphens, not {_shown(value)}")
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


def _bind_date(column: Column, value: Any) -> dt.date:
    found = parse_date(value)
    if found is None:
        raise column.refuse(f"holds dates as YYYY-MM-DD, not {_shown(value)}")
    return found


def _bind_timestamp(column: Column, value: Any) -> dt.datetime:
    if column.zone is None:
        found = parse_timestamp(value)
        if found is None:
            raise column.refuse(f"holds times as YYYY-MM-DDTHH:MM:SS.ffffff, not {_shown(value)}")
        return _fits_precision(column, found)
    moment = parse_timestamptz(value)
    if moment is None:
        raise column.refuse(f"holds times as YYYY-MM-DDTHH:MM:SS.ffffffZ, not {_shown(value)}")
    local = moment.astimezone(ZoneInfo(column.zone)).replace(tzinfo=None, fold=0)
    if read_value(column, local) != value:
        raise column.refuse(f"cannot hold {value}: its local time in {column.zone} is that of two moments")
    return _fits_precision(column, local)


def _bind_timestamptz(column: Column, value: Any) -> dt.datetime:
    found = parse_timestamptz(value)
    if found is None:
        raise column.refuse(f"holds times as YYYY-MM-DDTHH:MM:SS.ffffffZ, not {_shown(value)}")
    return _fits_precision(column, found)


def _fits_precision(column: Column, moment: dt.datetime) -> dt.datetime:
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


def _bind_bytes(column: Column, value: Any) -> bytes:
    found = parse_bytes(value)
    if found is None:
        raise column.refuse(f"holds bytes as base64 text, not {_shown(value)}")
    return found


def _bind_json(column: Column, value: Any) -> str:
    return orjson.dumps(value).decode()


def _bind_array(column: Column, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise column.refuse(f"holds lists, not {_shown(value)}")
    _shape(column, value)
    return _bind_elements(column, value)


def _bind_elements(column: Column, value: list[Any]) -> list[Any]:
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


def _shape(column: Column, value: list[Any]) -> tuple[int, ...]:
    """Return the sizes of the dimensions; an array has one size in each, and none of nothing inside."""
    inner = [_shape(column, item) if isinstance(item, list) else None for item in value]
    if not inner:
        return (0,)
    first = inner[0]
    if any(shape != first for shape in inner) or (first is not None and 0 in first):
        raise column.refuse("holds lists of one shape, not a list of lists of different sizes")
    return (len(value), *(first or ()))


def _bind_cell(column: Column, value: Any) -> Any:
    if isinstance(value, bool | list | dict):
        raise column.refuse(f"holds numbers and text, not {_shown(value)}")
    return value


def _refuse(column: Column, value: Any) -> Any:
    raise column.refuse("is of a type that isthmus reads and does not write")


_BINDERS: dict[Kind, Callable[[Column, Any], Any]] = {
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


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
