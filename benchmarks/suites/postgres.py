"""PostgreSQL: ours, the bare driver's best technique, asyncpg's own pool, and the rival."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import asyncpg
import orjson

from benchmarks.data import document, documents, name_of
from benchmarks.harness import Row, Side, Timer, measure
from benchmarks.profile.memory import measure_memory
from benchmarks.rivals.client import Rival
from isthmus import AsyncDatabase, Query, Record, field

TABLE = """
DROP TABLE IF EXISTS bare;
CREATE TABLE bare (id text COLLATE "C" PRIMARY KEY, data jsonb NOT NULL, metadata jsonb NOT NULL DEFAULT '{}',
  version bigint NOT NULL DEFAULT 1, created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now());
"""
COLUMNS = ("id", "data")
POINT = "SELECT id, data, metadata, version, created_at, updated_at FROM bare WHERE id = $1"
UPSERT = (
    "INSERT INTO bare (id, data) SELECT id, data FROM staged"
    " ON CONFLICT (id) DO UPDATE SET data = excluded.data, version = 2, updated_at = now()"
)
UPDATE = (
    "UPDATE bare SET data = bare.data || staged.data, version = 2, updated_at = now()"
    " FROM staged WHERE bare.id = staged.id"
)
CONDITIONS = (
    "SELECT id, data, metadata, version, created_at, updated_at FROM bare WHERE id = $1"
    " AND data->'group' = $2::jsonb AND data->'score' >= $3::jsonb AND data->>'city' = ANY($4)"
    " AND data ? 'tags' AND data->>'name' NOT LIKE $5 LIMIT 20"
)
SIZE = 10_000


def url() -> str:
    """Return the test server's URL."""
    return os.environ["ISTHMUS_TEST_POSTGRES_URL"]


async def handle(table: str, **options: Any) -> AsyncDatabase:
    """Return our handle on an empty table."""
    db = await AsyncDatabase.create("postgres", {"url": url(), "table": table, **options})
    await db.clear()
    return db


async def rows() -> AsyncIterator[Row]:
    """Run every PostgreSQL row."""
    rival = Rival()
    connection = await asyncpg.connect(url())
    db = await handle("bench")
    try:
        yield await _bulk(db, connection)
        for size in (10_000, 100_000):
            yield await _create_batch(db, connection, rival, size)
        async for row in _changes(db, connection, rival):
            yield row
        async for row in _points(db, connection, rival):
            yield row
        async for row in _searches(db, connection, rival):
            yield row
        yield await _plan(db, connection)
        yield await _stream(connection, rival)
        yield await _top(rival)
    finally:
        await db.close()
        await connection.close()
        await rival.close()


def _encode(n: int) -> tuple[str, str]:
    return name_of(n), orjson.dumps(document(n)).decode()


async def _empty(db: AsyncDatabase, connection: Any) -> None:
    await connection.execute("TRUNCATE bench")
    await connection.execute(TABLE)
    gc.collect()


async def _bulk(db: AsyncDatabase, connection: Any) -> Row:
    made = [Record(data) for data in documents(1_000)]

    async def ours() -> float:
        await _empty(db, connection)
        with Timer() as timer:
            await db.create_batch(made)
        return timer.seconds

    return await measure("pg bulk 1,000, known as 1.2 s", {"ours": ours})


async def _create_batch(db: AsyncDatabase, connection: Any, rival: Rival, size: int) -> Row:
    made = [Record(data, id=name_of(n)) for n, data in enumerate(documents(size))]

    async def ours() -> float:
        await _empty(db, connection)
        with Timer() as timer:
            await db.create_batch(made)
        return timer.seconds

    data = documents(size)

    async def bare() -> float:
        await _empty(db, connection)
        encoded = ((name_of(n), orjson.dumps(d).decode()) for n, d in enumerate(data))
        with Timer() as timer:
            await connection.copy_records_to_table("bare", records=encoded, columns=COLUMNS)
        return timer.seconds

    async def executemany() -> float:
        await _empty(db, connection)
        with Timer() as timer:
            encoded = [(name_of(n), orjson.dumps(d).decode()) for n, d in enumerate(data)]
            await connection.executemany("INSERT INTO bare (id, data) VALUES ($1, $2)", encoded)
        return timer.seconds

    sides: dict[str, Side] = {"ours": ours, "bare": bare, "executemany": executemany}
    sides["rival"] = rival.side("create_batch", backend="postgres", n=size)
    return await measure(f"pg create_batch {size:,}", sides)


