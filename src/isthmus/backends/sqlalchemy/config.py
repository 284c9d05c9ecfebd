"""The config model of the SQLAlchemy backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self
from urllib.parse import SplitResult, urlencode

from pydantic import Field, field_validator, model_validator

from isthmus._core.config import BackendConfig, ConfigGroup, SecretStr, UniqueSettings, parse_url
from isthmus.backends._tables.settings import KeySettings, ReadingSettings


class PoolConfig(ConfigGroup):
    """Settings of SQLAlchemy's pool, of which there is one for each event loop."""

    size: int = Field(default=5, ge=1)
    """Connections that are kept open."""
    max_overflow: int = Field(default=10, ge=0)
    """Connections above `size` that are opened under load and closed afterwards."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds to wait for a connection."""
    recycle: float = -1
    """Seconds after which a connection is replaced; -1 is never."""


class CollectionConfig(UniqueSettings, KeySettings):
    """What a config says about one collection."""

    version: str | None = None
    """With `layout="native"`, the integer, text or uuid column that each write changes: a row's version."""


class SQLAlchemyConfig(BackendConfig, CollectionConfig, ReadingSettings):
    """Settings of a database: an async SQLAlchemy URL such as `mysql+asyncmy://…`, or an `AsyncEngine`."""

    backend: ClassVar[str] = "sqlalchemy"
    spellings: ClassVar[Mapping[str, str]] = {
        "dsn": "address",
        "connection_string": "address",
        "pool_size": "pool.size",
        "max_overflow": "pool.max_overflow",
        "pool_timeout": "pool.timeout",
        "pool_recycle": "pool.recycle",
    }
    local: ClassVar[frozenset[str]] = frozenset({"engine"})

    address: SecretStr | None = None
    """The SQLAlchemy URL, a secret as a whole since it holds the password."""
    engine: Any = None
    """The application's AsyncEngine; it is never closed, and belongs to the loop that it is used on."""
    table: str = "records"
    """The default collection."""
    layout: Literal["records", "native"] = "records"
    """`records`: tables of isthmus. `native`: tables that others made, read and written as they are."""
    collections: dict[str, CollectionConfig] = Field(default={})
    """Unique fields of collections other than the default one; with `native` their `key` and `version`."""
    create_table: bool = True
    """Whether a missing table is created."""
    pool: PoolConfig = PoolConfig()

    def private_to_handle(self) -> bool:
        """Return whether the database is SQLite in memory, shared by a name or not, or temporary."""
        # Imported here: the settings are read without SQLAlchemy too, where a URL is only shown.
        from isthmus.backends.sqlalchemy.address import is_in_memory

        return self.address is not None and is_in_memory(self.address.get_secret_value())

    def is_public(self, key: str) -> bool:
        """Return whether the address has neither a password nor options of the driver that may be one."""
        from isthmus.backends.sqlalchemy.address import holds_secret

        if key != "address" or self.address is None:
            return False
        return not holds_secret(self.address.get_secret_value())

    @field_validator("create_table", mode="before")
    @classmethod
    def _as_elsewhere(cls, value: Any) -> Any:
        """Take the values of other SQL backends too, which the command line gives."""
        return {"never": False, "if_missing": True}.get(value, value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_layout(self) -> Self:
        groups: tuple[CollectionConfig, ...] = (self, *self.collections.values())
        native = self.layout == "native"
        for group in groups:
            for name in ("unique",) if native else ("key", "version"):
                if getattr(group, name):
                    raise ValueError(
                        f"{name} needs layout 'records': isthmus changes nothing of a table that others made"
                        if native
                        else f"{name} needs layout 'native'"
                    )
        if not native and (self.zone is not None or self.numeric != "exact"):
            raise ValueError("zone and numeric need layout 'native'")
        return self

    def settings_of(self, collection: str) -> CollectionConfig:
        """Return what is said about a collection."""
        return self if collection == self.table else self.collections.get(collection, CollectionConfig())

    def unique_fields(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Return the declared unique fields of each collection."""
        others = {name: settings.unique for name, settings in self.collections.items()}
        return {**others, self.table: self.unique}

    @classmethod
    def read_url(cls, url: Any) -> dict[str, Any]:
        """Return the settings in a URL, which SQLAlchemy parses itself."""
        parts, options = parse_url(url, cls.model_fields, lenient=True)
        return cls.from_url(parts, options)

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return settings for `sqlalchemy+mysql+asyncmy://…?table=notes`; other options are the driver's."""
        names = cls.model_fields.keys() - {"address", "engine"}
        own: dict[str, Any] = {key: options.pop(key) for key in names if key in options}
        dialect = url.scheme.removeprefix("sqlalchemy+")
        address = f"{dialect}://{url.netloc}{url.path}"
        return {"address": f"{address}?{urlencode(options)}" if options else address, **own}
