"""Config of the SQLAlchemy backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import SplitResult, urlencode

from pydantic import Field

from isthmus._core.config import BackendConfig, ConfigGroup, SecretStr


class PoolConfig(ConfigGroup):
    """SQLAlchemy's own pool, one for each event loop."""

    size: int = Field(default=5, ge=1)
    max_overflow: int = Field(default=10, ge=0)
    timeout: float = Field(default=10.0, gt=0)
    """Seconds to wait for a connection."""
    recycle: float = -1
    """Seconds after which a connection is replaced; -1 is never."""


class SQLAlchemyConfig(BackendConfig):
    """An async SQLAlchemy URL such as `mysql+asyncmy://…`, or an `AsyncEngine` that the application has."""

    backend: ClassVar[str] = "sqlalchemy"
    spellings: ClassVar[Mapping[str, str]] = {
        "dsn": "address",
        "connection_string": "address",
        "pool_size": "pool.size",
        "max_overflow": "pool.max_overflow",
        "pool_timeout": "pool.timeout",
        "pool_recycle": "pool.recycle",
    }

    address: SecretStr | None = None
    """The SQLAlchemy URL; it holds the password, so it is a secret as a whole."""
    engine: Any = None
    """An AsyncEngine; it is neither copied nor closed, and belongs to the loop that it is used on."""
    table: str = "records"
    """The default collection."""
    create_table: bool = True
    """Whether a missing table is made."""
    pool: PoolConfig = PoolConfig()

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        """Return settings for `sqlalchemy+mysql+asyncmy://…?table=notes`; other options are the driver's."""
        own: dict[str, Any] = {
            key: options.pop(key) for key in ("table", "pool", "create_table") if key in options
        }
        dialect = url.scheme.removeprefix("sqlalchemy+")
        address = f"{dialect}://{url.netloc}{url.path}"
        return {"address": f"{address}?{urlencode(options)}" if options else address, **own}
