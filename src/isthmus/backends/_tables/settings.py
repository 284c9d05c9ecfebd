"""The settings of a collection that is a table of others, for every backend that serves them."""

from __future__ import annotations

from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import field_validator

from isthmus._core.config import ConfigGroup


class KeySettings(ConfigGroup):
    """Which columns tell the rows of one table apart."""

    key: tuple[str, ...] = ()
    """With `layout="native"`, the columns that identify a row where there is no primary key, as in a view."""

    @field_validator("key", mode="before")
    @classmethod
    def _key_names(cls, value: Any) -> Any:
        return tuple(value.split(",")) if isinstance(value, str) else value


class ReadingSettings(ConfigGroup):
    """How values are read whose stored form has several readings."""

    zone: str | None = None
    """For `native`: the zone of columns whose times have none; None: these times are text without a zone."""
    numeric: Literal["exact", "float", "text"] = "exact"
    """For `native`: a numeric that is no float is an error (`exact`), the nearest float, or text."""

    @field_validator("zone")
    @classmethod
    def _check_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (ValueError, ZoneInfoNotFoundError):
                raise ValueError(f"there is no time zone {value!r}") from None
        return value
