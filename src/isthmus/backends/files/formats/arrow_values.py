"""Columns of Arrow as canonical JSON values, a whole column at a time."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from isthmus._times import format_datetime, from_micros
from isthmus._values import INT_MAX, canonical_operand, check_text
from isthmus.backends.files.formats.arrow_library import all_true, arrow, compute, make_number, to_numpy
from isthmus.backends.files.formats.column_kinds import Unreadable
from isthmus.errors import InvalidRecordError

_EXACT = 2**53
# The microseconds of the years 1 to 9999.
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
_FRACTION = Unreadable("a fraction below a microsecond; round=True cuts it")
_TO_MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}
UTC = ("UTC", "Etc/UTC", "+00:00")
"""Names of zones in which a time without a zone is an instant as it is."""


class Reading(NamedTuple):
    """How values without one exact JSON form are read."""

    zone: str | None = None
    round: bool = False


def column_values(array: Any, reading: Reading, *, as_text: bool = False) -> Sequence[Any]:
    """Return the values of an array, `Unreadable` for each that has no canonical form."""
    kind = array.type
    types = arrow().types
    if as_text and not types.is_nested(kind):
        return _texts(array)
    if types.is_null(kind):
        return [None] * len(array)
    if types.is_boolean(kind):
        return array.to_pylist()  # type: ignore[no-any-return]
    if types.is_integer(kind):
        return _integers(array)
    if types.is_floating(kind):
        return _floats(array)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _strings(array)
    if types.is_dictionary(kind):
        return _dictionary_values(array, reading)
    if types.is_timestamp(kind):
        return _timestamps(array, reading)
    if types.is_nested(kind):
        return _convert_nested(array, reading)
    return _convert_rare(array, reading)


def _dictionary_values(array: Any, reading: Reading) -> Sequence[Any]:
    if arrow().types.is_nested(array.type.value_type) or len(array.dictionary) > len(array):
        return column_values(decode_dictionary(array), reading)
    distinct = column_values(array.dictionary, reading)
    return [None if code is None else distinct[code] for code in array.indices.to_pylist()]


def decode_dictionary(array: Any) -> Any:
    """Return the values of a dictionary array, one for each row."""
    pa, values = arrow(), array.dictionary
    if pa.types.is_string_view(values.type):  # as Polars writes them, and Arrow cannot take them
        values = values.cast(pa.large_string())
    elif pa.types.is_binary_view(values.type):
        values = values.cast(pa.large_binary())
    return pa.DictionaryArray.from_arrays(array.indices, values).dictionary_decode()


def _integers(array: Any) -> Sequence[Any]:
    values = array.to_pylist()
    if arrow().types.is_uint64(array.type):
        return [
            Unreadable("an integer beyond 64 bits") if value is not None and value > INT_MAX else value
            for value in values
        ]
    return values  # type: ignore[no-any-return]


def _floats(array: Any) -> Sequence[Any]:
    if array.null_count == 0:
        numbers = to_numpy(array, "float64")
        if len(numbers) == 0 or float(abs(numbers).max()) < _EXACT:  # false for NaN
            return (numbers + 0.0).tolist()  # type: ignore[no-any-return]  # -0.0 becomes 0.0
        return list(map(_float, numbers.tolist()))
    return [None if value is None else _float(value) for value in array.to_pylist()]


def _float(value: float) -> float | Unreadable:
    if value - value != 0.0:
        return Unreadable(f"{value} is not a finite number")
    if value == 0.0:
        return 0.0
    return int(value) if _EXACT <= abs(value) < 2.0**63 else value


def needs_care(array: Any) -> bool:
    """Return whether a text of the array may hold U+0000, or is not UTF-8: readers do not check it."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return False
    one = struct.Struct("<q" if arrow().types.is_large_string(array.type) else "<i")
    first, last = (
        one.unpack_from(offsets, row * one.size)[0] for row in (array.offset, array.offset + len(array))
    )
    texts = bytes(memoryview(data)[first:last])
    return b"\0" in texts or not (texts.isascii() or _is_utf8(array))


def _is_utf8(array: Any) -> bool:
    try:
        array.validate(full=True)
    except arrow().ArrowInvalid:
        return False
    return True


def _strings(array: Any) -> Sequence[Any]:
    if arrow().types.is_string_view(array.type) or needs_care(array):
        return _each(array, _text)
    return array.to_pylist()  # type: ignore[no-any-return]


