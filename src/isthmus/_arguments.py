"""Checks of arguments that callers give: another type must not come to a comparison, a loop or a driver."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from isthmus.errors import UsageError

T = TypeVar("T")


def check_count(name: str, value: Any, limit: int = sys.maxsize, error: type[UsageError] = UsageError) -> int:
    """Return a whole number from 1; raises an error for anything else, booleans too."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value > limit:
        bounds = f"from 1 to {limit:,}" if limit < sys.maxsize else "from 1"
        raise error(f"{name} must be a whole number {bounds}, got {shorten(value)}")
    return value


def check_seconds(name: str, value: Any, *, zero: bool = False) -> float:
    """Return a finite number of seconds above 0, or from 0; raises `UsageError` for anything else."""
    is_number = not isinstance(value, bool) and isinstance(value, int | float)
    if not is_number or not (value >= 0 if zero else value > 0) or not value < sys.maxsize:
        raise UsageError(
            f"{name} must be a number of seconds {'from' if zero else 'above'} 0, got {shorten(value)}"
        )
    return float(value)


def check_version(value: Any) -> str:
    """Return a record's version; raises `UsageError` for what cannot be one."""
    # A driver would fail on the others; a text that no store returned is stale.
    if not isinstance(value, str) or not (value.isascii() or value.isprintable()):
        raise UsageError(f"if_version is the version of a record, a text; got {shorten(value)}")
    return value


def as_list(items: Iterable[T]) -> list[T]:
    """Return the items of a batch; raises `UsageError` for what has none."""
    if not isinstance(items, Iterable):
        raise UsageError(f"a batch is a list or another iterable of items, got {shorten(items)}")
    return list(items)


def check_function(name: str, value: Any) -> None:
    """Raise `UsageError` unless a value can be called."""
    if not callable(value):
        raise UsageError(f"{name} takes a function, got {shorten(value)}")


def shorten(value: Any) -> str:
    """Return a value for a message."""
    # Python refuses to print an int of over 4,300 digits, also in a list; other values' own code may fail.
    if isinstance(value, int) and abs(value) > sys.maxsize:
        return "a number beyond 64 bits"
    try:
        return repr(value)[:80]
    except MemoryError:
        raise
    except Exception:
        return f"a {type(value).__name__}"
