"""Writers of the torture, on PostgreSQL and SQLite, by isthmus and by SQL."""

from __future__ import annotations

import abc
import asyncio
import itertools
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import asyncpg

from isthmus import AsyncDatabase, IsthmusError, Record, field
from isthmus.errors import SerializationError, StoreError, TransactionError

END = "zzz the end"
HOT = 60
TASKS = 16
MAX_AHEAD = 50_000


class Committed:
    """The ids that committed transactions wrote, with an order that a reader has to reach (0: any)."""

    def __init__(self) -> None:
        self.everything: dict[str, int] = {}
        self.since_start: dict[str, int] = {}
        self._is_started = False

    def note_start(self) -> None:
        """Note that a reader has begun at "start"."""
        self._is_started = True

    def add(self, writes: Iterable[tuple[str, int]], *, since_start: bool) -> None:
        """Note the writes of a transaction; `since_start` if it began after `note_start`."""
        for id, order in writes:
            self.everything[id] = max(order, self.everything.get(id, 0))
            if since_start:
                self.since_start[id] = max(order, self.since_start.get(id, 0))

    @property
    def is_started(self) -> bool:
        """Whether a reader has begun at "start"."""
        return self._is_started


class Writers(abc.ABC):
    """Sixteen tasks that write until enough changes are committed."""

    def __init__(self, store: str, settings: dict[str, Any], wanted: int, seed: int) -> None:
        self.wanted, self.seed = wanted, seed
        self.count = self.retries = 0
        self.committed = Committed()
        self._store, self._settings = store, settings
        self._dbs: list[AsyncDatabase] = []
        self._serials = itertools.count(1)  # taken by threads too
        self.read = 0
        """How many changes had been committed when a reader had read all: writers are not too far ahead."""

    async def open(self) -> None:
        """Make the collection, and the handles that write to it."""
        self._dbs = [await AsyncDatabase.create(self._store, self._settings) for _ in range(3)]

    async def run(self) -> None:
        """Write until enough changes are committed."""
        async with asyncio.TaskGroup() as group:
            for number in range(TASKS):
                group.create_task(self._write(number, random.Random(self.seed * 100 + number)))

    async def tick(self) -> None:
        """Write the last record again and again: readers end where they meet it."""
        while True:
            await self._dbs[0].upsert(END, {})
            await asyncio.sleep(0.3)

    async def content(self) -> dict[str, Any]:
        """Return the data of all records."""
        return {record.id: dict(record.data) async for record in self._dbs[0].stream()}

    async def close(self) -> None:
        """Close the handles."""
        for db in self._dbs:
            await db.close()

    @abc.abstractmethod
    def _kinds(self, number: int) -> list[Callable[[random.Random], Awaitable[list[tuple[str, int]]]]]:
        """Return ways to write; each returns what it has committed."""

    async def _write(self, number: int, rng: random.Random) -> None:
        kinds = self._kinds(number)
        while self.count < self.wanted:
            while self.count - self.read > MAX_AHEAD:
                await asyncio.sleep(0.05)
            since_start = self.committed.is_started
            try:
                writes = await rng.choice(kinds)(rng)
            except (SerializationError, TransactionError, StoreError, asyncpg.PostgresError, sqlite3.Error):
                self.retries += 1
                continue
            self.count += len(writes)
            self.committed.add(writes, since_start=since_start)

    def _new_ids(self, number: int) -> list[str]:
        serial = next(self._serials)
        return [f"n{serial:07}-{index:03}" for index in range(number)]

    def _hot(self, rng: random.Random) -> str:
        return f"hot-{rng.randrange(HOT)}"

    # By isthmus

    async def _one(self, rng: random.Random) -> list[tuple[str, int]]:
        db, id, data = rng.choice(self._dbs), self._hot(rng), {"n": rng.random()}
        try:
            match rng.randrange(6):
                case 0:
                    await db.create(Record(data, id=id))
                case 1:
                    await db.replace(id, data)
                case 2:
                    await db.update(id, data)
                case 3:
                    await db.upsert(id, data)
                case 4:
                    await db.modify(id, field("n").set(rng.random()))
                case _:
                    return [(id, 0)] if await db.delete(id) else []
        except SerializationError:
            raise
        except StoreError:
            raise
        except IsthmusError:  # missing, or there already
            return []
        return [(id, 0)]

    async def _batch(self, rng: random.Random) -> list[tuple[str, int]]:
        db, ids = rng.choice(self._dbs), self._new_ids(rng.choice([5, 50, 150, 600]))
        await db.create_batch([Record({"n": index}, id=id) for index, id in enumerate(ids)])
        if rng.random() < 0.5:
            # TRUNCATE may have come between.
            await db.update_batch([(id, {"m": 1}) for id in ids[::3]], on_error="collect")
            await db.delete_batch(ids[1::3], on_error="collect")
            return [(id, 0) for id in (*ids, *ids[::3], *ids[1::3])]
        return [(id, 0) for id in ids]

    async def _transaction(self, rng: random.Random) -> list[tuple[str, int]]:
        db, writes = rng.choice(self._dbs), []
        isolation = rng.choice([None, *sorted(db.capabilities.isolation)])
        tx_context = db.transaction(isolation=isolation) if isolation else db.transaction()
        try:
            async with tx_context as tx:
                for _ in range(rng.randrange(1, 5)):
                    id = self._hot(rng)
                    if rng.random() < 0.3:
                        if await tx.delete(id):
                            writes.append((id, 0))
                    else:
                        await tx.upsert(id, {"t": rng.random()})
                        writes.append((id, 0))
                    await asyncio.sleep(rng.choice([0, 0, 0.01, 0.05]))
                    if rng.random() < 0.3:
                        try:
                            async with tx.savepoint():
                                await tx.upsert(self._hot(rng), {"undone": True})
                                raise ZeroDivisionError
                        except ZeroDivisionError:
                            pass
                if rng.random() < 0.25:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return []
        return writes


