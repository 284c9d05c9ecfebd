"""Closing a handle whose connections are in use: it ends in time, and says who held them."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

import isthmus.native
from isthmus import AsyncDatabase, IsthmusError, Record
from isthmus._core.loop_pools import open_pools
from isthmus.errors import ClosedError
from tests.postgres.databases import fresh_name, opened, url
from tests.postgres.pools import gone

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    """Return each driver in turn."""
    return str(request.param)


async def _hold(db: AsyncDatabase) -> None:
    """Take a connection and never give it back."""
    await (await isthmus.native.postgres(db)).acquire()


async def _forgetful(driver: str, **settings: object) -> tuple[AsyncDatabase, str]:
    """Return a handle of whose connections one is forgotten, and the name of its sessions."""
    name = fresh_name()
    config = {"url": url(), "application_name": name, "driver": driver, **settings}
    db = await AsyncDatabase.create("postgres", config)
    await asyncio.create_task(_hold(db), name="the-forgetful")
    return db, name


@pytest.mark.parametrize("by", ["timeout", "deadline"])
async def test_close_does_not_wait_for_a_forgotten_connection(
    driver: str, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After `timeout`, or the config's deadline, it is dropped with a warning that names the holder."""
    settings = {"deadline": 0.4} if by == "deadline" else {}
    pools, tasks = open_pools(), asyncio.all_tasks()
    db, name = await _forgetful(driver, **settings)
    started = time.monotonic()

    with caplog.at_level(logging.WARNING, "isthmus"):
        await db.close(timeout=0.4 if by == "timeout" else None)

    assert 0.3 < time.monotonic() - started < 3
    assert "the-forgetful" in caplog.text
    assert "not closed within 0.4 s" in caplog.text
    assert await gone(url(), name)
    assert open_pools() == pools
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    with pytest.raises(ClosedError):
        await db.count()


async def test_a_handle_that_was_dropped_opens_again(driver: str) -> None:
    """`connect` leases a new pool."""
    db, name = await _forgetful(driver)
    await db.close(timeout=0.1)

    await db.connect()
    assert await db.count() >= 0
    await db.close()

    assert await gone(url(), name)


async def test_terminate_does_not_wait(driver: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is under way fails, the handle can be opened again, and the server's sessions end.

    The server looks at a socket after its statement, so that one is short.
    """
    db, name = await _forgetful(driver)
    sleeping = asyncio.create_task((await isthmus.native.postgres(db)).execute("SELECT pg_sleep(2)"))
    await asyncio.sleep(0.1)
    started = time.monotonic()

    db.terminate()
    db.terminate()

    assert time.monotonic() - started < 1
    assert "the-forgetful" in caplog.text
    with pytest.raises(Exception):  # noqa: B017  # the driver's own: the call is a native one
        await sleeping
    with pytest.raises(ClosedError):
        await db.count()
    assert await gone(url(), name)
    await db.connect()
    assert await db.count() >= 0
    await db.close()


async def test_callers_that_wait_for_a_connection_are_refused_by_terminate(driver: str) -> None:
    """At once, and not after their own timeout."""
    db, name = await _forgetful(driver, pool={"max_size": 1, "timeout": 30})
    waiting = asyncio.create_task(db.count())
    await asyncio.sleep(0.05)

    db.terminate()

    async with asyncio.timeout(2):
        with pytest.raises(IsthmusError):
            await waiting
    assert await gone(url(), name)


async def test_another_handle_on_the_pool_is_not_dropped(driver: str) -> None:
    """Handles with equal settings share a pool; the last one closes it."""
    async with opened(driver=driver) as db:
        await db.create(Record({"n": 1}, id="x"))
        settings = {"url": url(), "table": db.collection_name, "driver": driver}
        first, second = [await AsyncDatabase.create("postgres", settings) for _ in range(2)]

        first.terminate()
        await first.close(timeout=0)

        assert (await second.require("x")).data == {"n": 1}
        assert (await db.require("x")).data == {"n": 1}
        await second.close()
