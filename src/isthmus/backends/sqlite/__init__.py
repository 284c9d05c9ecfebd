"""The SQLite backend: the embedded default, on the standard library's driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus._core.registry import Plugin
from isthmus.backends.sqlite.support import CAPABILITIES

if TYPE_CHECKING:
    from isthmus.backends.sqlite.backend import SQLiteBackend
    from isthmus.backends.sqlite.config import SQLiteConfig


def _config() -> type[SQLiteConfig]:
    from isthmus.backends.sqlite.config import SQLiteConfig

    return SQLiteConfig


def _build(config: SQLiteConfig) -> SQLiteBackend:
    from isthmus.backends.sqlite.backend import SQLiteBackend

    if config.layout == "native":
        from isthmus.backends.sqlite.native.backend import NativeSQLiteBackend

        return NativeSQLiteBackend(config)
    return SQLiteBackend(config)


plugin = Plugin(
    name="sqlite",
    aliases=("sqlite3",),
    schemes=("sqlite", "sqlite3"),
    config=_config,
    build=_build,
    capabilities=CAPABILITIES,
)
