"""SQLite: ours against the standard library's executemany and select."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import orjson

from benchmarks.data import documents, name_of
from benchmarks.harness import Row, Timer, measure
from isthmus import AsyncDatabase, Query, Record

TABLE = (
    "CREATE TABLE bare (id TEXT PRIMARY KEY, data TEXT NOT NULL, metadata TEXT NOT NULL,"
    " version INTEGER NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL)"
)
SIZE = 10_000


async def rows() -> AsyncIterator[Row]:
    """Run every SQLite row; both sides write with WAL and synchronous=FULL."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(TABLE)
        db = await AsyncDatabase.create("sqlite", {"path": str(Path(folder) / "ours.db")})
        data = documents(SIZE)
        made = [Record(d, id=name_of(n)) for n, d in enumerate(data)]

        async def ours() -> float:
            await db.clear()
            with Timer() as timer:
                await db.create_batch(made)
            return timer.seconds

        async def bare() -> float:
            connection.execute("DELETE FROM bare")
            with Timer() as timer:
                connection.execute("BEGIN")
                encoded = ((name_of(n), orjson.dumps(d).decode(), "{}", n, 0, 0) for n, d in enumerate(data))
                connection.executemany("INSERT INTO bare VALUES (?, ?, ?, ?, ?, ?)", encoded)
                connection.execute("COMMIT")
            return timer.seconds

        yield await measure("sqlite create_batch 10,000", {"ours": ours, "bare": bare})

        query = Query().filter("group", "=", 3)
        statement = "SELECT * FROM bare WHERE json_extract(data, '$.\"group\"') = 3 ORDER BY id"

        async def our_search() -> float:
            with Timer() as timer:
                found = await db.search(query)
                assert sum(1 for record in found if record.data) == SIZE // 10
            return timer.seconds

        async def bare_search() -> float:
            with Timer() as timer:
                found = connection.execute(statement).fetchall()
                assert len([orjson.loads(row[1]) for row in found]) == SIZE // 10
            return timer.seconds

        yield await measure("sqlite search 1,000", {"ours": our_search, "bare": bare_search})
        await db.close()
        connection.close()