async def _changes(db: AsyncDatabase, connection: Any, rival: Rival) -> AsyncIterator[Row]:
    ids = [name_of(n) for n in range(SIZE)]
    made = [Record(document(n), id=name_of(n)) for n in range(SIZE)]
    patch = {"score": 1.25, "note": "changed"}
    text = orjson.dumps(patch).decode()

    def timed(work: Callable[[], Awaitable[Any]]) -> Side:
        async def side() -> float:
            await _fill(db, connection, SIZE)
            with Timer() as timer:
                await work()
            return timer.seconds

        return side

    async def bare_delete() -> None:
        await connection.execute("DELETE FROM bare WHERE id = ANY($1)", ids)

    jobs = {
        "upsert_batch": (
            lambda: db.upsert_batch(made),
            lambda: _stage(connection, map(_encode, range(SIZE)), UPSERT),
        ),
        "update_batch": (
            lambda: db.update_batch((key, patch) for key in ids),
            lambda: _stage(connection, ((key, text) for key in ids), UPDATE),
        ),
        "delete_batch": (lambda: db.delete_batch(ids), bare_delete),
    }
    for method, (ours, bare) in jobs.items():
        sides = {
            "ours": timed(ours),
            "bare": timed(bare),
            "rival": rival.side(method, backend="postgres", n=SIZE),
        }
        yield await measure(f"pg {method} 10,000", sides)


async def _stage(connection: Any, records: Iterable[tuple[str, str]], finish: str) -> None:
    """Copy the records into a temporary table and apply them with one statement."""
    async with connection.transaction():
        await connection.execute("CREATE TEMP TABLE staged (id text, data jsonb) ON COMMIT DROP")
        await connection.copy_records_to_table("staged", records=records, columns=COLUMNS)
        await connection.execute(finish)


async def _fill(db: AsyncDatabase, connection: Any, size: int) -> None:
    """Store the same records on both sides, with statistics and without dead rows."""
    await _empty(db, connection)
    await db.create_batch([Record(document(n), id=name_of(n)) for n in range(size)])
    await connection.copy_records_to_table("bare", records=map(_encode, range(size)), columns=COLUMNS)
    await connection.execute("VACUUM ANALYZE bench")
    await connection.execute("VACUUM ANALYZE bare")


async def _points(db: AsyncDatabase, connection: Any, rival: Rival) -> AsyncIterator[Row]:
    await _fill(db, connection, SIZE)
    pool = await asyncpg.create_pool(url(), min_size=10, max_size=10)
    prepared = await connection.prepare(POINT)

    async def pooled_get(key: str) -> None:
        row = await pool.fetchrow(POINT, key)
        orjson.loads(row["data"])

    async def our_get(key: str) -> None:
        record = await db.require(key)
        _ = record.data

    async def bare_get(key: str) -> None:
        row = await prepared.fetchrow(key)
        orjson.loads(row["data"])

    def many(work: Callable[[str], Awaitable[None]], tasks: int, count: int) -> Side:
        return lambda: _by_tasks(work, [name_of(n * 7 % SIZE) for n in range(count)], tasks)

    sides = {"ours": many(our_get, 1, 2000), "bare": many(bare_get, 1, 2000)}
    sides |= {"asyncpg pool": many(pooled_get, 1, 2000)}
    sides |= {"rival": rival.side("get", backend="postgres", n=2000)}
    yield await measure("pg get, one task", sides)
    sides = {"ours": many(our_get, 50, 10_000), "asyncpg pool": many(pooled_get, 50, 10_000)}
    sides |= {"rival": rival.side("get", backend="postgres", n=10_000, tasks=50)}
    yield await measure("pg get, 50 tasks", sides)

    fresh = itertools.count(SIZE)

    async def pooled_create(_: str) -> None:
        await pool.execute("INSERT INTO bare (id, data) VALUES ($1, $2)", *_encode(next(fresh)))

    async def our_create(_: str) -> None:
        n = next(fresh)
        await db.create(Record(document(n), id=name_of(n)))

    sides = {"ours": many(our_create, 50, 3000), "asyncpg pool": many(pooled_create, 50, 3000)}
    sides |= {"rival": rival.side("create", backend="postgres", n=3000, tasks=50)}
    yield await measure("pg create, 50 tasks", sides)
    await pool.close()


