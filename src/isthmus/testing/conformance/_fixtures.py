"""Fixtures and helpers of the conformance tests: empty database, selection by capability, sample records."""

from __future__ import annotations

import functools
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, Query, Record
from isthmus._collection import CollectionMethods
from isthmus._ids import new_id
from isthmus._query.ast import Predicate
from isthmus.errors import UnsupportedError

Database: TypeAlias = Callable[[], Awaitable[AsyncDatabase]]
Test: TypeAlias = Callable[..., Awaitable[None]]

_nodes: weakref.WeakKeyDictionary[AsyncDatabase, pytest.Item] = weakref.WeakKeyDictionary()


@pytest_asyncio.fixture
async def db(database: Database, request: pytest.FixtureRequest) -> AsyncIterator[AsyncDatabase]:
    """Yield a handle on an empty collection; drop or clear the collection afterwards."""
    handle = await database()
    _nodes[handle] = request.node
    try:
        yield handle
    finally:
        if handle.closed:
            await handle.connect()
        await drop_collection(handle, handle.collection_name)
        await handle.close()


async def drop_collection(handle: AsyncDatabase, collection: str) -> None:
    """Drop a collection, or clear it if the backend cannot drop."""
    if handle.capabilities.drop:
        await handle.drop_collection(collection)
    else:
        await handle.collection(collection).clear()


def requires(*capabilities: str) -> Callable[[Test], Test]:
    """Run a test if the backend has the capabilities, else assert that the calls are refused.

    The refusal is an `UnsupportedError` that names one of the missing capabilities.
    """

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        async def run_or_expect_refusal(db: AsyncDatabase, **arguments: Any) -> None:
            missing = [name for name in capabilities if not getattr(db.capabilities, name)]
            if not missing:
                await test(db=db, **arguments)
                return
            with pytest.raises(UnsupportedError) as refused:
                await test(db=db, **arguments)
            assert refused.value.capability in missing
            _nodes[db].user_properties += [
                ("refused", refused.value.capability),
                ("because", str(refused.value)),
            ]

        return run_or_expect_refusal

    return decorate


PEOPLE: dict[str, dict[str, Any]] = {
    "alice": {
        "name": "Alice",
        "age": 30,
        "score": 1.5,
        "active": True,
        "city": "Paris",
        "tags": ["red", "blue"],
        "address": {"city": "Paris", "zip": "75001"},
        "items": [{"sku": "a", "price": 5}, {"sku": "b", "price": 50}],
    },
    "bob": {
        "name": "Bob",
        "age": 5,
        "score": 2.0,
        "active": False,
        "city": None,
        "tags": [],
        "address": {"city": "Nice"},
        "items": [],
    },
    "carol": {"name": "Carol", "age": 100, "score": 2, "active": True, "tags": "red", "address": None},
    "dan": {
        "name": "dan",
        "age": 10,
        "score": -1.25,
        "active": True,
        "city": "Berlin",
        "tags": ["green"],
        "items": [{"sku": "a", "price": 20}],
    },
    "eve": {"name": "EVE_%", "age": None, "city": "paris", "tags": ["red", ["blue", ["deep"]]]},
}
"""Five people: ages 30, 5, 100, 10, null; scores 1.5, 2.0, 2, -1.25, missing; cities set, null, missing."""


async def store_people(db: AsyncDatabase) -> None:
    """Store `PEOPLE` with their names as ids."""
    await store(db, PEOPLE)


async def store(db: AsyncDatabase, records: dict[str, dict[str, Any]]) -> None:
    """Store records given as data by id."""
    await put(db, [Record(data, id=id) for id, data in records.items()])


async def put(db: CollectionMethods, records: Sequence[Record | Mapping[str, Any]]) -> list[str]:
    """Store records on any backend and return their ids.

    Upserts them if the backend refuses `create`, as it does without `conditional_create`.
    """
    if db.capabilities.conditional_create:
        return list(await db.create_batch(records))
    typed = [r if isinstance(r, Record) else Record(r) for r in records]
    with_ids = [r if r.id else Record(r.data, id=new_id(), metadata=r.metadata) for r in typed]
    await db.upsert_batch(with_ids)
    return [record.id or "" for record in with_ids]


async def put_one(db: CollectionMethods, record: Record | Mapping[str, Any]) -> str:
    """Store one record on any backend and return its id."""
    if db.capabilities.conditional_create:
        return await db._insert(record)
    return (await put(db, [record]))[0]


async def find_ids(db: AsyncDatabase, query: Query | Predicate) -> set[str | None]:
    """Return the ids of the records that match; checks that search, count, stream and exists agree."""
    ids = [record.id for record in await db.search(query)]
    assert len(set(ids)) == len(ids), "a record was found twice"
    if not isinstance(query, Query):
        assert await db.count(query) == len(ids)
        assert {record.id async for record in db.stream(query)} == set(ids)
        assert await db.exists(query) == bool(ids)
    return set(ids)


async def list_ids(db: AsyncDatabase, query: Query | Predicate) -> list[str | None]:
    """Return the ids of the records that match, in order."""
    return [record.id for record in await db.search(query)]


async def read_pages(db: AsyncDatabase, query: Query, size: int) -> list[list[Record]]:
    """Return the records of all pages of a query; each record has its page only."""
    page = await db.page(query, size=size)
    pages, seen = [page.records], {record.id for record in page.records}
    while page.cursor is not None:
        page = await db.page(query, size=size, cursor=page.cursor)
        ids = {record.id for record in page.records}
        assert seen.isdisjoint(ids), f"on two pages: {seen & ids}"  # such pages may have no end
        seen |= ids
        pages.append(page.records)
    return pages


def id_set(names: Iterable[str] | str) -> set[str | None]:
    """Return `"alice bob"` as a set of ids."""
    return set(names.split() if isinstance(names, str) else names)
