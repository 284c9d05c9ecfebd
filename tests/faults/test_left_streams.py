"""Streams whose handle ends before they do, on a pool that another handle shares: nothing stays in use."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, Query
from tests.postgres.databases import fresh_name, url
from tests.postgres.pools import until

POSTGRES = pytest.mark.backend("postgres")
STORES = [
    pytest.param("sqlite", marks=pytest.mark.backend("sqlite")),
    pytest.param("asyncpg", marks=POSTGRES),
    pytest.param("psycopg", marks=POSTGRES),
]
SORTED = Query().sort("n")


def _settings_of(store: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """Return a backend and its config; equal ones share a pool."""
    name = fresh_name()
    if store == "sqlite":
        return "sqlite", {"path": str(folder / "store.db"), "table": name}
    return "postgres", {"url": url(), "table": name, "driver": store, "application_name": name}


@pytest.fixture(params=STORES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    return _settings_of(request.param, tmp_path)


@pytest_asyncio.fixture
async def db(settings: tuple[str, dict[str, Any]]) -> AsyncIterator[AsyncDatabase]:
    """Yield the handle that stays."""
    made = await AsyncDatabase.create(*settings)
    await made.create_batch([{"n": n} for n in range(30)])
    yield made
    await made.drop_collection(made.collection_name)
    await made.close()


async def begin(handle: AsyncDatabase, *, consistent: bool) -> Any:
    """Return a stream that has begun, and holds a connection."""
    stream = handle.stream(SORTED, page_size=5, consistent=consistent)
    async for _ in stream:
        break
    return stream


@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.parametrize("way", ["close", "close at once", "terminate"])
@pytest.mark.asyncio
async def test_a_handle_that_ends_takes_its_streams_along(
    db: AsyncDatabase, settings: tuple[str, dict[str, Any]], way: str, consistent: bool
) -> None:
    other = await AsyncDatabase.create(*settings)
    stream = await begin(other, consistent=consistent)
    assert db.stats().pool.in_use == 1
    if way == "terminate":
        other.terminate()
    else:
        await other.close(timeout=0 if way == "close at once" else None)
    await until(lambda: db.stats().pool.in_use == 0)
    assert stream is not None  # it is not what was collected
    assert await db.count() == 30


@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.asyncio
async def test_a_stream_that_is_collected_together_with_its_handle_ends(
    db: AsyncDatabase, settings: tuple[str, dict[str, Any]], consistent: bool
) -> None:
    """In one cycle: the weak references in it are gone when the stream's finalizer runs."""
    other = await AsyncDatabase.create(*settings)
    cycle: list[Any] = [other, await begin(other, consistent=consistent)]
    cycle.append(cycle)
    await asyncio.sleep(0)
    del other, cycle
    gc.collect()
    await until(lambda: db.stats().pool.in_use == 0)


@pytest.mark.asyncio
async def test_a_page_that_is_under_way_does_not_keep_its_connection(
    db: AsyncDatabase, settings: tuple[str, dict[str, Any]]
) -> None:
    """Whatever the page was doing when its handle ended: opening its snapshot or reading."""
    for turns in range(0, 12):
        other = await AsyncDatabase.create(*settings)
        stream = other.stream(SORTED, page_size=5, consistent=True)
        page = asyncio.ensure_future(anext(aiter(stream)))
        for _ in range(turns):
            await asyncio.sleep(0)
        other.terminate()
        await asyncio.wait([page])
        await until(lambda: db.stats().pool.in_use == 0)
        if not page.cancelled():
            page.exception()


@pytest.mark.parametrize("store", STORES)
def test_a_handle_keeps_no_loop_that_is_closed(store: str, tmp_path: Path) -> None:
    """But the last one, until it is used on another."""
    backend, config = _settings_of(store, tmp_path)

    async def start() -> AsyncDatabase:
        return await AsyncDatabase.create(backend, config)

    db = asyncio.run(start())
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def use() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert [record async for record in db.stream(SORTED)] == []

    for _ in range(5):
        asyncio.run(use())
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1

    async def end() -> None:
        await db.drop_collection(db.collection_name)
        await db.close()

    asyncio.run(end())
