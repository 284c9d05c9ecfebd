"""A folder of files for a test, and handles on it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from isthmus import AsyncDatabase, Query, Record
from isthmus._reads import Find


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write files by name and return the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@contextlib.asynccontextmanager
async def opened(location: Path | str, **settings: Any) -> AsyncIterator[AsyncDatabase]:
    """Open a handle on files, and close it."""
    db = await AsyncDatabase.create("files", {"location": str(location), **settings})
    try:
        yield db
    finally:
        await db.close()


async def rows(location: Path | str, query: Find = None, **settings: Any) -> list[dict[str, Any]]:
    """Return the data of the records that match."""
    async with opened(location, **settings) as db:
        return [record.data for record in await db.search(query)]


async def all_records(db: AsyncDatabase, query: Find = None, *, page: int = 2) -> list[Record]:
    """Return the records of a search, which streams and pages agree with."""
    found = await db.search(query)
    assert [r async for r in db.stream(query, page_size=page)] == found
    paged: list[Record] = []
    cursor = None
    while True:
        part = await db.page(query or Query(), size=page, cursor=cursor)
        paged += part.records
        cursor = part.cursor
        if cursor is None:
            break
    assert paged == found
    return found
