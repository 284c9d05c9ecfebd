"""`to_arrow` of 100,000 cities, against COPY or sqlite3 and pyarrow.json by hand; the tables are compared."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pyarrow
import pyarrow.json

from benchmarks.harness import OURS, Row, Side, Timer, measure, own_name
from benchmarks.questions.data import cities, id_of
from isthmus import AsyncDatabase, Record
from isthmus.integrations.frames import to_arrow

TABLE, BY_HAND = own_name("cities_arrow"), own_name("cities_by_hand")
CREATE = f'CREATE TABLE {BY_HAND} (id text COLLATE "C" PRIMARY KEY, data jsonb NOT NULL)'
# Lines of JSON as they are: the quote and the delimiter are in none of them.
LINES = f"""
    COPY (SELECT '{{"_id": ' || to_json(id)::text || ', ' || right(data::text, -1) FROM {BY_HAND} ORDER BY id)
    TO STDOUT (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')
"""


async def rows() -> AsyncIterator[Row]:
    """Run both stores."""
    data = {id_of(n): city for n, city in enumerate(cities())}
    yield await _postgres(data)
    yield await _sqlite(data)


def _read(lines: bytes) -> pyarrow.Table:
    return pyarrow.json.read_json(pyarrow.BufferReader(lines))


def _side(read: Callable[[], Awaitable[pyarrow.Table]], tables: dict[str, Any], name: str) -> Side:
    async def side() -> float:
        tables.pop(name, None)
        with Timer() as timer:
            tables[name] = await read()
        return timer.seconds

    return side


async def _measure(job: str, db: AsyncDatabase, by_hand: Callable[[], Awaitable[pyarrow.Table]]) -> Row:
    tables: dict[str, pyarrow.Table] = {}
    asked = {OURS: lambda: to_arrow(db), "by hand": by_hand}
    row = await measure(job, {name: _side(read, tables, name) for name, read in asked.items()}, rounds=7)
    assert tables[OURS].equals(tables["by hand"]), "the tables differ"
    return row


async def _filled(backend: str, config: dict[str, Any], data: dict[str, dict[str, Any]]) -> AsyncDatabase:
    db = await AsyncDatabase.create(backend, config)
    await db.clear()
    await db.create_batch([Record(city, id=id) for id, city in data.items()])
    return db


async def _postgres(data: dict[str, dict[str, Any]]) -> Row:
    url = os.environ["ISTHMUS_TEST_POSTGRES_URL"]
    db = await _filled("postgres", {"dsn": url, "table": TABLE}, data)
    connection = await asyncpg.connect(url, server_settings={"jit": "off"})
    await connection.execute(f"DROP TABLE IF EXISTS {BY_HAND}")
    await connection.execute(CREATE)
    texts = ((id, orjson.dumps(city).decode()) for id, city in data.items())
    await connection.copy_records_to_table(BY_HAND, records=texts, columns=("id", "data"))
    await connection.execute(f'VACUUM ANALYZE {BY_HAND}, "{TABLE}"')

    async def copy() -> pyarrow.Table:
        parts: list[bytes] = []

        async def keep(part: bytes) -> None:
            parts.append(part)

        # As `copy_from_query` does, which takes no separators that are control characters.
        await connection._protocol.copy_out(LINES, keep, None)
        return _read(b"".join(parts))

    row = await _measure("pg: to_arrow", db, copy)
    await connection.execute(f"DROP TABLE {BY_HAND}")
    await connection.close()
    await db.drop_collection(TABLE)
    await db.close()
    return row


async def _sqlite(data: dict[str, dict[str, Any]]) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        db = await _filled("sqlite", {"path": str(Path(folder) / "ours.db")}, data)
        connection = sqlite3.connect(Path(folder) / "by_hand.db", isolation_level=None)
        connection.execute("CREATE TABLE naive (id TEXT PRIMARY KEY, data TEXT NOT NULL)")
        connection.execute("BEGIN")
        texts = ((id, orjson.dumps(city).decode()) for id, city in data.items())
        connection.executemany("INSERT INTO naive VALUES (?, ?)", texts)
        connection.execute("COMMIT")

        async def fetch() -> pyarrow.Table:
            found = connection.execute("SELECT id, data FROM naive ORDER BY id").fetchall()
            table = _read(b"\n".join([text.encode() for _, text in found]))
            return table.add_column(0, "_id", pyarrow.array([id for id, _ in found]))

        row = await _measure("sqlite: to_arrow", db, fetch)
        connection.close()
        await db.close()
    return row
