"""Steps between a call and its driver, without a server: build, encode, decode, plan, evaluate, layers.

Times are CPU times of one step, the best of several repetitions: nothing is waited for, and the load of other
processes is left out. The bare side is the least that any code must do.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
import timeit
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.data import document, documents, name_of
from benchmarks.harness import Measured, Row, Side, measure
from isthmus import AsyncDatabase, Query, Record, field

if TYPE_CHECKING:
    from isthmus._query.ast import Predicate

DATA = document(7)
RAW = orjson.dumps(DATA)
STORED = 200
REPEAT = 5
WHERE = (field("group") == 3) & (field("score") >= 10) & ~field("name").like("user-00%") | (
    field("city").in_(["Oslo", "Lima"]) & field("tags").exists()
)
QUERY = Query().filter(WHERE).sort("score", "desc").limit(20)
# The setting that makes a layer do something.
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
        yield await measure(job, {name: _repeat(step) for name, step in steps.items()})
    yield await _upsert_batch()
    yield await _evaluate()
    async for row in _plan():
        yield row
    yield await _layers()
    # Of modules that commits before the present tree do not have: the other rows are compared with those.
    if find_spec("isthmus._core") is not None:
        yield await _plan_known_shape()


def _steps() -> dict[str, dict[str, Callable[[], object]]]:
    stored = functools.partial(Record.stored, name_of(7), RAW, None, "1", 0, 0)
    return {
        "decode a record": {"ours": lambda: stored().data, "bare": lambda: orjson.loads(RAW)},
        "carry a record undecoded": {"ours": stored},
        "build a query": {"ours": lambda: Query().filter("group", "=", 3).sort("name").limit(10)},
        "build five conditions": {
            "ours": lambda: (
                (field("group") == 3) & (field("score") >= 10) & ~field("name").like("user-00%")
                | (field("city").in_(["Oslo", "Lima"]) & field("tags").exists())
            )
        },
        "build three conditions": {"ours": _three_conditions},
    }


def _three_conditions(n: int = 3) -> Predicate:
    return (field("group") == n) & (field("score") >= 10.5) & (field("city") == "Oslo")


async def _plan_known_shape() -> Row:
    """Measure planning and compiling for PostgreSQL, of a shape that is known and of one that is not.

    The conditions are built by each side and taken off, as are other operands each time.
    """
    from isthmus._core.executor import PageRequest
    from isthmus.backends.postgres.backend import PostgresBackend
    from isthmus.backends.postgres.config import PostgresConfig
    from isthmus.backends.postgres.sql.select import select_page
    from isthmus.backends.postgres.sql.table import IndexedPaths, Table
    from isthmus.layers.plan import Plan

    planner = Plan(PostgresBackend(PostgresConfig()))
    kept = Table("public", "bench", IndexedPaths())
    numbers = itertools.cycle(range(1, 50))

    def plan(table: Any) -> object:
        where = _three_conditions(next(numbers))
        parts = planner.parts("bench", where)
        return select_page(table, PageRequest(parts.pushed, (), 5))

    build = _repeat(lambda: _three_conditions(next(numbers)))

    async def known() -> float:
        return await _repeat(lambda: plan(kept))() - await build()

    async def unknown() -> float:
        return await _repeat(lambda: plan(Table("public", "bench", IndexedPaths())))() - await build()

    sides = {"ours": known, "unknown shape": unknown}
    return await measure("plan and compile three conditions, PostgreSQL", sides)


def _repeat(step: Callable[[], object]) -> Side:
    """Return a side that gives the seconds of one step, from enough of them for the clock."""
    timer = timeit.Timer(step, timer=time.process_time)
    number = max(1, int(0.02 / max(1e-7, min(timer.repeat(3, 20)) / 20)))

    async def side() -> float:
        return min(timer.repeat(REPEAT, number)) / number

    return side


def _repeat_call(call: Callable[[], Awaitable[object]], count: int, items: int = 1) -> Side:
    """Return a side that gives the seconds of one call, or of one item of a call, from `count` calls."""

    async def side() -> float:
        best = math.inf
        for _ in range(REPEAT):
            start = time.process_time()
            for _ in range(count):
                await call()
            best = min(best, time.process_time() - start)
        return best / count / items

    return side


async def _upsert_batch() -> Row:
    """Measure a batch of writes in memory: the check and the encoding of each record are most of it."""
    data = documents(STORED)
    made = [Record(d, id=name_of(n)) for n, d in enumerate(data)]
    async with await AsyncDatabase.create("memory", {}) as db:

        async def bare() -> None:
            table = {name_of(n): orjson.dumps(d) for n, d in enumerate(data)}
            assert len(table) == STORED

        sides = {
            "ours": _repeat_call(lambda: db.upsert_batch(made), 10, STORED),
            "bare": _repeat_call(bare, 10, STORED),
        }
        return await measure("upsert_batch in memory, per record", sides)


async def _evaluate() -> Row:
    """Measure five conditions and an order evaluated by us, as where a store cannot."""
    async with await AsyncDatabase.create("memory", {}) as db:
        await db.create_batch([Record(d, id=name_of(n)) for n, d in enumerate(documents(STORED))])
        side = _repeat_call(lambda: db.search(QUERY), 10, STORED)
        return await measure("evaluate five conditions, per record", {"ours": side})


async def _plan() -> AsyncIterator[Row]:
    """Measure a query of five conditions where nothing is stored: to plan and to compile it is most of it."""
    async with await AsyncDatabase.create("memory", {}) as db:
        side = _repeat_call(lambda: db.search(QUERY), 200)
        yield await measure("search of five conditions, nothing stored, memory", {"ours": side})
    async with await AsyncDatabase.create("sqlite", {"path": ":memory:"}) as db:
        side = _repeat_call(lambda: db.search(QUERY), 200)
        yield await measure("search of five conditions, nothing stored, sqlite", {"ours": side})


async def _layers() -> Row:
    """Measure a get from memory, and the same with one layer more."""
    handles: dict[str, AsyncDatabase] = {}
    configs: dict[str, dict[str, Any]] = {f"and {name}": {"layers": given} for name, given in LAYERS.items()}
    for name, config in {"ours": {}, **configs, "and service preset": {"resilience": "service"}}.items():
        handles[name] = await AsyncDatabase.create("memory", config)
        await handles[name].create(Record(DATA, id="a"))
    sides = {name: _repeat_call(functools.partial(db.get, "a"), 2_000) for name, db in handles.items()}
    row = await measure(
        "get from memory, by layers", sides, rounds=7, compared=list(sides), derive=_best_in_microseconds
    )
    for db in handles.values():
        await db.close()
    return row


def _best_in_microseconds(sides: Mapping[str, Measured]) -> dict[str, float]:
    return {"us of a get": min(sides["ours"].seconds) * 1e6}
