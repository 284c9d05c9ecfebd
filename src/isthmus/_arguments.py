"""Checks of numbers that callers give: another type must not come to a comparison or a loop."""

from __future__ import annotations

import sys
from typing import Any

from isthmus.errors import UsageError


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


def shorten(value: Any) -> str:
    """Return a value for a message."""
    # Python refuses to print an int of over 4,300 digits.
    return (
        "a number beyond 64 bits" if isinstance(value, int) and abs(value) > sys.maxsize else repr(value)[:80]
    )
