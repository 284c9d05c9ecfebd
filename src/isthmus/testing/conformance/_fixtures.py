"""What the tests share: a fresh database, the choice by capability, and a few records to ask about."""

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
    """Open a handle on an empty collection; drop or clear that in the end."""
    handle = await database()
    _nodes[handle] = request.node
    try:
        yield handle
    finally:
        if handle.closed:
            await handle.connect()
        await discarded(handle, handle.collection_name)
        await handle.close()


async def discarded(handle: AsyncDatabase, collection: str) -> None:
    """Drop a collection where that can be done, else clear it."""
    drop = getattr(handle._backend, "drop", None)
    if handle.capabilities.drop and drop is not None:
        await drop(collection)
    else:
        await handle.collection(collection).clear()


def requires(*capabilities: str) -> Callable[[Test], Test]:
    """Run a test where the backend has the capabilities; elsewhere assert that it is refused.

    The refusal is an `UnsupportedError` that names one of the missing capabilities.
    """

    def decorated(test: Test) -> Test:
        @functools.wraps(test)
        async def judged(db: AsyncDatabase, **arguments: Any) -> None:
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

        return judged

    return decorated


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
"""Five people: ages 30, 5, 100, 10, null; scores 1.5, 2.0, 2, -1.25, none; cities set, null, missing."""


async def people(db: AsyncDatabase) -> None:
    """Store the five people under their names."""
    await stored(db, PEOPLE)


async def stored(db: AsyncDatabase, records: dict[str, dict[str, Any]]) -> None:
    """Store data by id."""
    await put(db, [Record(data, id=id) for id, data in records.items()])


async def put(db: CollectionMethods, records: Sequence[Record | Mapping[str, Any]]) -> list[str]:
    """Store records, whatever the backend can, and return their ids.

    Where `create` is refused (without `conditional_create` it could not be kept), by `upsert`.
    """
    if db.capabilities.conditional_create:
        return list(await db.create_batch(records))
    named = [r if isinstance(r, Record) else Record(r) for r in records]
    whole = [r if r.id else Record(r.data, id=new_id(), metadata=r.metadata) for r in named]
    await db.upsert_batch(whole)
    return [record.id or "" for record in whole]


async def put_one(db: CollectionMethods, record: Record | Mapping[str, Any]) -> str:
    """Store a record like `put`, and return its id."""
    if db.capabilities.conditional_create:
        return await db._insert(record)
    return (await put(db, [record]))[0]


async def found(db: AsyncDatabase, query: Query | Predicate) -> set[str | None]:
    """Return the ids that a query finds, having asked in every way that must agree."""
    ids = [record.id for record in await db.search(query)]
    assert len(set(ids)) == len(ids), "a record was found twice"
    if not isinstance(query, Query):
        assert await db.count(query) == len(ids)
        assert {record.id async for record in db.stream(query)} == set(ids)
        assert await db.exists(query) == bool(ids)
    return set(ids)


async def listed(db: AsyncDatabase, query: Query | Predicate) -> list[str | None]:
    """Return the ids that a query finds, in order."""
    return [record.id for record in await db.search(query)]


def ids(names: Iterable[str] | str) -> set[str | None]:
    """Return `"alice bob"` as a set of ids."""
    return set(names.split() if isinstance(names, str) else names)
