"""Streams and partitions of a query: of one state, left early, resumed by a cursor, in parts."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from isthmus import AsyncDatabase, Query
from isthmus._path import Path, Root

VERBS = ("stream", "consistent", "left", "resumed", "partitions")
"""Ways to read all records of a query; `part` is after how many a stream is left, or how many parts."""

_ID = Path(Root.ID, ())
_RESUMED_BY = 5


async def read(db: AsyncDatabase, verb: str, query: Query, size: int, part: int) -> list[list[Any]]:
    """Return the rows that one of the ways gives, in the order in which they came."""
    match verb:
        case "stream":
            return [[r.id, r.data] async for r in db.stream(query, page_size=size)]
        case "consistent":
            async with db.stream(query, page_size=size, consistent=_can_be_consistent(db)) as records:
                return [[r.id, r.data] async for r in records]
        case "left":
            return await _leave(db, query, size, part)
        case "resumed":
            return await _resume(db, query, size, part)
        case "partitions":
            return await _in_parts(db, query, part)
    raise AssertionError(verb)


def _can_be_consistent(db: AsyncDatabase) -> bool:
    return db.capabilities.consistent_stream


async def _leave(db: AsyncDatabase, query: Query, size: int, part: int) -> list[list[Any]]:
    """Return the first records of a stream; of one state if `part` is odd."""
    consistent = part % 2 == 1 and _can_be_consistent(db)
    rows: list[list[Any]] = []
    async with db.stream(query, page_size=size, consistent=consistent) as records:
        if part:
            async for record in records:
                rows.append([record.id, record.data])
                if len(rows) == part:
                    break
    if isinstance(db, AsyncDatabase) and not await _is_idle(db):
        return [["connections are in use", db.stats().pool.in_use]]
    return rows


async def _is_idle(db: AsyncDatabase) -> bool:
    """Return whether no connection stays taken; a request that was given up may take a moment to end."""
    for _ in range(2_000):
        if not db.stats().pool.in_use:
            return True
        await asyncio.sleep(0.005)
    return False


async def _resume(db: AsyncDatabase, query: Query, size: int, part: int) -> list[list[Any]]:
    """Read the first records by a stream and the others by pages, from the cursor after those."""
    ordered = query if query.order else query.sort(_ID)
    rows = await _leave(db, ordered, size, part)
    if len(rows) < part:
        return rows
    cursor = (await db.page(query, size=part)).cursor
    while cursor is not None:
        page = await db.page(query, size=_RESUMED_BY, cursor=cursor)
        rows += [[r.id, r.data] for r in page.records]
        cursor = page.cursor
    return rows


async def _in_parts(db: AsyncDatabase, query: Query, part: int) -> list[list[Any]]:
    """Read each partition by a handle of its own; a store that only this handle can read as one stream."""
    # In a transaction too: other handles do not see what it has written.
    if not isinstance(db, AsyncDatabase) or db.config.private_to_handle():
        return [[r.id, r.data] async for r in db.stream(query)]
    rows = []
    for one in await db.partitions(query, part):
        async with contextlib.aclosing(one.stream()) as records:
            rows += [[r.id, r.data] async for r in records]
    return rows
