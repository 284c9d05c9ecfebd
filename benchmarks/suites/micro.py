"""What the steps between a call and a driver cost: encode, plan, compile, check a shape, judge, layers.

No server takes part. Times are those of one step; the bare side is the least that any code must do.
"""

from __future__ import annotations

import functools
import timeit
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import orjson

from benchmarks.data import document, name_of
from benchmarks.harness import Measured, Row, Side, Timer, measure
from isthmus import AsyncDatabase, Query, Record, field
from isthmus._core.executor import PageRequest, mutation_for
from isthmus._query.build import as_query
from isthmus._query.evaluate import matches
from isthmus._query.split import Pushdown, split
from isthmus.backends.elasticsearch.compile import Bound, Compiler
from isthmus.backends.elasticsearch.shape import Shapes, walk
from isthmus.backends.postgres import pages as postgres
from isthmus.backends.postgres.sql.table import IndexedPaths
from isthmus.backends.postgres.sql.table import Table as PostgresTable
from isthmus.backends.sqlite import compile as sqlite
from isthmus.backends.sqlite.schema import Table as SQLiteTable

DATA = document(7)
RAW = orjson.dumps(DATA)
WHERE = (field("group") == 3) & (field("score") >= 10) & ~field("name").like("user-00%") | (
    field("city").in_(["Oslo", "Lima"]) & field("tags").exists()
)
QUERY = Query().filter(WHERE).sort("score", "desc").limit(20)
TYPES = {
    "data.group": "double",
    "data.score": "double",
    "data.name": "keyword",
    "data.city": "keyword",
    "data.tags": "keyword",
}
# What a layer is given where it does nothing without.
LAYERS: dict[str, dict[str, Any]] = {
    "metrics": {"metrics": True},
    "deadline": {"deadline": 10.0},
    "retry": {"retry": True},
    "breaker": {"breaker": True},
    "limit": {"limit": 64},
    "attempt_timeout": {"attempt_timeout": 5.0},
}


async def rows() -> AsyncIterator[Row]:
    """Run every step."""
    for job, steps in _steps().items():
        yield await measure(job, {name: _repeated(step) for name, step in steps.items()})
    yield await _layers()


def _steps() -> dict[str, dict[str, Callable[[], object]]]:
    found = as_query(QUERY)
    request = PageRequest(found.where, found.order, 20)
    pg_table = PostgresTable("public", "records", IndexedPaths())
    lite_table = SQLiteTable("records")
    compiler = Compiler(TYPES, ())
    shapes = Shapes("data")
    shapes.of(DATA)
    record = Record(DATA, id=name_of(7))
    stored = functools.partial(Record.stored, name_of(7), RAW, None, "1", 0, 0)
    exact = lambda _: Pushdown.EXACT  # noqa: E731 - what the stores say of these leaves
    return {
        "encode a record": {
            "ours": lambda: mutation_for(record).encoded(),
            "bare": lambda: orjson.dumps(DATA),
        },
        "decode a record": {"ours": lambda: stored().data, "bare": lambda: orjson.loads(RAW)},
        "carry a record undecoded": {"ours": stored},
        "build a query": {"ours": lambda: Query().filter("group", "=", 3).sort("name").limit(10)},
        "plan five leaves": {"ours": lambda: split(found.where, exact)},
        "compile five leaves, postgres": {"ours": lambda: postgres.page(pg_table, request)},
        "compile five leaves, sqlite": {"ours": lambda: sqlite.page(lite_table, request)},
        "compile five leaves, elasticsearch": {"ours": lambda: compiler.tree(found.where, Bound.UPPER)},
        "shape check, seen before": {"ours": lambda: shapes.of(DATA)},
        "shape check, first of its kind": {"ours": lambda: walk(DATA, "data")},
        "judge five leaves here": {"ours": lambda: matches(found.where, record)},
    }


def _repeated(step: Callable[[], object]) -> Side:
    """Return a side that gives the seconds of one step, from enough of them for the clock."""
    timer = timeit.Timer(step)
    number = max(1, int(0.02 / max(1e-7, min(timer.repeat(3, 20)) / 20)))

    async def side() -> float:
        return timer.timeit(number) / number

    return side


async def _layers() -> Row:
    """Measure a get from memory: the backend alone, the handle, and the handle with one layer more."""
    count = 2_000
    handles: dict[str, AsyncDatabase] = {}
    asked: dict[str, dict[str, Any]] = {name: {"layers": given} for name, given in LAYERS.items()}
    for name, config in {"ours": {}, **asked, "service preset": {"resilience": "service"}}.items():
        handles[name] = await AsyncDatabase.create("memory", config)
        await handles[name].create(Record(DATA, id="a"))
    backend = handles["ours"]._backend

    def side(call: Callable[[], Awaitable[object]]) -> Side:
        async def run() -> float:
            with Timer() as timer:
                for _ in range(count):
                    await call()
            return timer.seconds / count

        return run

    sides = {"backend alone": side(lambda: backend.read("records", ("a",)))}
    for name, db in handles.items():
        sides[name if name == "ours" else f"and {name}"] = side(functools.partial(db.get, "a"))
    row = await measure("get from memory, by layers", sides, rounds=7, derived=_added)
    for db in handles.values():
        await db.close()
    return row


def _added(sides: Mapping[str, Measured]) -> dict[str, float]:
    """Return what the handle adds, by the best rounds: a few microseconds drown in any other."""
    ours, alone = min(sides["ours"].seconds), min(sides["backend alone"].seconds)
    return {"us that a get adds to its backend": (ours - alone) * 1e6}
