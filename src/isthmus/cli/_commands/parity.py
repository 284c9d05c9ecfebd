"""Commands that prove: parity of a store with the written meaning, and its speed."""

from __future__ import annotations

import random
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus import Collection, Query, Record, __version__, field
from isthmus.cli._errors import Code, CommandError
from isthmus.cli._options import AsJson, Ask, Store, run
from isthmus.cli._output import print_json, print_table
from isthmus.cli._stores import Place, database, place, settings

if TYPE_CHECKING:
    from isthmus.testing.parity import Column, Page

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
    stores: Annotated[
        list[str] | None,
        typer.Argument(metavar="STORE...", show_default=False, help="URLs; - or nothing: $ISTHMUS_URL."),
    ] = None,
    queries: Annotated[int, typer.Option("--queries", "-n", metavar="N", min=1, help="How many.")] = 500,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", show_default=False, help="Repeat a run.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the page is written.")
    ] = Path(),
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Only the random queries, no suite.")] = False,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Prove that stores keep what isthmus promises, and write it as parity.md and parity.html.

    Asks random queries over nasty records, compares each answer with its meaning, and runs the
    conformance suite (it needs `pip install 'isthmus[testing]'`). Works in collections of its own.
    Exit code 1 if an answer differs or a test fails.
    """
    chosen = random.randrange(2**32) if seed is None else seed  # noqa: S311 - a test's seed
    start = time.monotonic()
    named: list[str | None] = list(stores) if stores else [None]
    places = [place(store, None, ask=ask) for store in named]
    wrong = [text for where in places for text in run(_parity(where, queries, chosen))]
    for text in [] if as_json else wrong[:20]:
        sys.stdout.write(f"{text}\n")
    asked = f"{queries} queries on each, {len(wrong)} differences, seed {chosen}"
    page = None if quick else _suite(places, asked)
    shape: dict[str, Any] = {"queries": queries, "differences": wrong, "seed": chosen}
    if page is not None:
        shape |= {"page": [str(path) for path in _written(page, out)], "verdicts": page.counts}
        for one in [] if as_json else page.wrong:
            sys.stdout.write(f"{one.verdict.value}: {one.column} {one.test} {one.case}: {one.why}\n")
    shape["seconds"] = round(time.monotonic() - start, 3)
    if as_json:
        print_json(shape)
    else:
        sys.stdout.write(f"{asked}, {shape['seconds']:.1f} s\n")
        sys.stdout.write("" if page is None else f"{page.summary}\n{' '.join(shape['page'])}\n")
    if wrong or (page is not None and page.wrong):
        raise CommandError("not everything is as promised", Code.NO)


def _suite(places: list[Place], asked: str) -> Page:
    """Run the suite on the stores."""
    from isthmus.testing.parity import Page, SuiteError, measured

    columns = [run(_column(where, number)) for number, where in enumerate(places, 1)]
    try:
        outcomes = measured(columns)
    except SuiteError as error:
        raise CommandError(str(error), Code.STORE) from error
    today = time.strftime("%Y-%m-%d")
    return Page(f"isthmus {__version__}, {today}. Random queries: {asked}.", columns, outcomes)


async def _column(where: Place, number: int) -> Column:
    from isthmus.testing.parity import Column, version_of

    async with database(where, writes=True) as db:
        told = f"{await version_of(db)}, at {where.shown}"
        given: dict[str, Any] = {"url": where.url, **settings(where, writes=True)}
        if db.backend == "elasticsearch":
            given["fulltext"] = ["text"]  # whose words the suite searches
        return Column(f"{number} {db.backend}", db.backend, given, told)


def _written(page: Page, out: Path) -> list[Path]:
    """Write the page in both forms."""
    from isthmus.testing.parity import as_html, markdown

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "parity.md", out / "parity.html"]
    for path, text in zip(paths, (markdown(page), as_html(page)), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


async def _parity(where: Place, queries: int, seed: int) -> list[str]:
    from isthmus._query.codec import text
    from isthmus._query.order import sort_records
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
                query = Query(where=one.predicate, order=maker.order(one))
                expected = [record.id for record in sort_records(list(one.matching), query.order)]
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