def _text(value: str) -> str | Unreadable:
    try:
        return check_text(value, "text")
    except InvalidRecordError as error:
        return Unreadable(str(error))


def _texts(array: Any) -> Sequence[Any]:
    pa = arrow()
    if pa.types.is_dictionary(array.type):
        array = decode_dictionary(array)
    if pa.types.is_decimal(array.type):
        return [None if value is None else format(value, "f") for value in array.to_pylist()]
    try:
        return _strings(array.cast(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        problem = Unreadable(f"it has no text: {error}")
        return [problem if there else None for there in array.is_valid().to_pylist()]


def _each(array: Any, convert: Callable[[Any], Any]) -> list[Any]:
    """Return converted values one by one, `Unreadable` for those that Python has no value of."""
    values = []
    for scalar in array:
        try:
            value = scalar.as_py()
            values.append(None if value is None else convert(value))
        except (ValueError, OverflowError, TypeError) as error:
            values.append(Unreadable(str(error)))
    return values


def _timestamps(array: Any, reading: Reading) -> Sequence[Any]:
    """Return times as texts in UTC with six digits."""
    pa, pc = arrow(), compute()
    unit, zone = array.type.unit, array.type.tz
    if zone is None and reading.zone is None:
        if array.null_count == len(array):
            return [None] * len(array)
        problem = Unreadable("a time without a zone; set zone= to the one that is meant, such as zone='UTC'")
        return [problem if there else None for there in array.is_valid().to_pylist()]
    ticks = array.cast(pa.int64())
    if zone is None and reading.zone not in UTC:
        return [None if value is None else _local(value, unit, reading) for value in ticks.to_pylist()]
    if unit == "ns" and not reading.round and not all_true(pc.equal(below_micros(ticks), make_number(0))):
        return [None if value is None else _instant(value, unit, reading) for value in ticks.to_pylist()]
    low, high = (_micros(value, unit) for value in _bounds(ticks))
    if low is not None and high is not None and (low < _FIRST or high > _LAST):
        return [None if value is None else _instant(value, unit, reading) for value in ticks.to_pylist()]
    micros = ticks if unit == "us" else _scale(ticks, unit)
    instants = micros.cast(pa.timestamp("us", "UTC"))
    return pc.strftime(instants, format="%Y-%m-%dT%H:%M:%SZ", locale="C").to_pylist()  # type: ignore[no-any-return]


def _scale(ticks: Any, unit: str) -> Any:
    pc = compute()
    if unit == "ns":
        # Arrow divides towards zero; a fraction is cut towards the past.
        whole = pc.divide(ticks, make_number(1_000))
        cut = pc.less(ticks, pc.multiply(whole, make_number(1_000)))
        return pc.subtract(whole, cut.cast(arrow().int64()))
    return pc.multiply(ticks, make_number(_TO_MICROS[unit]))


def below_micros(ticks: Any) -> Any:
    """Return the nanoseconds above whole microseconds, 0 to 999."""
    pc = compute()
    rest = pc.subtract(ticks, pc.multiply(pc.divide(ticks, make_number(1_000)), make_number(1_000)))
    return pc.if_else(pc.less(rest, make_number(0)), pc.add(rest, make_number(1_000)), rest)


def _bounds(ticks: Any) -> tuple[int | None, int | None]:
    found = compute().min_max(ticks).as_py()
    return found["min"], found["max"]


def _micros(value: int | None, unit: str) -> int | None:
    if value is None:
        return None
    return value // 1_000 if unit == "ns" else value * _TO_MICROS[unit]


def has_year(value: int, unit: str) -> bool:
    """Return whether an instant is in the years 1 to 9999."""
    micros = _micros(value, unit)
    return micros is not None and _FIRST <= micros <= _LAST


def _instant(value: int, unit: str, reading: Reading) -> str | Unreadable:
    micros = _micros(value, unit)
    assert micros is not None
    if unit == "ns" and value % 1_000 and not reading.round:
        return _FRACTION
    if not has_year(value, unit):
        return Unreadable("a time outside the years 1 to 9999")
    return format_datetime(from_micros(micros))


def _local(value: int, unit: str, reading: Reading) -> str | Unreadable:
    """Return the instant of a local time, unless clocks skipped it or showed it twice."""
    checked = _instant(value, unit, reading)
    if isinstance(checked, Unreadable):
        return checked
    assert reading.zone is not None
    local = dt.datetime.fromisoformat(checked.removesuffix("Z"))
    try:
        there = local.replace(tzinfo=ZoneInfo(reading.zone))
        if there.astimezone(dt.UTC).astimezone(there.tzinfo).replace(tzinfo=None) != local:
            return Unreadable(f"{local} does not exist in {reading.zone}: clocks were put forward")
        again = there.replace(fold=1)
        if again.utcoffset() != there.utcoffset():
            both = " and ".join(map(format_datetime, (there, again)))
            return Unreadable(f"{local} is two instants in {reading.zone}, {both}: clocks were put back")
        return format_datetime(there)
    except OverflowError:
        return Unreadable("a time outside the years 1 to 9999")


def _convert_nested(array: Any, reading: Reading) -> Sequence[Any]:
    types = arrow().types
    kind = array.type
    if types.is_struct(kind):
        names = [kind.field(index).name for index in range(kind.num_fields)]
        if len(set(names)) < len(names) or Unreadable in map(type, map(_text, names)):
            problem = Unreadable("a struct with a repeated name, or one that cannot be stored")
            return [problem if there else None for there in array.is_valid().to_pylist()]
        columns = [column_values(child, reading) for child in array.flatten()]
        valid = array.is_valid().to_pylist()
        rows = zip(*columns, strict=True) if columns else iter([()] * len(array))
        return [
            _object(dict(zip(names, values, strict=True))) if there else None
            for there, values in zip(valid, rows, strict=True)
        ]
    if types.is_map(kind):
        keys = column_values(array.keys, reading)
        items = column_values(array.items, reading)
        pairs = list(zip(keys, items, strict=True))
        return [None if part is None else _mapping(part) for part in _slices(array, pairs)]
    if types.is_list(kind) or types.is_large_list(kind):
        return [
            None if part is None else _list(part)
            for part in _slices(array, column_values(array.values, reading))
        ]
    if types.is_fixed_size_list(kind):
        plain = array.cast(arrow().list_(kind.value_type))
        return _convert_nested(plain, reading)
    return _each(array, lambda value: canonical_operand(value, "value"))


def _slices(array: Any, values: Sequence[Any]) -> list[Sequence[Any] | None]:
    """Return the part of the values that each list of an array has."""
    offsets = array.offsets.to_pylist()
    valid = array.is_valid().to_pylist()
    return [
        values[start:end] if there else None
        for there, start, end in zip(valid, offsets[:-1], offsets[1:], strict=True)
    ]


def _list(values: Sequence[Any]) -> Any:
    return next((value for value in values if type(value) is Unreadable), None) or list(values)


def _object(values: dict[str, Any]) -> Any:
    return next((value for value in values.values() if type(value) is Unreadable), None) or values


def _mapping(pairs: Sequence[tuple[Any, Any]]) -> Any:
    made = dict(pairs)
    if not all(type(key) is str for key in made):
        return Unreadable("a map whose keys are not text")
    if len(made) != len(pairs):
        return Unreadable("a map with a repeated key")
    return _object(made)


def _convert_rare(array: Any, reading: Reading) -> Sequence[Any]:
    pa = arrow()
    types, kind = pa.types, array.type
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            return _each(array, str)
        return column_values(array.storage, reading)
    if types.is_date(kind):
        return _each(array, dt.date.isoformat)
    if types.is_time(kind):
        values = _each(array, dt.time.isoformat)
        if kind.bit_width == 32 or kind.unit != "ns" or reading.round:
            return values
        fractions = below_micros(array.cast(pa.int64())).to_pylist()
        return [_FRACTION if rest else value for value, rest in zip(values, fractions, strict=True)]
    if types.is_decimal(kind):
        return [None if value is None else _decimal(value) for value in array.to_pylist()]
    if types.is_run_end_encoded(kind):
        return column_values(compute().run_end_decode(array), reading)
    if (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    ):
        return _each(array, lambda value: base64.b64encode(value).decode("ascii"))
    problem = Unreadable(f"a value of type {kind} has no JSON form")
    return [problem if there else None for there in array.is_valid().to_pylist()]


def _decimal(value: decimal.Decimal) -> Any:
    try:
        return canonical_operand(value, "decimal")
    except InvalidRecordError:
        return Unreadable(f"{value} has no exact JSON number; set types= to read the column as text")
