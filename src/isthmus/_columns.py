"""Declared columns of collections that exist, for `isthmus index`."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus._core.columns import DeclaredColumn, OddRows, SupportsColumns
from isthmus._database import AsyncDatabase
from isthmus._path import Path
from isthmus.errors import UnsupportedError


async def find_odd(db: AsyncDatabase, columns: Sequence[DeclaredColumn]) -> OddRows:
    """Return how many records of the default collection have something else at the columns' paths.

    Reads all records. Raises `UnsupportedError`.
    """
    return await (await _prepare(db)).find_odd(db.collection_name, columns)


async def declare_columns(db: AsyncDatabase, columns: Sequence[DeclaredColumn]) -> None:
    """Add columns to the default collection, for every handle; others wait meanwhile.

    Raises `ConfigError` for a column of another kind, and `UnsupportedError`.
    """
    await (await _prepare(db)).add_columns(db.collection_name, columns)


async def drop_columns(db: AsyncDatabase, paths: Sequence[Path]) -> None:
    """Drop columns of the default collection, for every handle; raises `UnsupportedError`."""
    await (await _prepare(db)).drop_columns(db.collection_name, paths)


async def _prepare(db: AsyncDatabase) -> SupportsColumns:
    backend = db._backend
    if not (db.capabilities.columns and isinstance(backend, SupportsColumns)):
        raise UnsupportedError(f"{db.backend} has no declared columns", capability="columns")
    await db._ensure_open()
    return backend