async def _searches(db: AsyncDatabase, connection: Any, rival: Rival) -> AsyncIterator[Row]:
    await _fill(db, connection, SIZE)
    query = Query().filter("group", "=", 3)
    statement = (
        "SELECT id, data, metadata, version, created_at, updated_at FROM bare"
        " WHERE data @> '{\"group\": 3}' ORDER BY id"
    )

    async def ours() -> float:
        with Timer() as timer:
            found = await db.search(query)
            assert sum(1 for record in found if record.data) == 1000
        return timer.seconds

    async def bare() -> float:
        with Timer() as timer:
            found = await connection.fetch(statement)
            decoded = [(row["id"], orjson.loads(row["data"]), orjson.loads(row["metadata"])) for row in found]
            assert len(decoded) == 1000
        return timer.seconds

    sides = {"ours": ours, "bare": bare, "rival": rival.side("search", backend="postgres", stored=SIZE)}
    yield await measure("pg search 1,000 of 10,000", sides)


async def _plan(db: AsyncDatabase, connection: Any) -> Row:
    """Measure searches of five conditions and an id: what they find is one record, so planning counts."""
    count = 500
    prepared = await connection.prepare(CONDITIONS)
    conditions = (
        (field("group") == 3)
        & (field("score") >= 0)
        & ~field("name").like("user-9%")
        & field("city").in_(["Oslo", "Lima", "Kyoto"])
        & field("tags").exists()
    )
    keys = [name_of(10 * n + 3) for n in range(count)]

    async def ours() -> float:
        with Timer() as timer:
            for key in keys:
                found = await db.search(Query().filter("_id", "=", key).filter(conditions).limit(20))
                assert found[0].data["group"] == 3
        return timer.seconds

    async def bare() -> float:
        with Timer() as timer:
            for key in keys:
                found = await prepared.fetch(key, "3", "0", ["Oslo", "Lima", "Kyoto"], "user-9%")
                assert orjson.loads(found[0]["data"])["group"] == 3
        return timer.seconds

    return await measure(
        f"pg search of an id and five conditions, {count} times", {"ours": ours, "bare": bare}
    )


async def _by_tasks(work: Callable[[str], Awaitable[None]], keys: list[str], tasks: int) -> float:
    source = iter(keys)

    async def worker() -> None:
        for key in source:
            await work(key)

    with Timer() as timer:
        await asyncio.gather(*(worker() for _ in range(tasks)))
    return timer.seconds


async def _stream(connection: Any, rival: Rival) -> Row:
    size = 100_000
    db = await handle("bench_stream")
    for start in range(0, size, 10_000):
        await db.create_batch([Record(document(n), id=name_of(n)) for n in range(start, start + 10_000)])
    await connection.execute("VACUUM ANALYZE bench_stream")
    statement = (
        "SELECT id, data, metadata, version, created_at, updated_at FROM bench_stream"
        " WHERE id > $1 ORDER BY id LIMIT 1000"
    )

    async def ours() -> float:
        seen = 0
        with Timer() as timer:
            async for record in db.stream():
                seen += len(record.data) > 0
        assert seen == size
        return timer.seconds

    async def bare() -> float:
        seen = 0
        prepared = await connection.prepare(statement)
        with Timer() as timer:
            page = await prepared.fetch("")
            while page:
                coming = asyncio.ensure_future(prepared.fetch(page[-1]["id"]))
                await asyncio.sleep(0)
                for row in page:
                    seen += len(orjson.loads(row["data"])) > 0
                page = await coming
        assert seen == size
        return timer.seconds

    memory = await measure_memory("stream", ("postgres", {"url": url(), "table": "bench_stream"}))
    figures = {"memory above the start, MB": memory["mb"]}
    sides = {"ours": ours, "bare": bare, "rival": rival.side("stream", backend="postgres", stored=size)}
    row = await measure("pg stream 100,000", sides, figures=figures)
    await db.close()
    return row


async def _top(rival: Rival) -> Row:
    size = 100_000
    db = await handle("bench_top", indexes=["score"])
    for start in range(0, size, 10_000):
        await db.create_batch([Record(document(n), id=name_of(n)) for n in range(start, start + 10_000)])
    connection = await asyncpg.connect(url())
    await connection.execute("VACUUM ANALYZE bench_top")
    await connection.close()
    query = Query().filter(field("score") >= size * 0.4).sort("score", "desc").limit(20)

    async def ours() -> float:
        with Timer() as timer:
            assert len(await db.search(query)) == 20
        return timer.seconds

    used = (await db.explain(query)).index
    sides = {"ours": ours, "rival": rival.side("top", backend="postgres", stored=size)}
    row = await measure(
        "pg indexed filter, sort + limit 20 on 100,000",
        sides,
        notes={"index that explain() names": used},
        figures={"searches without an index": 0.0 if used else 1.0},
    )
    await db.close()
    return row
