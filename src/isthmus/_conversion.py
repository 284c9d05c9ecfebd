"""Converts a value one step towards JSON (meaning §1), and reports failures of the value's own code."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from isthmus._arguments import shorten
from isthmus._times import format_datetime
from isthmus.errors import QueryError

if TYPE_CHECKING:
    import datetime as dt
    import decimal

PLAIN = frozenset((str, int, float, bool, type(None), dict, list, tuple))
"""The types that JSON has, and tuples."""


class UnstorableError(TypeError):
    """A value that no record can hold; the message lacks its path."""


def convert(value: Any) -> Any:
    """Convert a value that orjson does not encode; also its `default=` hook.

    Raises `UnstorableError`, or whatever the value's own code raises.
    """
    match value:
        case None | bool():
            return value
        case enum.Enum():
            return value.value
        case str():
            return str.__str__(value)
        case int():
            return int(value)
        case float():
            return float(value)
        case dict():
            return dict(value)
        case list() | tuple():
            return list(value)
    return _convert_rare(value)


def _convert_rare(value: Any) -> Any:
    """Convert types whose modules are loaded on first use only."""
    import base64
    import dataclasses
    import datetime as dt
    import decimal
    import uuid

    match value:
        case dt.datetime():
            return _instant(value)
        case dt.timedelta() if has_nanoseconds(value):
            raise UnstorableError(
                f"nanoseconds cannot be stored ({shorten(value)}); round it to microseconds"
            )
        case dt.date():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case decimal.Decimal():
            return _decimal(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    dump: Callable[[], Any] | None = getattr(type(value), "model_dump", None)
    if dump is not None:  # a pydantic model, without importing pydantic
        return value.model_dump()
    if isinstance(value, Mapping):
        return dict(value)
    raise UnstorableError(f"a value of type {type(value).__name__} cannot be stored")


def _instant(value: dt.datetime) -> str:
    if value.utcoffset() is None:
        raise UnstorableError(f"a datetime needs a time zone ({shorten(value)} has none)")
    if has_nanoseconds(value):
        raise UnstorableError(f"nanoseconds cannot be stored ({shorten(value)}); round it to microseconds")
    try:
        return format_datetime(value)
    except OverflowError:
        raise UnstorableError(
            f"a datetime must be between the years 1 and 9999 in UTC ({shorten(value)})"
        ) from None


def has_nanoseconds(value: object) -> bool:
    """Return whether a time or a duration has a part below a microsecond, as pandas' types may."""
    return bool(getattr(value, "nanosecond", 0) or getattr(value, "nanoseconds", 0))


def _decimal(value: decimal.Decimal) -> int | float:
    import decimal

    if not value.is_finite():
        raise UnstorableError(f"{value} is not a finite number")
    if value == value.to_integral_value() and -(2**63) <= value < 2**63:
        return int(value)
    number = float(value)
    if not math.isfinite(number) or decimal.Decimal(repr(number)) != value:
        raise UnstorableError(f"Decimal {value} has no exact JSON number; store it as text")
    return number


def raise_interrupt(error: BaseException | None) -> None:
    """Raise the exception if it is no fault of a value: no memory, or the end of a task or of the program.

    orjson reports whatever its hook raised as the cause of an encoding error.
    """
    if isinstance(error, MemoryError) or not isinstance(error, Exception | None):
        raise error


def describe_failure(error: Exception) -> str:
    """Return an exception's type and message for a message of ours."""
    try:
        text = str(error)[:200]
    except Exception as failure:
        raise_interrupt(failure)
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def list_items(what: str, values: Iterable[Any]) -> list[Any]:
    """Return the items of an operand; raises `QueryError` for what the iterable's own code raises."""
    try:
        return list(values)
    except Exception as error:
        raise_interrupt(error)
        raise QueryError(f"{what}: {describe_failure(error)}") from error
