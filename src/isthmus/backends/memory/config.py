"""The config model of the memory backend."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import SplitResult

from isthmus._core.config import BackendConfig, ChangesSettings, UniqueFields
from isthmus.errors import ConfigError


class MemoryConfig(BackendConfig, UniqueFields, ChangesSettings):
    """Settings of a store that exists as long as its handle."""

    backend: ClassVar[str] = "memory"

    table: str = "records"
    """The default collection."""
    timeout: float = 10.0
    """Seconds that a write waits for another task's transaction to end."""

    def private_to_handle(self) -> bool:
        return True

    @classmethod
    def schemes_of(cls) -> tuple[str, ...]:
        return ("memory", "mem")

    @classmethod
    def from_url(cls, url: SplitResult, options: dict[str, Any]) -> dict[str, Any]:
        if "@" in url.netloc or ":" in url.netloc:
            raise ConfigError("memory: a URL has no user, password or port; write memory://collection")
        name = (url.netloc + url.path).strip("/")
        return {"table": name, **options} if name else options
