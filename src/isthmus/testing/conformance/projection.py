"""Projection: only the selected paths, in their original structure."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import put_one, read_pages, store_people


@pytest.mark.asyncio
async def test_selected_paths_keep_their_structure(db: AsyncDatabase) -> None:
    """Enclosing objects and lists are kept; missing fields are not added (§4)."""
    await store_people(db)
    query = Query().select("name", "address.city", "items.price").sort("_id").limit(3)

    records = await db.search(query)

    assert [r.data for r in records] == [
        {"name": "Alice", "address": {"city": "Paris"}, "items": [{"price": 5}, {"price": 50}]},
        {"name": "Bob", "address": {"city": "Nice"}},
        {"name": "Carol"},
    ]
    assert [r.data async for r in db.stream(query)] == [r.data for r in records]
    assert [r.data for r in (await db.page(query)).records][:3] == [r.data for r in records]


@pytest.mark.asyncio
async def test_a_projection_changes_neither_match_nor_order(db: AsyncDatabase) -> None:
    """Filter and sort see all fields; id, version and metadata are kept."""
    await put_one(db, Record({"a": 1, "b": 2}, id="x", metadata={"m": 1}))
    await put_one(db, Record({"a": 2, "b": 1}, id="y"))

    [first, second] = await db.search(Query().filter("a", ">", 0).sort("b").select("a"))

    assert (first.id, first.data) == ("y", {"a": 2})
    assert (second.id, second.data, second.metadata) == ("x", {"a": 1}, {"m": 1})
    assert second.version == (await db.require("x")).version
    pages = await read_pages(db, Query().sort("b").select("a"), 1)
    assert [[r.data for r in page] for page in pages] == [[{"a": 2}], [{"a": 1}]]


@pytest.mark.asyncio
async def test_selecting_missing_fields_returns_empty_data(db: AsyncDatabase) -> None:
    """The records still match; an empty selection is refused."""
    await store_people(db)

    assert [r.data for r in await db.search(Query().select("nothing", "name.x"))] == [{}] * 5
    assert [r.data async for r in db.stream(Query().select("nothing"), page_size=2)] == [{}] * 5
    with pytest.raises(QueryError):
        Query().select()


@pytest.mark.asyncio
async def test_a_null_and_a_key_with_a_dot_are_selected(db: AsyncDatabase) -> None:
    """Null is returned; `["a.b"]` names a single key."""
    await put_one(db, Record({"a": None, "a.b": 1, "c": [{"d": None}, {"e": 1}]}, id="x"))

    [record] = await db.search(Query().filter(field("_id") == "x").select("a", ["a.b"], "c.d"))

    assert record.data == {"a": None, "a.b": 1, "c": [{"d": None}]}
