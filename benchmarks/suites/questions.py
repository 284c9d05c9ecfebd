"""Twelve questions on 100,000 cities: ours on five stores, by hand on JSON and on columns, ORM, DuckDB.

Every answer is compared with that of a loop over the records. On cities of mixed types ours is
compared with the store in memory, whose answers come from the evaluator.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import obstore
import orjson
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.harness import OURS, Row, Side, Timer, measure, own_name
from benchmarks.questions import embedded, orm, servers
from benchmarks.questions.asked import QUESTIONS
from benchmarks.questions.by_hand import loop
from benchmarks.questions.data import cities, id_of, mixed_cities
from benchmarks.suites.s3 import location, store
from elasticsearch import AsyncElasticsearch
from isthmus import AsyncDatabase, Record

Records = Mapping[str, dict[str, Any]]
Answers = Mapping[str, Any]
Sides = Callable[[str], dict[str, Callable[[], Awaitable[Any]]]]
TABLE, DECLARED = own_name("cities"), own_name("cities_declared")
# The scalar fields that are asked for; `by hand` they are real columns.
COLUMNS = {"population": "number", "countrycode": "text", "timezone": "text", "name": "text"}


async def rows() -> AsyncIterator[Row]:
    """Run each question on each store, then on mixed types."""
    records = {id_of(n): city for n, city in enumerate(cities())}
    expected = {question: loop(question, records) for question in QUESTIONS}
    for ask in (_postgres, _sqlite, _elasticsearch, _memory, _s3):
        async for row in ask("", records, expected):
            yield row
    mixed = {id_of(n): city for n, city in enumerate(mixed_cities())}
    db = await _filled("memory", {}, mixed)
    expected = {question: await ask(db) for question, ask in QUESTIONS.items()}
    await db.close()
    for ask in (_postgres, _sqlite, _elasticsearch, _s3):
        async for row in ask("mixed ", mixed, expected):
            yield row


async def _filled(backend: str, config: dict[str, Any], records: Records) -> AsyncDatabase:
    """Return our handle on a collection that holds the records and nothing else."""
    db = await AsyncDatabase.create(backend, config)
    await db.clear()
    await db.create_batch([Record(data, id=id) for id, data in records.items()])
    return db


async def _measure(
    store: str, db: AsyncDatabase, expected: Answers, by_hand: Sides, rounds: int
) -> AsyncIterator[Row]:
    """Measure each question on one store; a side with another answer fails."""
    for question, ask in QUESTIONS.items():
        asked = {OURS: lambda ask=ask: ask(db), **by_hand(question)}
        sides = {name: _side(side, expected[question]) for name, side in asked.items()}
        yield await measure(f"{store}: {question}", sides, rounds=rounds)


def _side(ask: Callable[[], Awaitable[Any]], expected: Any) -> Side:
    async def side() -> float:
        with Timer() as timer:
            answer = await ask()
        if answer != expected:
            raise AssertionError(f"another answer: {str(answer)[:60]}")
        return timer.seconds

    return side


def _sync(function: Callable[..., Any], *arguments: Any) -> Callable[[], Awaitable[Any]]:
    async def run() -> Any:
        return function(*arguments)

    return run


async def _memory(kind: str, records: Records, expected: Answers) -> AsyncIterator[Row]:
    db = await _filled("memory", {}, records)

    def by_hand(question: str) -> dict[str, Callable[[], Awaitable[Any]]]:
        return {"loop": _sync(loop, question, records)}

    async for row in _measure(f"{kind}memory", db, expected, by_hand, 3):
        yield row
    await db.close()


async def _sqlite(kind: str, records: Records, expected: Answers) -> AsyncIterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        db = await _filled("sqlite", {"path": str(folder / "ours.db")}, records)
        if kind:  # columns of one type cannot hold these
            async for row in _measure(f"{kind}sqlite", db, expected, lambda question: {}, 3):
                yield row
            await db.close()
            return
        connection = embedded.open_sqlite(folder / "by_hand.db", records)
        duck = embedded.open_duckdb(folder / "duck.db", folder / "lines.json", records)
        engine = create_async_engine(f"sqlite+aiosqlite:///{folder / 'by_hand.db'}")

        def by_hand(question: str) -> dict[str, Callable[[], Awaitable[Any]]]:
            return {
                "naive": _sync(embedded.ask, connection, question, embedded.NAIVE_SQL[question]),
                "typed": _sync(embedded.ask, connection, question, embedded.TYPED_SQL[question]),
                "ORM": lambda: orm.ask(engine, question),
                "DuckDB": _sync(embedded.ask, duck, question, embedded.DUCKDB_SQL[question]),
            }

        async for row in _measure("sqlite", db, expected, by_hand, 5):
            yield row
        settings = {"path": str(folder / "declared.db"), "columns": COLUMNS}
        declared = await _filled("sqlite", settings, records)
        async for row in _measure("sqlite, columns", declared, expected, by_hand, 5):
            yield row
        await declared.close()
        await engine.dispose()
        duck.close()
        connection.close()
        await db.close()


async def _postgres(kind: str, records: Records, expected: Answers) -> AsyncIterator[Row]:
    url = os.environ["ISTHMUS_TEST_POSTGRES_URL"]
    db = await _filled("postgres", {"dsn": url, "table": TABLE}, records)
    # Our sessions set this too: compiling a plan takes longer than the plan.
    connection = await asyncpg.connect(url, server_settings={"jit": "off"})
    await connection.execute(f'VACUUM ANALYZE "{TABLE}"')
    if kind:
        async for row in _measure(f"{kind}pg", db, expected, lambda question: {}, 3):
            yield row
    else:
        await servers.fill(connection, records)
        engine = create_async_engine(
            url.replace("postgresql://", "postgresql+asyncpg://", 1),
            connect_args={"server_settings": {"jit": "off"}},
        )

        def by_hand(question: str) -> dict[str, Callable[[], Awaitable[Any]]]:
            asked: dict[str, Callable[[], Awaitable[Any]]] = {
                "naive": lambda: servers.ask_sql(connection, question, servers.NAIVE_SQL[question]),
                "typed": lambda: servers.ask_sql(connection, question, servers.TYPED_SQL[question]),
                "ORM": lambda: orm.ask(engine, question),
            }
            if (plain := servers.PLAIN_SQL.get(question)) is not None:
                asked["naive, plain"] = lambda: servers.ask_sql(connection, question, plain)
            return asked

        async for row in _measure("pg", db, expected, by_hand, 5):
            yield row
        declared = await _filled("postgres", {"dsn": url, "table": DECLARED, "columns": COLUMNS}, records)
        await connection.execute(f'VACUUM ANALYZE "{DECLARED}"')
        async for row in _measure("pg, columns", declared, expected, by_hand, 5):
            yield row
        await declared.drop_collection(DECLARED)
        await declared.close()
        await engine.dispose()
        await connection.execute("DROP TABLE naive, typed")
    await connection.close()
    await db.drop_collection(TABLE)
    await db.close()


async def _s3(kind: str, records: Records, expected: Answers) -> AsyncIterator[Row]:
    bucket, options = location()
    config = {"bucket": bucket, "prefix": own_name("questions/ours"), "layout": "log", **options}
    db = await _filled("s3", config, records)
    key = own_name("questions/lines.json")
    await obstore.put_async(store(), key, b"\n".join(map(orjson.dumps, records.values())))

    async def read_and_loop(question: str) -> Any:
        response = await obstore.get_async(store(), key)
        lines = bytes(await response.bytes_async()).split(b"\n")
        return loop(question, dict(zip(records, map(orjson.loads, lines), strict=True)))

    def by_hand(question: str) -> dict[str, Callable[[], Awaitable[Any]]]:
        return {} if kind else {"lines + loop": lambda: read_and_loop(question)}

    async for row in _measure(f"{kind}s3 log", db, expected, by_hand, 3):
        yield row
    await obstore.delete_async(store(), key)
    await db.clear()
    await db.close()


async def _elasticsearch(kind: str, records: Records, expected: Answers) -> AsyncIterator[Row]:
    url = os.environ["ISTHMUS_TEST_ELASTICSEARCH_URL"]
    db = await _filled("elasticsearch", {"hosts": [url], "index": TABLE}, records)
    client, index = AsyncElasticsearch(url, request_timeout=60), own_name("cities_plain")
    if not kind:
        await servers.fill_index(client, index, records)

    def by_hand(question: str) -> dict[str, Callable[[], Awaitable[Any]]]:
        return {} if kind else {"plain": lambda: servers.ask_index(client, index, question)}

    async for row in _measure(f"{kind}es", db, expected, by_hand, 3):
        yield row
    await client.options(ignore_status=404).indices.delete(index=[TABLE, index])
    await client.close()
    await db.close()
