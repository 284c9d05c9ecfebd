"""Buckets of times and numbers as group keys (meaning §7)."""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from isthmus._arguments import shorten
from isthmus._path import Path, Root
from isthmus._suggest import suggest
from isthmus._times import format_datetime
from isthmus._value import Value
from isthmus._values import INT_MAX, INT_MIN, JSON, Scalar
from isthmus.errors import QueryError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

Unit: TypeAlias = Literal["hour", "day", "week", "month", "quarter", "year"]
UNITS: tuple[Unit, ...] = get_args(Unit)
_LARGEST = int(sys.float_info.max)


class Bucket(Value):
    """A group key: of texts the calendar period in a time zone, of numbers the range that holds them.

    Exactly one of `unit` and `width` is set.
    """

    path: Path
    unit: Unit | None = None
    zone: str = "UTC"
    width: int | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.unit or self.width}"

    def of(self, value: JSON) -> Scalar | None:
        """Return the key of the bucket that a value falls into; None if there is none."""
        if self.width is not None:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return _lower_bound(value, self.width) if is_number else None  # type: ignore[arg-type]
        if not isinstance(value, str) or self.unit is None:
            return None
        return _period(value, self.unit, self.zone)


GroupKey: TypeAlias = Path | Bucket


def path_of(key: GroupKey) -> Path:
    """Return the path of a group key."""
    return key.path if isinstance(key, Bucket) else key


def buckets_of(values: Iterable[JSON], bucket: Bucket) -> list[Scalar | None]:
    """Return the keys of the groups of a record with these values: distinct buckets, or None alone."""
    found = dict.fromkeys(bucket.of(value) for value in values)
    found.pop(None, None)
    return list(found) or [None]


def make_bucket(path: Path, size: Any, zone: Any) -> Bucket:
    """Return the bucket of `field(…).by(size, zone=…)`; raises `QueryError` for an unknown size or zone."""
    if path.root is Root.SCORE:
        raise QueryError("_score can be sorted by, not grouped by")
    if isinstance(size, str):
        if size not in UNITS:
            known = ", ".join(UNITS)
            raise QueryError(f"{path} by: unknown unit {size!r}{suggest(size, UNITS)}; known: {known}")
        zone = "UTC" if zone is None else zone
        if not isinstance(zone, str):
            raise QueryError(f"{path} by: a zone is a name such as 'Europe/Oslo', got {shorten(zone)}")
        _zone_info(zone)
        return Bucket(path, unit=size, zone=zone)
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _LARGEST:
        raise QueryError(
            f"{path} by: needs a unit such as 'day' or a whole number from 1 to the largest float,"
            f" not {shorten(size)}"
        )
    if zone is not None:
        raise QueryError(f"{path} by: numbers have no time zone")
    return Bucket(path, width=size)


@functools.lru_cache(maxsize=64)
def _zone_info(zone: Any) -> ZoneInfo:
    from zoneinfo import ZoneInfo  # 3 ms to import: only buckets of times need it

    try:
        return ZoneInfo(zone)
    except (KeyError, ValueError, TypeError, OSError):
        raise QueryError(
            f"unknown time zone {zone!r}; a zone is a name such as 'Europe/Oslo'. Where the system has no"
            " time zones, install isthmus[tzdata]"
        ) from None


def _lower_bound(number: float, width: int) -> int | float:
    # The floor of a quotient by a whole number is that of the number's floor, which is exact.
    lower = math.floor(number) // width * width
    if INT_MIN <= lower <= INT_MAX:
        return lower
    # Only the lowest range of all can begin below the floats.
    return float(max(lower, -_LARGEST))


_DATE = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_TIME = r"[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]{1,9})?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
_FORM = f"{_DATE}(?:{_TIME})?"  # compiled by its first use, and kept by re


@functools.lru_cache(maxsize=4096)
def _period(text: str, unit: Unit, zone: str) -> str | None:
    """Return the start of the period that a date or an RFC 3339 date-time lies in; None for other texts."""
    found = re.fullmatch(_FORM, text)
    if found is None:
        return None
    try:
        if found[4] is None:
            day = dt.date(*map(int, found.groups()[:3]))
            return None if unit == "hour" else _first_day(day, unit).isoformat()
        local = _instant(found).astimezone(_zone_info(zone))
        if unit == "hour":
            start = local.replace(minute=0, second=0)
            # By the offset at the instant itself, so that an hour that comes twice is two.
            return format_datetime((start - (local.utcoffset() or dt.timedelta())).replace(tzinfo=dt.UTC))
        return _first_day(local.date(), unit).isoformat()
    except (ValueError, OverflowError):  # no such date, or one outside of the years 1 to 9999
        return None


def _instant(found: re.Match[str]) -> dt.datetime:
    """Return the second of a date-time; a fraction changes no bucket."""
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    written = dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)
    if found[7] is None:
        return written
    hours, minutes = int(found[8]), int(found[9])
    if hours > 23 or minutes > 59:
        raise ValueError(found[0])
    offset = dt.timedelta(hours=hours, minutes=minutes)
    return written - offset if found[7] == "+" else written + offset


def _first_day(day: dt.date, unit: Unit) -> dt.date:
    match unit:
        case "week":
            return day - dt.timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "quarter":
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
        case "year":
            return day.replace(month=1, day=1)
        case _:
            return day
