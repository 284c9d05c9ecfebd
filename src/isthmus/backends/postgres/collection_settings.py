"""The settings of one collection: its indexes, or what tells the rows of a native table apart."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from isthmus._core.config import UniqueSettings


class Indexes(UniqueSettings):
    """Which fields of a collection are unique, and which are fast to filter and sort by."""

    indexes: tuple[str, ...] = ()
    """Equality, ranges, prefixes, sorting; values of any type."""
    prefix: tuple[str, ...] = ()
    """As `indexes`, for fields that mostly hold text, with one index less."""
    substring: tuple[str, ...] = ()
    """`contains`, `like "%x%"` and `ends_with`, by trigrams; needs the extension pg_trgm."""
    gin: bool | tuple[str, ...] = False
    """Equality on these fields and on elements of lists in them; True: on every field."""

    @field_validator("indexes", "prefix", "substring", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("gin", mode="before")
    @classmethod
    def _gin(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() not in ("true", "false", "1", "0"):
            return (value,)
        return value


class CollectionSettings(Indexes):
    """What a config says about one collection."""

    key: tuple[str, ...] = ()
    """With `layout="native"`, what tells rows apart where there is no primary key: in a view."""
    version: str | None = None
    """With `layout="native"`, the column that changes on every write; None: the server's own row version."""

    @field_validator("key", mode="before")
    @classmethod
    def _key_names(cls, value: Any) -> Any:
        return tuple(value.split(",")) if isinstance(value, str) else value
