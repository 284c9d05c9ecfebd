"""Declarations of changes in collections that exist, for `isthmus index --changes`."""

from __future__ import annotations

from isthmus._core.changes import SupportsChanges, no_changes
from isthmus._database import AsyncDatabase


async def declare_changes(db: AsyncDatabase) -> None:
    """Keep the changes of the default collection, for every handle; writers wait meanwhile.

    Raises `UnsupportedError`.
    """
    await (await _prepare(db)).make_changes(db.collection_name)


async def end_changes(db: AsyncDatabase) -> None:
    """Keep no changes of the default collection any more, and remove those that were kept.

    Raises `UnsupportedError`.
    """
    await (await _prepare(db)).end_changes(db.collection_name)


async def _prepare(db: AsyncDatabase) -> SupportsChanges:
    backend = db._backend
    if not (db.capabilities.changes and isinstance(backend, SupportsChanges)):
        raise no_changes(db.backend)
    await db._ensure_open()
    return backend
