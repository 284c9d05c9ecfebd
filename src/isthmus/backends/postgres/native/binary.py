"""Reads the server's binary forms: unlike its texts they depend on no setting of the session."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

_int4 = struct.Struct(">i").unpack_from
_float8, _interval = struct.Struct(">d").unpack, struct.Struct(">qii").unpack
_SECOND = 1_000_000
_NULL = -1
# How PostgreSQL 17 and later send an infinite interval.
_INFINITE = {(2**63 - 1, 2**31 - 1, 2**31 - 1): "infinity", (-(2**63), -(2**31), -(2**31)): "-infinity"}


def read_float(value: bytes) -> float:
    """Return a float8."""
    number: float = _float8(value)[0]
    return number


def read_interval(value: bytes) -> str:
    """Return an interval as the server writes it in the style `postgres`."""
    found = microseconds, days, months = _interval(value)
    if found in _INFINITE:
        return _INFINITE[found]
    sign = -1 if months < 0 else 1
    years, rest = divmod(abs(months), 12)
    parts: list[str] = []
    is_before = False
    for number, unit in ((sign * years, "year"), (sign * rest, "mon"), (days, "day")):
        if number:
            plus = "+" if is_before and number > 0 else ""
            parts.append(f"{plus}{number} {unit}{'' if number == 1 else 's'}")
            is_before = number < 0
    if microseconds or not parts:
        plus = "-" if microseconds < 0 else "+" if is_before else ""
        parts.append(plus + _time(abs(microseconds)))
    return " ".join(parts)


def _time(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, _SECOND)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}.{fraction:06}".rstrip("0").rstrip(".")


def read_array(value: bytes, read: Callable[[bytes], Any]) -> list[Any]:
    """Return an array as lists in lists, each element read by `read`."""
    dimensions = _int4(value)[0]
    start = 12 + 8 * dimensions
    sizes = [_int4(value, 12 + 8 * number)[0] for number in range(dimensions)]
    found = list(_elements(value, start, read))
    for size in reversed(sizes[1:]):
        found = [found[place : place + size] for place in range(0, len(found), size)]
    return found


def _elements(value: bytes, start: int, read: Callable[[bytes], Any]) -> Iterator[Any]:
    while start < len(value):
        size = _int4(value, start)[0]
        start += 4
        if size == _NULL:
            yield None
        else:
            yield read(value[start : start + size])
            start += size
