"""One class for each built-in backend: `AsyncPostgresDatabase(config)` and its like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isthmus._database import AsyncDatabase

if TYPE_CHECKING:
    from isthmus._core.config import BackendConfig


class _Named(AsyncDatabase):
    _backend_name: str

    def __init__(self, config: Mapping[str, Any] | BackendConfig | None = None) -> None:
        super().__init__(self._backend_name, config)


class AsyncMemoryDatabase(_Named):
    """`AsyncDatabase("memory", config)`."""

    _backend_name = "memory"


class AsyncSQLiteDatabase(_Named):
    """`AsyncDatabase("sqlite", config)`."""

    _backend_name = "sqlite"


class AsyncPostgresDatabase(_Named):
    """`AsyncDatabase("postgres", config)`."""

    _backend_name = "postgres"


class AsyncElasticsearchDatabase(_Named):
    """`AsyncDatabase("elasticsearch", config)`."""

    _backend_name = "elasticsearch"


class AsyncS3Database(_Named):
    """`AsyncDatabase("s3", config)`."""

    _backend_name = "s3"
