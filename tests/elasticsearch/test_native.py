"""Indices that others made, read as they are: what a query finds is what the evaluator finds."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from elasticsearch import AsyncElasticsearch
from isthmus import AsyncDatabase, Policy, Query, Record, field, match, nearest
from isthmus._query.ast import Predicate
from isthmus._query.evaluate import matches
from isthmus._query.order import sort_records
from isthmus.errors import ConfigError, QueryError, UnavailableError, UnsupportedError
from tests.seeds import drawn

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]

LONG = "x" * 300  # dynamic mapping indexes 256 characters of a text
DOCUMENTS: dict[str, dict[str, Any]] = {
    "a": {"name": "Alice Smith", "age": 30, "score": 0.1, "at": "2026-01-02T03:04:05Z", "ok": True},
    "b": {"name": "alice smith", "age": "30", "score": "0.1", "at": "2026-01-02", "ok": "true"},
    "c": {"name": 30, "age": 30.7, "score": 1, "at": "2026-01-02T03:04:05.000Z", "ok": False},
    "d": {"name": LONG, "age": -30.7, "score": 16777217, "at": 1767323045000, "ok": None},
    "e": {"name": LONG + "y", "age": None, "score": [0.5, 2], "at": "2025-12-31T23:59:59-05:00"},
    "f": {"name": "", "age": "", "score": 1e300, "tags": ["red", "green"], "long": 2**53 + 1},
    "g": {"name": ["Bob", None, "Carol"], "age": [1, 99], "tags": "red", "long": 2**53},
    "h": {"name": "%_\\*?", "age": 2**62, "tags": [], "o": {"x": 1, "y": "deep"}},
    "i": {"o": [{"x": 2, "y": "deeper"}, {"x": 30}], "o.x": 7},
    "j": {"parts": [{"sku": "a", "price": 5}, {"sku": "b", "price": 50}]},
    "k": {"parts": {"sku": LONG, "price": 20.5}, "code": "ABC", "raw": {"any": [1, "x"]}},
    "l": {"code": "abc", "small": 3_000_000_000, "late": "anything", "raw": {"any": "x"}, "hidden": "found"},
    "m": {"small": "not a number", "code": "Straße", "calm": "a storm before the storm", "half": 0.1},
    "n": {"calm": "storm", "half": 65_000.7, "unseen": "u", "year": "2026", "point": {"lat": 1, "lon": 2}},
    "o": {},
}
SETTINGS = {
    "number_of_replicas": 0,
    "analysis": {"normalizer": {"lower": {"type": "custom", "filter": ["lowercase"]}}},
}
# Beside what dynamic mapping makes of the rest.
MAPPINGS = {
    "runtime": {"late": {"type": "keyword"}},
    "properties": {
        "score": {"type": "float", "ignore_malformed": True},
        "age": {"type": "integer", "ignore_malformed": True},
        "parts": {"type": "nested"},
        "code": {"type": "keyword", "normalizer": "lower"},
        "small": {"type": "integer", "ignore_malformed": True},
        "raw": {"type": "object", "enabled": False},
        "hidden": {"type": "keyword", "index": False, "doc_values": False},
        "unseen": {"type": "keyword", "index": False},
        "calm": {"type": "text"},
        "half": {"type": "half_float"},
        "year": {"type": "date", "format": "yyyy"},
        "point": {"type": "geo_point"},
    },
}
_NAMES = """name age score at ok tags long o o.x o.y parts.sku parts.price parts code raw.any small late
hidden unseen calm half year point nothing _id _metadata.x _created_at"""
PATHS = _NAMES.split()
_TEXTS = [
    "Alice Smith",
    "alice smith",
    "30",
    LONG,
    LONG + "y",
    "",
    "red",
    "deep",
    "a",
    "ABC",
    "abc",
    "x",
    "h",
    "u",
]
_WORDS = ["x", "h", "u", "not a number", "found", "storm", "a storm before the storm", "%_\\*?", "Bob"]
_DATES = ["2026-01-02T03:04:05Z", "2026-01-02", "2026", 1767323045000]
_NUMBERS = [30, 30.0, 30.7, -30.7, -30, 0.1, 1, 2, 5, 50, 20.5, 20, 99, 65_000.7, 65_000]
_EXTREMES = [16777217, 16777216, 3_000_000_000, 2**53, 2**53 + 1, 2**62, 1e300, -1e300]
VALUES: list[Any] = [*_TEXTS, *_WORDS, *_DATES, *_NUMBERS, *_EXTREMES, True, False]


@pytest_asyncio.fixture(params=[1, 3])
async def foreign(url: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Return the name of an index that a raw client made."""
    name = f"foreign-{uuid.uuid4().hex[:8]}"
    async with AsyncElasticsearch(url) as native:
        settings = {**SETTINGS, "number_of_shards": request.param}
        await native.indices.create(index=name, settings=settings, mappings=MAPPINGS)
        lines = [line for id, data in DOCUMENTS.items() for line in ({"index": {"_id": id}}, data)]
        answer = await native.bulk(index=name, operations=lines, refresh=True)
        assert not answer["errors"], [item for item in answer["items"] if item["index"]["status"] > 201]
        yield name
        await native.indices.delete(index=name)


