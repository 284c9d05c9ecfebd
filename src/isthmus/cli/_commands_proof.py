"""Commands that prove: parity of a store with the written meaning, and its speed."""

from __future__ import annotations

import random
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from isthmus import Collection, Query, Record, field
from isthmus.cli._exit import Code, CommandError
from isthmus.cli._options import AsJson, Ask, Store, run
from isthmus.cli._show import print_json, print_table
from isthmus.cli._stores import Place, database, place

COMMANDS = ("parity", "bench")
_SET = 40


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(parity)
    app.command()(bench)


@asynccontextmanager
async def _scratch(where: Place) -> AsyncIterator[Collection]:
    """Open a collection of our own and remove it; where none can be dropped, an empty one is left."""
    async with database(where, writes=True) as db:
        name = f"isthmus_scratch_{uuid.uuid4().hex[:10]}" if db.capabilities.drop else "isthmus_scratch"
        collection = db.collection(name)
        await collection.clear()
        try:
            yield collection
        finally:
            await collection.clear()
            if db.capabilities.drop:
                backend: Any = db._backend
                await backend.drop(collection.collection_name)


def parity(
    store: Store = None,
    queries: Annotated[int, typer.Option("--queries", "-n", metavar="N", min=1, help="How many.")] = 500,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", show_default=False, help="Repeat a run.")
    ] = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Ask random queries over nasty records and compare each answer with its meaning.

    Works in a collection of its own, isthmus_scratch. Exit code 1 if one differs.
    """
    chosen = random.randrange(2**32) if seed is None else seed  # noqa: S311 - a test's seed
    start = time.monotonic()
    wrong = run(_parity(place(store, None, ask=ask), queries, chosen))
    seconds = time.monotonic() - start
    if as_json:
        shape = {"queries": queries, "differences": wrong, "seed": chosen, "seconds": round(seconds, 3)}
        print_json(shape)
    else:
        for text in wrong[:20]:
            sys.stdout.write(f"{text}\n")
        sys.stdout.write(f"{queries} queries, {len(wrong)} differences, seed {chosen}, {seconds:.1f} s\n")
    if wrong:
        raise CommandError(f"{len(wrong)} answers are not what the queries mean", Code.NO)


async def _parity(where: Place, queries: int, seed: int) -> list[str]:
    from isthmus._query.codec import text
    from isthmus._query.order import in_order
    from isthmus.testing.queries import QueryMaker
    from isthmus.testing.records import everyday_set, nasty_set

    chance = random.Random(seed)  # noqa: S311 - a test's chance
    wrong: list[str] = []
    async with _scratch(where) as collection:
        for done in range(0, queries, _SET):
            made = (everyday_set if chance.random() < 0.5 else nasty_set)(chance)
            await collection.clear()
            await collection.create_batch(made.records)
            stored = await collection.search()
            maker = QueryMaker(chance, made, stored)
            for _ in range(min(_SET, queries - done)):
                one = maker.made()
                query = Query(where=one.predicate, order=maker.order())
                expected = [record.id for record in in_order(list(one.matching), query.order)]
                found = [record.id for record in await collection.search(query)]
                if found != expected or await collection.count(one.predicate) != len(expected):
                    wrong.append(f"{text(one.predicate)}: {found} instead of {expected}")
    return wrong


def bench(
    store: Store = None,
    number: Annotated[int, typer.Option("--number", "-n", metavar="N", min=10, help="Records.")] = 1_000,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Time each kind of call in a collection of its own, isthmus_scratch."""
    rows = run(_bench(place(store, None, ask=ask), number))
    if as_json:
        print_json(
            [dict(zip(("job", "times", "median_ms", "p99_ms", "per_s"), row, strict=True)) for row in rows]
        )
    else:
        shown = [
            [job, n, f"{middle:.2f}", f"{worst:.2f}", f"{rate:,.0f}"] for job, n, middle, worst, rate in rows
        ]
        print_table(["job", "times", "median ms", "p99 ms", "records/s"], shown)


Row = tuple[str, int, float, float, float]


async def _bench(where: Place, number: int) -> list[Row]:
    records = [
        Record(
            {"n": i, "name": f"name {i}", "group": i % 10, "tags": ["a", "b"], "text": "x" * 120},
            id=f"{i:08}",
        )
        for i in range(number)
    ]
    rows: list[Row] = []

    async def timed(job: str, times: int, each: int, call: Callable[[int], Awaitable[object]]) -> None:
        took = []
        for turn in range(times):
            start = time.perf_counter()
            await call(turn)
            took.append((time.perf_counter() - start) * 1e3)
        took.sort()
        rate = each * times / (sum(took) / 1e3)
        rows.append((job, times, statistics.median(took), took[min(times - 1, times * 99 // 100)], rate))

    async with _scratch(where) as collection:

        async def stream(turn: int) -> int:
            count = 0
            async for _ in collection.stream():
                count += 1
            return count

        await timed("create", 20, 1, lambda turn: collection.create({"n": turn}))
        await timed("create_batch", 1, number, lambda turn: collection.create_batch(records))
        await timed("get", 100, 1, lambda turn: collection.get(records[turn % number].id or ""))
        await timed(
            "get_batch 100", 5, 100, lambda turn: collection.get_batch([f"{i:08}" for i in range(100)])
        )
        ten = Query().filter(field("group") == 3).sort("n").limit(10)
        await timed("search, sort, limit 10", 20, 10, lambda turn: collection.search(ten))
        await timed("count", 20, 1, lambda turn: collection.count(field("n") >= turn))
        await timed("stream", 3, number, stream)
        await timed("update", 20, 1, lambda turn: collection.update(records[turn % 10].id or "", {"u": turn}))
        await timed("upsert_batch", 1, number, lambda turn: collection.upsert_batch(records))
        await timed(
            "delete_batch", 1, number, lambda turn: collection.delete_batch([r.id or "" for r in records])
        )
    return rows
