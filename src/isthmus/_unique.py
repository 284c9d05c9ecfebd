"""Declarations of unique fields in collections that exist, for `isthmus index`."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus._core.unique import Duplicate, SupportsUnique, Unique, unique_of
from isthmus._database import AsyncDatabase
from isthmus.errors import UnsupportedError


async def find_duplicates(db: AsyncDatabase, fields: Sequence[str]) -> list[Duplicate]:
    """Return values that several records of the default collection share in these fields together.

    Each with some of the records' ids; 20 values at most. Raises `UnsupportedError`.
    """
    backend, unique = await _prepare(db, fields)
    return await backend.find_duplicates(db.collection_name, unique)


async def declare_unique(db: AsyncDatabase, fields: Sequence[str]) -> None:
    """Make fields together unique in the default collection, for every handle; writers wait meanwhile.

    Raises `ConfigError` that names records with equal values, and `UnsupportedError`.
    """
    backend, unique = await _prepare(db, fields)
    await backend.make_unique(db.collection_name, unique)


async def end_unique(db: AsyncDatabase, fields: Sequence[str]) -> None:
    """End a declaration, for every handle; raises `UnsupportedError`."""
    backend, unique = await _prepare(db, fields)
    await backend.end_unique(db.collection_name, unique)


async def _prepare(db: AsyncDatabase, fields: Sequence[str]) -> tuple[SupportsUnique, Unique]:
    [unique] = unique_of([fields])
    backend = db._backend
    if not (db.capabilities.unique and isinstance(backend, SupportsUnique)):
        raise UnsupportedError(f"{db.backend} has no unique fields", capability="unique")
    await db._ensure_open()
    return backend, unique
