"""Pages by cursor: they never overlap, can be resumed, and are valid only for their own query."""

from __future__ import annotations

from typing import Literal

import pytest

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import QueryError
from isthmus.testing.conformance._fixtures import put, put_one, read_pages, store, store_people


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 100])
@pytest.mark.asyncio
async def test_pages_return_each_record_once(db: AsyncDatabase, size: int) -> None:
    """With any page size; the last page has no cursor, and only a single page may be empty."""
    await store(db, {f"{n:02}": {"g": n % 3 if n % 5 else None} for n in range(20)})
    query = Query().sort("g", "desc")
    expected = [r.id for r in await db.search(query)]

    pages = await read_pages(db, query, size)

    assert [r.id for page in pages for r in page] == expected
    assert all(len(page) == size for page in pages[:-1])
    assert len(pages[-1]) > 0


@pytest.mark.asyncio
async def test_a_cursor_continues_after_the_page_despite_changes(db: AsyncDatabase) -> None:
    """Changes before the cursor do not shift the next page; changes after it are visible."""
    await store(db, {f"{n}": {"n": n} for n in range(6)})
    query = Query().sort("n")
    first = await db.page(query, size=2)

    await db.delete("0")
    await db.delete("1")
    await put_one(db, Record({"n": -1}, id="before"))
    await put_one(db, Record({"n": 2.5}, id="after"))
    rest = await db.page(query, size=10, cursor=first.cursor)

    assert [r.id for r in first.records] == ["0", "1"]
    assert [r.id for r in rest.records] == ["2", "after", "3", "4", "5"]
    assert rest.cursor is None


@pytest.mark.asyncio
async def test_a_cursor_is_text_that_can_be_stored(db: AsyncDatabase) -> None:
    """It can be used repeatedly, with another page size, and by another handle of the same configuration."""
    await store_people(db)
    query = Query().filter("age", ">", 1).sort("age")
    token = (await db.page(query, size=1)).cursor
    assert isinstance(token, str)

    assert [r.id for r in (await db.page(query, size=1, cursor=token)).records] == ["dan"]
    assert [r.id for r in (await db.page(query, size=9, cursor=token)).records] == ["dan", "alice", "carol"]
    derived = db.options(deadline=60)
    assert [r.id for r in (await derived.page(query, size=1, cursor=token)).records] == ["dan"]


@pytest.mark.asyncio
async def test_a_cursor_of_another_query_is_refused(db: AsyncDatabase) -> None:
    """Other conditions, another order or collection, a modified or invalid cursor: QueryError."""
    await store_people(db)
    query = Query().filter("age", ">", 1).sort("age")
    token = (await db.page(query, size=1)).cursor
    assert token is not None
    flipped = ("B" if token[10] != "B" else "C").join([token[:10], token[11:]])

    for other in (
        Query().filter("age", ">", 2).sort("age"),
        Query().filter("age", ">", 1).sort("age", "desc"),
        Query().filter("age", ">", 1).sort("name"),
        Query().filter("age", ">", 1),
    ):
        with pytest.raises(QueryError):
            await db.page(other, size=1, cursor=token)
    for bad in (flipped, token[:-1], token + "A", "", "x", "é", "===="):
        with pytest.raises(QueryError):
            await db.page(query, size=1, cursor=bad)
    with pytest.raises(QueryError):
        await db.collection(db.collection_name + "2").page(query, size=1, cursor=token)


@pytest.mark.asyncio
async def test_an_empty_or_exactly_full_page_is_the_last(db: AsyncDatabase) -> None:
    """If the records fill a page exactly, no page follows it."""
    await store_people(db)

    nothing = await db.page(field("age") > 1_000)
    exact = await db.page(Query(), size=5)

    assert (nothing.records, nothing.cursor) == ([], None)
    assert (len(exact.records), exact.cursor) == (5, None)


@pytest.mark.asyncio
async def test_a_page_size_of_zero_and_an_offset_are_refused(db: AsyncDatabase) -> None:
    """Pages continue by cursor, not by offset."""
    with pytest.raises(QueryError):
        await db.page(Query(), size=0)
    with pytest.raises(QueryError):
        await db.page(Query().offset(1))
    with pytest.raises(QueryError):
        await db.page(Query().limit(0))


@pytest.mark.asyncio
async def test_pages_with_ids_and_values_that_are_hard_to_encode(db: AsyncDatabase) -> None:
    """A cursor encodes any position: long texts, large integers, emoji, objects, null."""
    values = ["x" * 9_000, 2**63 - 1, -(2**63), 1e-320, "💥", "", {"a": 1}, None, True, [2**53 + 1], "a\nb"]
    await put(db, [Record({"v": value}, id=f"é/{n}") for n, value in enumerate(values)])

    for direction in ("asc", "desc"):
        query = Query().sort("v", direction)
        ids = [r.id for page in await read_pages(db, query, 1) for r in page]
        assert ids == [r.id for r in await db.search(query)]
        assert len(set(ids)) == len(values)


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.asyncio
async def test_pages_of_numbers_then_texts_then_nothing(
    db: AsyncDatabase, direction: Literal["asc", "desc"]
) -> None:
    """A page that ends with a value of another type than the field's goes on with the records without one."""
    await put_one(db, Record({"n": 1}, id="m"))
    await put(
        db, [Record({"n": 7}, id="k"), Record({"n": "text"}, id="t"), Record({}, id="a"), Record({}, id="z")]
    )
    query = Query().sort("n", direction)

    ids = [r.id for page in await read_pages(db, query, 1) for r in page]

    assert ids == (["m", "k", "t", "a", "z"] if direction == "asc" else ["t", "k", "m", "a", "z"])


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.asyncio
async def test_pages_of_whole_numbers_near_their_limits(
    db: AsyncDatabase, direction: Literal["asc", "desc"]
) -> None:
    """A page that ends with a value of another type goes on before the lowest number or after the highest."""
    await put_one(db, Record({"n": 2**53 + 1}, id="w"))
    values = {"l": -(2**63) + 1, "h": 2**63 - 2, "b": True, "t": "text"}
    await put(db, [*(Record({"n": value}, id=id) for id, value in values.items()), Record({}, id="z")])
    query = Query().sort("n", direction)

    ids = [r.id for page in await read_pages(db, query, 1) for r in page]

    assert ids == (["b", "l", "w", "h", "t", "z"] if direction == "asc" else ["t", "h", "w", "l", "b", "z"])
