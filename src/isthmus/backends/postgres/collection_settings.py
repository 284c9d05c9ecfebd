"""The settings of one collection: its indexes, or what tells the rows of a native table apart."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from isthmus._core.config import ColumnSettings, UniqueSettings
from isthmus.backends._tables.settings import KeySettings, ReadingSettings


class Indexes(UniqueSettings, ColumnSettings):
    """Which fields of a collection are unique, have a column, or are fast to filter and sort by."""

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


class CollectionSettings(Indexes, KeySettings):
    """What a config says about one collection."""

    version: str | None = None
    """With `layout="native"`, the column that changes on every write; None: the server's own row version."""


class LayoutSettings(CollectionSettings, ReadingSettings):
    """The layout of the collections, those of the default one and those of others."""

    collections: dict[str, CollectionSettings] = Field(default={})
    """Indexes of collections other than the default one; with `layout="native"` their `key` and `version`."""
    layout: Literal["records", "native"] = "records"
    """`records`: tables of isthmus. `native`: tables that others made, read and written as they are."""

    @model_validator(mode="after")
    def _fits_layout(self) -> Self:
        native = self.layout == "native"
        for settings in (self, *self.collections.values()):
            for name in Indexes.model_fields if native else ("key", "version"):
                if getattr(settings, name):
                    raise ValueError(
                        f"{name} needs layout 'records': isthmus changes nothing of a table that others made"
                        if native
                        else f"{name} needs layout 'native'"
                    )
        if not native and (self.zone is not None or self.numeric != "exact"):
            raise ValueError("zone and numeric need layout 'native'")
        return self