@pytest_asyncio.fixture
async def db(url: str, foreign: str) -> AsyncIterator[AsyncDatabase]:
    """Return a handle on it."""
    handle = await opened(url, foreign)
    yield handle
    await handle.close()


async def opened(url: str, name: str, **settings: Any) -> AsyncDatabase:
    """Return a handle on an index as it is."""
    return await AsyncDatabase.create(
        "elasticsearch", {"hosts": [url], "index": name, "layout": "native", **settings}
    )


def leaf(rng: random.Random) -> Predicate:
    """Return a random condition."""
    name, value = field(rng.choice(PATHS)), rng.choice(VALUES)
    match rng.randrange(9):
        case 0 | 1:
            return name == value
        case 2:
            return name.in_([value, rng.choice(VALUES)])
        case 3 | 4:
            way = rng.choice(["__lt__", "__le__", "__gt__", "__ge__"])
            made: Predicate = getattr(name, way)(value)
            return made
        case 5:
            other = rng.choice(VALUES)
            if isinstance(other, str) == isinstance(value, str) and bool not in (type(other), type(value)):
                return name.between(*sorted((value, other)))
            return name.exists()
        case 6:
            text = str(value)
            return rng.choice([name.like, name.ilike])(
                rng.choice([text, text[:2] + "%", "%" + text[-2:], "%"])
            )
        case 7:
            text = str(value)[:4]
            return rng.choice([name.starts_with, name.ends_with, name.contains])(text)
        case _:
            return name.regex(rng.choice(["^a", "[0-9]+", "(?i)ALICE", "x{3}"]))


def tree(rng: random.Random, depth: int = 2) -> Predicate:
    """Return a random tree of conditions."""
    if depth == 0 or rng.random() < 0.4:
        return leaf(rng)
    left, right = tree(rng, depth - 1), tree(rng, depth - 1)
    return rng.choice([left & right, left | right, ~left])


async def test_random_queries_find_what_the_evaluator_finds(db: AsyncDatabase) -> None:
    """Coerced, cut, rounded, ignored, normalized, nested and disabled values included."""
    seed = drawn()
    rng = random.Random(seed)
    records = [Record(data, id=id) for id, data in DOCUMENTS.items()]

    for _ in range(120):
        where = tree(rng)
        wanted = sorted(str(record.id) for record in records if matches(where, record))
        assert [record.id for record in await db.search(where)] == wanted, where
    for path in PATHS:
        for where in (field(path).exists(), field(path).is_null()):
            assert await db.count(where) == sum(matches(where, record) for record in records), where


async def test_an_empty_id_is_no_record_s(db: AsyncDatabase) -> None:
    """The server refuses to look for one."""
    assert [record.id for record in await db.search(field("_id").in_(["", "a"]))] == ["a"]
    assert await db.count(field("_id") == "") == 0


async def test_records_are_the_documents_as_they_were_written(db: AsyncDatabase) -> None:
    """By id too, on any number of shards; times and metadata they have none."""
    read = await db.get_batch([*DOCUMENTS, "none", "a"])

    assert [None if r is None else (r.id, r.data) for r in read] == [
        *DOCUMENTS.items(),
        None,
        ("a", DOCUMENTS["a"]),
    ]
    record = await db.require("a")
    assert (record.metadata, record.created_at) == ({}, None)
    assert record.version
    assert {r.id async for r in db.stream()} == set(DOCUMENTS)


async def test_orders_pages_and_aggregates_are_exact(db: AsyncDatabase) -> None:
    """They are made here: no field's order is surely that of its values."""
    records = [Record(data, id=id) for id, data in DOCUMENTS.items()]
    for query in (Query().sort("age"), Query().sort("name", "desc").sort("score"), Query()):
        wanted = [record.id for record in sort_records(records, query.order)]
        assert [record.id for record in await db.search(query)] == wanted
        assert [record.id for record in await db.search(query.offset(3).limit(4))] == wanted[3:7]
        page = await db.page(query, size=6)
        assert page.cursor is not None
        rest = await db.page(query, size=100, cursor=page.cursor)
        assert [r.id for r in [*page.records, *rest.records]] == wanted

    rows = await db.aggregate(by="tags", n="count", top=("max", "age"))
    assert {row["tags"]: row["n"] for row in rows} == {"red": 2, "green": 1, None: len(DOCUMENTS) - 2}


