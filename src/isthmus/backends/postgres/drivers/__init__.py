"""Drivers behind one protocol: asyncpg and psycopg 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus._core.registry import import_driver

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PostgresConfig
    from isthmus.backends.postgres.drivers.protocol import Driver


def load_driver(config: PostgresConfig) -> Driver:
    """Return the driver that a config names; raises `MissingExtraError` if it is not installed."""
    if config.driver == "psycopg":
        import_driver("psycopg", extra="psycopg")
        from isthmus.backends.postgres.drivers.psycopg import PsycopgDriver

        return PsycopgDriver(config)
    import_driver("asyncpg", extra="postgres")
    from isthmus.backends.postgres.drivers.asyncpg import AsyncpgDriver

    return AsyncpgDriver(config)
