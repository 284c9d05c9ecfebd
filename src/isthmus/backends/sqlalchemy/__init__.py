"""Any database that SQLAlchemy has an async driver for, the same meaning by a prefilter and the core."""

from __future__ import annotations

from typing import Any

from isthmus._core.capabilities import Capabilities
from isthmus._core.registry import Plugin

CAPABILITIES = Capabilities(
    durable=True,
    transactions=True,
    savepoints=True,
    isolation=frozenset({"read committed", "repeatable read", "serializable"}),
    for_update=True,
    atomic_batch=True,
    conditional_create=True,
    compare_and_set=True,
    drop=True,
)


def _config() -> Any:
    from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig

    return SQLAlchemyConfig


def _build(config: Any) -> Any:
    from isthmus.backends.sqlalchemy.backend import SQLAlchemyBackend

    return SQLAlchemyBackend(config)


plugin = Plugin(
    name="sqlalchemy",
    config=_config,
    build=_build,
    capabilities=CAPABILITIES,
    schemes=("sqlalchemy",),
    extra="sqlalchemy",
)
