"""The config model of the SQLite backend: file, table, connections, indexes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import SplitResult, unquote

from pydantic import Field, field_validator, model_validator

from isthmus._core.columns import ColumnKind
from isthmus._core.config import BackendConfig, ChangesSettings, ColumnSettings, ConfigGroup, UniqueSettings
from isthmus.backends._tables.settings import KeySettings
from isthmus.backends._tables.sqlite_name import lives_in_memory
from isthmus.errors import ConfigError

MEMORY = ":memory:"


class PoolConfig(ConfigGroup):
    """The number of reading connections, in addition to the one that writes, and the wait for one."""

    readers: int = Field(default=4, ge=1, le=64)
    """Connections that read, each on a thread of its own, opened on demand."""
    timeout: float | None = Field(default=10.0, gt=0)
    """Seconds to wait for a connection, the writer included; None waits without limit."""


class Indexes(UniqueSettings, ColumnSettings):
    """The fields of a collection that are unique, or have a column or an index."""

    indexes: tuple[str, ...] = ()
    """Equality, ranges, prefixes and orders; values of any type."""

    @field_validator("indexes", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class TableSettings(Indexes, KeySettings):
    """What a config says about one collection."""

    version: str | None = None
    """With `layout="native"`, the INTEGER or TEXT column that is a row's version; each write changes it."""


class SQLiteConfig(BackendConfig, TableSettings, ChangesSettings):
    """Settings of one SQLite database."""

    backend: ClassVar[str] = "sqlite"
    spellings: ClassVar[Mapping[str, str]] = {
        "database": "path",
        "file": "path",
        "filename": "path",
        "collection": "table",
        "readers": "pool.readers",
        "pool_timeout": "pool.timeout",
        "max_connections": "pool.readers",
    }

    path: str = MEMORY
    """Path of the file; `:memory:` is a database that lives as long as the handle."""
    table: str = "records"
    """The default collection."""
    layout: Literal["records", "native"] = "records"
    """`records`: tables of isthmus. `native`: tables that others made, read and written as they are."""
    create_table: Literal["if_missing", "never"] = "if_missing"
    """Whether a missing table is created."""
    collections: dict[str, TableSettings] = Field(default={})
    """Indexes of collections other than the default one; with `layout="native"` their `key` and `version`."""
    pool: PoolConfig = PoolConfig()
    busy_timeout: float = Field(default=5.0, ge=0)
    """Seconds to wait while another process holds the file's lock."""
    synchronous: Literal["full", "extra", "normal", "off"] = "full"
    """`full`: a write that returned survives a power cut; `normal` only a crash of the process."""

    @field_validator("path", mode="before")
    @classmethod
    def _path_is_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("synchronous", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if not self.path or "\0" in self.path:
            raise ValueError("path must be a file name or :memory:")
        # Most builds of SQLite read such a name as a URI, and each connection may get its own database.
        if not self.in_memory and lives_in_memory(self.path, uri=True):
            raise ValueError("a database in memory is path=':memory:', not a file: URI")
        groups: tuple[TableSettings, ...] = (self, *self.collections.values())
        native = self.layout == "native"
        if native and self.in_memory:
            raise ValueError("layout='native' serves the tables of a file: give its path")
        for group in groups:
            for name in ("indexes", "unique", "columns") if native else ("key", "version"):
                if getattr(group, name):
                    raise ValueError(
                        f"{name} needs layout 'records': isthmus changes nothing of a table that others made"
                        if native
                        else f"{name} needs layout 'native'"
                    )
        return self

    @property
    def in_memory(self) -> bool:
        """Whether there is no file."""
        return self.path == MEMORY

    def indexes_of(self, collection: str) -> tuple[str, ...]:
        """Return the declared indexes of a collection."""
        if collection == self.table:
            return self.indexes
        declared = self.collections.get(collection)
        return declared.indexes if declared is not None else ()

    def unique_of(self, collection: str) -> tuple[tuple[str, ...], ...]:
        """Return the declared unique fields of a collection."""
        if collection == self.table:
            return self.unique
        declared = self.collections.get(collection)
        return declared.unique if declared is not None else ()

    def columns_of(self, collection: str) -> dict[str, ColumnKind]:
        """Return the declared columns of a collection, without those of a model."""
        declared = self if collection == self.table else self.collections.get(collection)
        return {} if declared is None or declared.columns == "model" else declared.columns

    def model_columns(self, collection: str) -> bool:
        """Return whether all fields of a typed collection's model are columns."""
        declared = self if collection == self.table else self.collections.get(collection)
        return declared is not None and declared.columns == "model"

    def key_of(self, collection: str) -> tuple[str, ...]:
        """Return the key columns that are given for a table or view."""
        if collection == self.table:
            return self.key
        declared = self.collections.get(collection)
        return declared.key if declared is not None else ()

    def version_of(self, collection: str) -> str | None:
        """Return the version column that is given for a table."""
        if collection == self.table:
            return self.version
        declared = self.collections.get(collection)
        return declared.version if declared is not None else None

    def pool_key(self) -> Hashable:
        """Return the settings that two handles must share to use one pool."""
        path = MEMORY if self.in_memory else str(Path(self.path).resolve())
        return ("sqlite", path, self.layout, self.pool, self.busy_timeout, self.synchronous)

    def private_to_handle(self) -> bool:
        return self.path == MEMORY

    @classmethod
    def schemes_of(cls) -> tuple[str, ...]:
        """Return `sqlite` and `sqlite3`."""
        return ("sqlite", "sqlite3")

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return settings for `sqlite://`, `sqlite:///relative.db` or `sqlite:////absolute.db`."""
        if url.netloc:
            raise ConfigError(
                "sqlite: a URL has no host; write sqlite:///relative.db, sqlite:////absolute.db or sqlite://"
            )
        settings = dict(options)
        path = unquote(url.path)
        settings["path"] = path[1:] if path not in ("", "/") else MEMORY
        return settings
