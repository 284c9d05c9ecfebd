"""The SQLAlchemy backend: any database with an async driver; a prefilter there, the rest in the core."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus._core.registry import Plugin
from isthmus.backends.sqlalchemy.support import CAPABILITIES

if TYPE_CHECKING:
    from isthmus.backends.sqlalchemy.backend import SQLAlchemyBackend
    from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig


def _config() -> type[SQLAlchemyConfig]:
    from isthmus.backends.sqlalchemy.config import SQLAlchemyConfig

    return SQLAlchemyConfig


def _build(config: SQLAlchemyConfig) -> SQLAlchemyBackend:
    if config.layout == "native":
        from isthmus.backends.sqlalchemy.native.backend import NativeSQLAlchemyBackend

        return NativeSQLAlchemyBackend(config)
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
