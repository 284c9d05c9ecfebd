"""Instants as text and as microseconds; `datetime` is loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt


def format_datetime(value: dt.datetime) -> str:
    """Return RFC 3339 in UTC with six decimals: text order is time order."""
    import datetime as dt

    utc = value.astimezone(dt.UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond:06d}Z".rjust(27, "0")


def micros(value: dt.datetime) -> int:
    """Return whole microseconds since 1970."""
    import datetime as dt

    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (value - epoch) // dt.timedelta(microseconds=1)


def from_micros(value: int) -> dt.datetime:
    """Return the aware datetime of microseconds since 1970."""
    import datetime as dt

    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=value)