async def test_the_server_narrows_down_what_is_judged_here(db: AsyncDatabase) -> None:
    """explain() says so; a policy that refuses work on this side refuses such queries."""
    plan = await db.explain(field("tags") == "red")
    text = str(plan)

    assert "SUPERSET" in text
    assert "tags.keyword" in text
    assert "_ignored" in text
    with pytest.raises(UnsupportedError):
        await db.options(policy=Policy(residual="refuse")).search(field("tags") == "red")


async def test_writes_are_refused(db: AsyncDatabase) -> None:
    """Every verb that would change the index; nothing is changed."""
    for call in (
        db.create({"n": 1}),
        db.create_batch([{"n": 1}]),
        db.upsert("a", {"n": 1}),
        db.update("a", {"n": 1}),
        db.replace("a", {"n": 1}),
        db.delete("a"),
        db.delete_batch(["a"]),
        db.delete_where(field("tags") == "red"),
        db.clear(),
        db._backend.drop(db.collection_name),  # type: ignore[attr-defined]
    ):
        with pytest.raises(UnsupportedError, match="read only"):
            await call
    assert await db.count() == len(DOCUMENTS)


async def test_words_are_matched_and_marked_where_the_mapping_has_text(db: AsyncDatabase) -> None:
    """Other fields, and vectors, are refused."""
    hits = await db.hits(match("calm", "storm"), passages=["calm"])

    assert {hit.record.id for hit in hits} == {"m", "n"}
    assert all(hit.score and hit.passages["calm"][0].marks for hit in hits)
    assert [r.id for r in await db.search(Query().match("name", "alice").sort("name"))] == ["a", "b"]
    for query in (
        match("code", "abc"),
        match("parts.sku", "a"),
        match("nothing", "x"),
        nearest("calm", [1.0]),
    ):
        with pytest.raises(UnsupportedError):
            await db.search(query)


async def test_approximate_lets_the_server_judge(url: str, foreign: str) -> None:
    """Exact at the store by explain(); answers are the mapping's: cut numbers, dates in order of time."""
    db = await opened(url, foreign, approximate=True)
    try:
        assert (await db.explain(field("tags") == "red")).exact
        assert {r.id for r in await db.search(field("age") == 30)} == {"a", "b", "c"}
        assert {r.id for r in await db.search(field("at") >= "2026-01-01")} == {"a", "b", "c", "d", "e"}
        assert await db.count(~field("tags").exists()) == len(DOCUMENTS) - 2
        assert {r.id for r in await db.search(field("calm") == "storm")} == {"m", "n"}
        assert await db.count((field("parts.price") > 10) & (field("parts.sku") == "b")) == 1
        ages = [r.id for r in await db.search(Query().sort("age", "desc").limit(3))]
        assert ages[0] == "g"
        assert set(ages[1:]) <= {"a", "b", "c"}
        async with db.stream(Query().sort("age"), consistent=True, page_size=4) as records:
            assert len([r async for r in records]) == len(DOCUMENTS)
        first = await db.page(Query().sort("age"), size=2)
        with pytest.raises(UnsupportedError, match="cursors"):
            await db.page(Query().sort("age"), size=2, cursor=first.cursor)
        assert len(await db.search(Query().sort("_score", "desc").match("calm", "storm"))) == 2
    finally:
        await db.close()


async def test_what_cannot_be_read_as_it_is_is_refused_when_it_is_opened(url: str) -> None:
    """No index, an alias of two, documents that are not kept; settings that mean nothing here."""
    names = [f"foreign-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    async with AsyncElasticsearch(url) as native:
        with pytest.raises(ConfigError, match="no index"):
            await opened(url, names[0])
        await native.indices.create(index=names[0], mappings={"_source": {"enabled": False}})
        await native.indices.create(index=names[1], mappings={"_source": {"excludes": ["a"]}})
        await native.indices.create(index=names[2], aliases={"foreign-both": {}, "foreign-one": {}})
        await native.indices.put_alias(index=names[1], name="foreign-both")
        try:
            for name in (*names[:2], "foreign-both"):
                with pytest.raises(ConfigError):
                    await opened(url, name)
            one = await opened(url, "foreign-one")
            assert await one.count() == 0
            await native.indices.delete(index=names[2])
            with pytest.raises(UnavailableError, match="deleted"):
                await one.count()
            await one.close()
            for wrong in ({"fulltext": "a"}, {"vectors": {"v": 2}}):
                with pytest.raises(ConfigError):
                    await opened(url, names[0], **wrong)
            with pytest.raises(ConfigError):
                await opened(url, names[0], layout="mapped", approximate=True)
        finally:
            await native.options(ignore_status=404).indices.delete(index=",".join(names))


async def test_a_field_of_vectors_is_no_query(db: AsyncDatabase) -> None:
    """`_score` needs something that ranks."""
    with pytest.raises(QueryError):
        await db.search(Query().sort("_score", "desc"))
