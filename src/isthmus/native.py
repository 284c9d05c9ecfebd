"""The driver's own client of this loop, one step away: for what isthmus does not offer.

    client = await isthmus.native.elasticsearch(db)

It belongs to the database, which closes it; what is written through it is not seen by the
read-your-writes rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.errors import UsageError

if TYPE_CHECKING:
    from elasticsearch import AsyncElasticsearch

    from isthmus._database import AsyncDatabase

__all__ = ["elasticsearch"]


async def elasticsearch(db: AsyncDatabase) -> AsyncElasticsearch:
    """Return the `AsyncElasticsearch` of the running loop.

    Raises `UsageError` if the database is of another backend.
    """
    client: AsyncElasticsearch = await _native(db, "elasticsearch")
    return client


async def _native(db: AsyncDatabase, name: str) -> Any:
    backend = db._backend
    if backend.name != name:
        raise UsageError(f"this database is {backend.name}, not {name}")
    return await backend.native()