class PostgresWriters(Writers):
    """Half of the tasks write by SQL, on connections of their own."""

    def __init__(self, settings: dict[str, Any], wanted: int, seed: int) -> None:
        super().__init__("postgres", settings, wanted, seed)
        self._connections: list[asyncpg.Connection] = []

    async def open(self) -> None:
        await super().open()
        self._dbs.append(await AsyncDatabase.create("postgres", {**self._settings, "driver": "psycopg"}))
        url = self._settings["url"]
        self._connections = [await asyncpg.connect(url) for _ in range(TASKS)]

    async def close(self) -> None:
        await super().close()
        for connection in self._connections:
            await connection.close()

    def _kinds(self, number: int) -> list[Callable[[random.Random], Awaitable[list[tuple[str, int]]]]]:
        if number % 2:
            return [self._one, self._batch, self._batch, self._transaction]
        connection = self._connections[number]

        async def overlapping(rng: random.Random) -> list[tuple[str, int]]:
            return await self._overlapping(connection, rng, slow=number < 4)

        async def truncate(rng: random.Random) -> list[tuple[str, int]]:
            if rng.random() < 0.995:
                return []
            await connection.execute("TRUNCATE torture")
            return []

        return [overlapping, overlapping, overlapping, truncate]

    async def _overlapping(
        self, connection: asyncpg.Connection, rng: random.Random, *, slow: bool
    ) -> list[tuple[str, int]]:
        writes: list[tuple[str, int]] = []
        transaction = connection.transaction(
            isolation=rng.choice(["read_committed", "read_committed", "repeatable_read"])
        )
        await transaction.start()
        try:
            if slow:
                await connection.fetchval("SELECT pg_current_xact_id()::text")
                await asyncio.sleep(rng.uniform(0.0, 0.4))
            for _ in range(rng.randrange(1, 5)):
                writes += await self._statement(connection, rng)
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.uniform(0, 0.03))
                if rng.random() < 0.2:
                    savepoint = connection.transaction()
                    await savepoint.start()
                    inner = await self._statement(connection, rng)
                    if rng.random() < 0.5:
                        await savepoint.rollback()
                    else:
                        await savepoint.commit()
                        writes += inner
            if rng.random() < 0.25:
                await transaction.rollback()
                return []
            await transaction.commit()
        except asyncpg.PostgresError:
            if not connection.is_closed() and connection.is_in_transaction():
                await transaction.rollback()
            raise
        return writes

    async def _statement(self, connection: asyncpg.Connection, rng: random.Random) -> list[tuple[str, int]]:
        id, data = self._hot(rng), f'{{"sql": {rng.randrange(10**9)}}}'
        match rng.randrange(7):
            case 0:
                rows = await connection.fetch(
                    "INSERT INTO torture (id, data, version) VALUES ($1, $2, 1) ON CONFLICT (id)"
                    " DO UPDATE SET data = excluded.data RETURNING change_order",
                    id,
                    data,
                )
            case 1:
                rows = await connection.fetch(
                    "UPDATE torture SET data = $2 WHERE id = $1 RETURNING change_order", id, data
                )
            case 2:
                rows = await connection.fetch("DELETE FROM torture WHERE id = $1 RETURNING 0::int8", id)
            case 3:
                rows = await connection.fetch(
                    "INSERT INTO torture (id, data, version) VALUES ($1, $2, 1)"
                    " ON CONFLICT (id) DO NOTHING RETURNING 0::int8",
                    id,
                    data,
                )
            case 4:
                new = self._hot(rng)
                rows = await connection.fetch(
                    "UPDATE torture SET id = $2 WHERE id = $1 AND NOT EXISTS"
                    " (SELECT 1 FROM torture WHERE id = $2) RETURNING 0::int8",
                    id,
                    new,
                )
                return [(id, 0), (new, 0)] if rows else []
            case _:
                ids = self._new_ids(rng.choice([20, 200, 700]))
                await connection.copy_records_to_table(
                    "torture", columns=["id", "data", "version"], records=[(id, data, 1) for id in ids]
                )
                return [(id, 0) for id in ids]
        return [(id, row[0]) for row in rows]


