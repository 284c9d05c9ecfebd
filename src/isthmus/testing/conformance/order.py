"""Order: total, across types, records without a value last by default, the id as the last key."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, field
from isthmus._query.ast import Predicate
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import id_set, list_ids, read_pages, store, store_people

ORDERS: dict[str, tuple[Query, str]] = {
    "number": (Query().sort("age"), "bob dan alice carol eve"),
    "number, descending": (Query().sort("age", "desc"), "carol alice dan bob eve"),
    "nulls first": (Query().sort("age", nulls="first"), "eve bob dan alice carol"),
    "descending, nulls first": (Query().sort("age", "desc", nulls="first"), "eve carol alice dan bob"),
    "ties by id": (Query().sort("score"), "dan alice bob carol eve"),
    "ties by id, descending": (Query().sort("score", "desc"), "bob carol alice dan eve"),
    "text by code point": (Query().sort("name"), "alice bob carol eve dan"),
    "null and missing tie": (Query().sort("city"), "dan alice eve bob carol"),
    "text descending, missing last": (Query().sort("city", "desc"), "eve alice dan bob carol"),
    "bool": (Query().sort("active"), "bob alice carol dan eve"),
    "two keys": (Query().sort("active", "desc").sort("age"), "dan alice carol bob eve"),
    "list by its smallest": (Query().sort("items.price"), "alice dan bob carol eve"),
    "list by its largest": (Query().sort("items.price", "desc"), "alice dan bob carol eve"),
    "nested list": (Query().sort("tags"), "alice eve dan carol bob"),
    "nested list, largest": (Query().sort("tags", "desc"), "alice carol eve dan bob"),
    "path": (Query().sort("address.city"), "bob alice carol dan eve"),
    "unknown field": (Query().sort("nothing", "desc"), "alice bob carol dan eve"),
    "id, descending": (Query().sort("_id", "desc"), "eve dan carol bob alice"),
    "no sort is by id": (Query(), "alice bob carol dan eve"),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.asyncio
async def test_records_come_in_this_order(db: AsyncDatabase, name: str) -> None:
    """search, stream and pages agree, with any offset and limit (§4)."""
    query, expected = ORDERS[name]
    await store_people(db)
    ids = expected.split()

    assert await list_ids(db, query) == ids
    if query.order:
        assert [r.id async for r in db.stream(query, page_size=2)] == ids
    for skip in range(6):
        for count in (0, 1, 2, 9):
            assert await list_ids(db, query.offset(skip).limit(count)) == ids[skip : skip + count]
    assert [r.id for page in await read_pages(db, query, 2) for r in page] == ids


MIXED: dict[str, Any] = {
    "false": False,
    "true": True,
    "minus": -5,
    "one": 1,
    "big": 2**62,
    "empty": "",
    "text": "a",
    "zz": "zz",
    "object": {"x": 1},
    "other": {},
    "null": None,
    "nothing": [],
    "mixed": [True, "b", 3],
    "deep": [[[None, 0.5]]],
}


_ASCENDING = "false mixed true minus deep one big empty text zz object other"
_DESCENDING = "object other zz mixed text empty big one deep minus true false"


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("nulls", ["first", "last"])
@pytest.mark.asyncio
async def test_values_of_different_types_are_ordered_by_type(
    db: AsyncDatabase, direction: Any, nulls: Any
) -> None:
    """bool < number < text < object; a list sorts by its smallest or largest value; objects tie (§4)."""
    await store(db, {id: {"v": value} for id, value in MIXED.items()})
    expected = (_ASCENDING if direction == "asc" else _DESCENDING).split()
    none = ["nothing", "null"]

    assert await list_ids(db, Query().sort("v", direction, nulls=nulls)) == (
        [*none, *expected] if nulls == "first" else [*expected, *none]
    )


OF_ONE_TYPE: dict[str, tuple[Predicate, str]] = {
    "bool": (field("v").in_([True, False]), "false true mixed"),
    "number": (field("v") > -9, "minus one big mixed deep"),
    "text": (field("v").starts_with(""), "empty text zz mixed"),
    "object": (field("v") == {"x": 1}, "object"),
    "none": (field("v").is_null(), "null nothing"),
    "not a number": (~(field("v") > -9) & field("v").exists(), "false true empty text zz object other"),
}


@pytest.mark.parametrize("name", OF_ONE_TYPE)
@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.asyncio
async def test_pages_sorted_by_the_field_of_the_condition(
    db: AsyncDatabase, name: str, direction: Any
) -> None:
    """A list may sort by a value of another type than the one that matches; pages continue correctly."""
    await store(db, {id: {"v": value} for id, value in MIXED.items()})
    condition, matching = OF_ONE_TYPE[name]
    order = [*(_ASCENDING if direction == "asc" else _DESCENDING).split(), "nothing", "null"]

    pages = await read_pages(db, Query().filter(condition).sort("v", direction), 1)

    assert [r.id for page in pages for r in page] == [id for id in order if id in matching.split()]


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.asyncio
async def test_long_texts_with_a_common_prefix_are_ordered(db: AsyncDatabase, direction: Any) -> None:
    """They sort by code point, also beyond the length that an index holds, and across pages."""
    texts = ["x" * 300 + end for end in ("", "A", "a", "B", "b", "Z", "é", "É", "_", "1", "💥")]
    await store(db, {f"{n:02}": {"t": text} for n, text in enumerate(texts)})
    expected = [f"{texts.index(t):02}" for t in sorted(texts, reverse=direction == "desc")]
    query = Query().sort("t", direction)

    assert await list_ids(db, query) == expected
    assert await list_ids(db, query.limit(4)) == expected[:4]
    assert [r.id async for r in db.stream(query, page_size=2)] == expected


@pytest.mark.asyncio
async def test_limit_and_offset_work_without_each_other(db: AsyncDatabase) -> None:
    """A limit of 0 returns nothing, an offset needs no limit, and without a sort both apply in id order."""
    await store_people(db)

    assert await list_ids(db, Query().limit(0)) == []
    assert await list_ids(db, Query().offset(2)) == ["carol", "dan", "eve"]
    assert await list_ids(db, Query().limit(2)) == ["alice", "bob"]
    assert await list_ids(db, Query().offset(9)) == []
    assert await list_ids(db, Query().filter("age", ">", 9).sort("age").offset(1).limit(1)) == ["alice"]
    assert await list_ids(db, Query().limit(2**40).offset(4)) == ["eve"]


@pytest.mark.parametrize("bad", [-1, 1.5, True, "3", None])
@pytest.mark.asyncio
async def test_an_invalid_limit_is_refused(db: AsyncDatabase, bad: Any) -> None:
    """Also an invalid offset, direction or position of nulls (§4)."""
    with pytest.raises(QueryError):
        Query().limit(bad)
    with pytest.raises(QueryError):
        Query().offset(bad)
    with pytest.raises(QueryError):
        Query().sort("age", "up")  # type: ignore[arg-type]
    with pytest.raises(QueryError):
        Query().sort("age", nulls="middle")  # type: ignore[arg-type]
    assert await db.count() == 0


@pytest.mark.asyncio
async def test_find_one_is_the_first_in_order(db: AsyncDatabase) -> None:
    """Or None if no record matches."""
    await store_people(db)

    first = await db.find_one(Query().sort("age", "desc"))

    assert first is not None
    assert first.id == "carol"
    assert await db.find_one(field("age") > 1_000) is None
    assert {(await db.find_one()).id} <= id_set("alice")  # type: ignore[union-attr]
