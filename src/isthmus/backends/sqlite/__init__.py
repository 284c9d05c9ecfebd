"""The SQLite backend: the embedded default, in the standard library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus._core.capabilities import Capabilities
from isthmus._core.registry import Plugin

if TYPE_CHECKING:
    from isthmus.backends.sqlite.backend import SQLiteBackend
    from isthmus.backends.sqlite.config import SQLiteConfig


def _config() -> type[SQLiteConfig]:
    from isthmus.backends.sqlite.config import SQLiteConfig

    return SQLiteConfig


def _build(config: SQLiteConfig) -> SQLiteBackend:
    from isthmus.backends.sqlite.backend import SQLiteBackend

    return SQLiteBackend(config)


plugin = Plugin(
    name="sqlite",
    aliases=("sqlite3",),
    schemes=("sqlite", "sqlite3"),
    config=_config,
    build=_build,
    capabilities=Capabilities(
        durable=True,
        transactions=True,
        savepoints=True,
        # One writer at a time, and a reader sees one snapshot: nothing weaker exists here.
        isolation=frozenset({"serializable"}),
        for_update=True,
        atomic_batch=True,
        conditional_create=True,
        compare_and_set=True,
        delete_where=True,
        consistent_stream=True,
        indexes=True,
        drop=True,
        # A row is at most 1,000,000,000 bytes (SQLITE_MAX_LENGTH); the rest is for id and metadata.
        max_record_bytes=900_000_000,
    ),
)
