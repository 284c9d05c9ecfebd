"""A handle that is closed or terminated while its calls are under way: nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Awaitable

import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, native
from isthmus._core.loop_pools import open_pools
from isthmus.errors import ClosedError, IsthmusError, UnsupportedError
from tests.postgres.databases import fresh_name, url
from tests.stores import parameters, store_of


@pytest_asyncio.fixture(params=parameters())
async def db(request: pytest.FixtureRequest) -> AsyncIterator[AsyncDatabase]:
    """Yield a handle on a collection of its own, which another handle deletes at the end."""
    made = await store_of(request.param).open()
    yield made
    with contextlib.suppress(ClosedError):
        await made.close()
    await made.connect()
    if made.capabilities.drop:
        await made.drop_collection(made.collection_name)
        await made.drop_collection(f"{made.collection_name}_new")
    await made.close()


async def _write(db: AsyncDatabase, number: int) -> None:
    if number % 2 and db.capabilities.transactions:
        async with db.transaction() as transaction:
            await transaction.upsert(f"t{number}", {"n": number})
    else:
        await db.update("x", {f"k{number}": number})


@pytest.mark.asyncio
@pytest.mark.breadth(3)
@pytest.mark.parametrize("steps", [0, 1, 3, 30])
@pytest.mark.parametrize("way", ["close", "close at once", "terminate"])
async def test_nothing_is_left_of_calls_under_way(
    db: AsyncDatabase, way: str, steps: int, request: pytest.FixtureRequest
) -> None:
    """Each call ends with its result or one typed error; the handle stays closed, and its pool is gone."""
    pools = open_pools()
    await db.upsert("x", {})
    calls = [asyncio.create_task(_write(db, number)) for number in range(12)]
    calls.append(asyncio.create_task(db.collection(f"{db.collection_name}_new").upsert("y", {})))
    for _ in range(steps):
        await asyncio.sleep(0)

    if way == "terminate":
        db.terminate()
    else:
        await db.close(timeout=0 if way == "close at once" else None)
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert all(outcome is None or isinstance(outcome, (str, IsthmusError)) for outcome in outcomes), outcomes
    if way == "close":
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        # moto has no conditional writes, which a create, an update and a replace need.
        refused = UnsupportedError if "moto" in request.node.name else ClosedError
        assert all(isinstance(outcome, ClosedError | refused) for outcome in failed), failed
    assert db.closed
    async with asyncio.timeout(5):
        while open_pools() >= max(pools, 1) and db.backend != "memory":
            await asyncio.sleep(0.01)
    gc.collect()  # of what was not closed, Python warns, and such a warning fails the test


@pytest.mark.asyncio
async def test_a_closed_handle_has_no_native_client(db: AsyncDatabase) -> None:
    """It would lease a pool that nobody closes."""
    clients = {
        "postgres": native.postgres,
        "elasticsearch": native.elasticsearch,
        "s3": native.s3,
        "sqlalchemy": native.sqlalchemy,
    }
    client = clients.get(db.backend)
    if client is None:
        return
    await db.close()

    with pytest.raises(ClosedError):
        await client(db)
    with pytest.raises(ClosedError):
        await client(db.options(deadline=5))
    assert open_pools() == 0


@pytest.mark.backend("postgres")
@pytest.mark.asyncio
async def test_a_transaction_that_begins_on_another_loop_ends_with_the_handle() -> None:
    """Its pool is opened after the others were dropped: nobody may wait for its connection."""
    opening, terminated = threading.Event(), threading.Event()

    async def init(connection: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            opening.set()
            await asyncio.to_thread(terminated.wait, 10)

    settings = {"url": url(), "table": fresh_name(), "pool": {"init": init}}
    db = await AsyncDatabase.create("postgres", settings)
    begun = db.transaction()
    beginning = asyncio.create_task(asyncio.to_thread(asyncio.run, _enter(begun.__aenter__())))
    assert await asyncio.to_thread(opening.wait, 10)

    db.terminate()
    terminated.set()

    async with asyncio.timeout(20):
        with pytest.raises(ClosedError):
            await beginning
    assert db.closed
    async with await AsyncDatabase.create("postgres", settings) as again:
        await again.drop_collection(again.collection_name)
    async with asyncio.timeout(5):
        while open_pools():
            await asyncio.sleep(0.01)


async def _enter(entering: Awaitable[object]) -> None:
    async with asyncio.timeout(10):
        await entering
