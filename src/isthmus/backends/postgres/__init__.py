"""The PostgreSQL backend: jsonb tables, exact push-down, its own connection pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus._core.registry import Plugin
from isthmus.backends.postgres.support import CAPABILITIES

if TYPE_CHECKING:
    from isthmus.backends.postgres.backend import PostgresBackend
    from isthmus.backends.postgres.config import PostgresConfig
    from isthmus.backends.postgres.native.backend import NativePostgresBackend


def _config() -> type[PostgresConfig]:
    from isthmus.backends.postgres.config import PostgresConfig

    return PostgresConfig


def _build(config: PostgresConfig) -> PostgresBackend | NativePostgresBackend:
    if config.layout == "native":
        from isthmus.backends.postgres.native.backend import NativePostgresBackend

        return NativePostgresBackend(config)
    from isthmus.backends.postgres.backend import PostgresBackend

    return PostgresBackend(config)


plugin = Plugin(
    name="postgres",
    aliases=("postgresql", "pg"),
    schemes=("postgres", "postgresql"),
    config=_config,
    build=_build,
    capabilities=CAPABILITIES,
    extra="postgres",
)