class SQLiteWriters(Writers):
    """A quarter of the tasks write by SQL, on connections of their own."""

    def __init__(self, settings: dict[str, Any], wanted: int, seed: int) -> None:
        super().__init__("sqlite", settings, wanted, seed)

    def _kinds(self, number: int) -> list[Callable[[random.Random], Awaitable[list[tuple[str, int]]]]]:
        if number % 4:
            return [self._one, self._batch, self._batch, self._transaction]

        async def by_sql(rng: random.Random) -> list[tuple[str, int]]:
            return await asyncio.to_thread(self._by_sql, rng)

        return [by_sql]

    def _by_sql(self, rng: random.Random) -> list[tuple[str, int]]:
        connection = sqlite3.connect(self._settings["path"], isolation_level=None, timeout=60)
        try:
            connection.execute("PRAGMA synchronous = normal")
            if rng.random() < 0.5:
                connection.execute("PRAGMA recursive_triggers = ON")
            connection.execute("BEGIN IMMEDIATE")
            writes: list[tuple[str, int]] = []
            for _ in range(rng.randrange(1, 20)):
                writes += self._statement(connection, rng)
                if rng.random() < 0.2:
                    connection.execute("SAVEPOINT inner")
                    self._statement(connection, rng)
                    connection.execute("ROLLBACK TO inner")
            if rng.random() < 0.25:
                connection.execute("ROLLBACK")
                return []
            writes = [(id, self._order(connection, id)) for id, _ in writes]
            connection.execute("COMMIT")
            return writes
        finally:
            connection.close()

    @staticmethod
    def _order(connection: sqlite3.Connection, id: str) -> int:
        row = connection.execute("SELECT change_order FROM torture WHERE id = ?", (id,)).fetchone()
        return 0 if row is None else int(row[0])

    def _statement(self, connection: sqlite3.Connection, rng: random.Random) -> list[tuple[str, int]]:
        id, data = self._hot(rng), f'{{"sql": {rng.randrange(10**9)}}}'
        columns = "(id, data, metadata, version, created_at, updated_at)"
        row = (id, data, "{}", 1, 1, 1)
        match rng.randrange(6):
            case 0:
                connection.execute(f"INSERT OR REPLACE INTO torture {columns} VALUES (?, ?, ?, ?, ?, ?)", row)
            case 1:
                if not connection.execute(
                    f"INSERT OR IGNORE INTO torture {columns} VALUES (?, ?, ?, ?, ?, ?)", row
                ).rowcount:
                    return []
            case 2:
                if not connection.execute("UPDATE torture SET data = ? WHERE id = ?", (data, id)).rowcount:
                    return []
            case 3:
                if not connection.execute("DELETE FROM torture WHERE id = ?", (id,)).rowcount:
                    return []
            case 4:
                new = self._hot(rng)
                if not connection.execute(
                    "UPDATE OR REPLACE torture SET id = ? WHERE id = ?", (new, id)
                ).rowcount:
                    return []
                return [(id, 0), (new, 0)]
            case _:
                ids = self._new_ids(200)
                connection.executemany(
                    f"INSERT INTO torture {columns} VALUES (?, ?, ?, ?, ?, ?)",
                    [(id, *row[1:]) for id in ids],
                )
                return [(id, 0) for id in ids]
        return [(id, 0)]
