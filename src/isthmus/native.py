"""Access to the driver's own client, for features that isthmus does not offer.

    client = await isthmus.native.elasticsearch(db)
    pool = await isthmus.native.postgres(db)

The client is that of the running event loop. It belongs to the database, which closes it. Writes
through it are not covered by the guarantee that a search sees earlier writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from elasticsearch import AsyncElasticsearch
    from isthmus._database import AsyncDatabase
    from isthmus.backends.postgres.pool.native import NativePool

__all__ = ["elasticsearch", "postgres", "s3", "sqlalchemy"]


async def elasticsearch(db: AsyncDatabase) -> AsyncElasticsearch:
    """Return the `AsyncElasticsearch` client of the running loop.

    Raises `UsageError` if the database is of another backend.
    """
    client: AsyncElasticsearch = await _native(db, "elasticsearch")
    return client


async def postgres(db: AsyncDatabase) -> NativePool:
    """Return the connection pool of the running loop, with the methods of asyncpg's pool.

    Release a connection that was acquired without `async with`. Raises `UsageError` if the database
    is of another backend.
    """
    from isthmus.backends.postgres.pool.native import NativePool

    return NativePool(await _native(db, "postgres"))


async def s3(db: AsyncDatabase) -> Any:
    """Return the aioboto3 client of the running loop, created on first use.

    Raises `UsageError` if the database is of another backend.
    """
    return await _native(db, "s3")


async def sqlalchemy(db: AsyncDatabase) -> AsyncEngine:
    """Return the `AsyncEngine` of the running loop, or the application's own if it was given one.

    Raises `UsageError` if the database is of another backend.
    """
    engine: AsyncEngine = await _native(db, "sqlalchemy")
    return engine


async def _native(db: AsyncDatabase, name: str) -> Any:
    backend = db._backend
    if backend.name != name:
        raise UsageError(f"the backend of this database is {backend.name}, not {name}")
    return await backend.native()
