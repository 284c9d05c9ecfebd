"""A backend for DuckDB, an embedded column store: records are JSON in one table of a file or of memory."""

from __future__ import annotations

from typing import Any

from isthmus.spi import Capabilities, Plugin


def capabilities(*, durable: bool) -> Capabilities:
    """Return the capabilities of a database in a file, or in memory."""
    return Capabilities(
        durable=durable,
        atomic_batch=True,
        conditional_create=True,
        compare_and_set=True,
        delete_where=True,
        drop=True,
    )


def _config() -> Any:
    from isthmus_duckdb.config import DuckDBConfig

    return DuckDBConfig


def _build(config: Any) -> Any:
    from isthmus_duckdb.backend import DuckDBBackend

    return DuckDBBackend(config)


plugin = Plugin(
    name="duckdb",
    schemes=("duckdb",),
    config=_config,
    build=_build,
    capabilities=capabilities(durable=False),
)
