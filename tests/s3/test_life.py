"""Loops, threads, forks, exits: one pool for each loop, nothing left behind, no warning."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

import isthmus.native
from isthmus import AsyncDatabase, Query, field
from isthmus._core.closing import CLOSINGS
from isthmus._core.loop_pools import open_pools
from isthmus.backends.s3.backend import S3Backend
from isthmus.errors import UsageError
from tests.s3.stores import config_for, create, ids_of, opened

pytestmark = pytest.mark.backend("s3")


async def _use(backend: S3Backend, id: str) -> list[str]:
    assert await create(backend, id) == [id]
    return await ids_of(backend)


def test_one_handle_serves_many_loops_in_turn(url: str, layout: str, transport: str) -> None:
    """Ten loops one after another, none closed by hand: right answers, and nothing registered at the end."""
    backend = S3Backend(config_for(url, layout=layout, transport=transport))
    for n in range(10):
        assert len(asyncio.run(_use(backend, f"r{n}"))) == n + 1
    asyncio.run(backend.close())
    gc.collect()

    asyncio.run(_nothing())
    assert open_pools() == 0


async def _nothing() -> None:
    async with asyncio.timeout(1):
        await asyncio.sleep(0)


def test_one_handle_serves_threads_with_their_own_loops(url: str, layout: str, transport: str) -> None:
    """Four threads at once."""
    backend = S3Backend(config_for(url, layout=layout, transport=transport))
    failed: list[BaseException] = []

    def work(tag: str) -> None:
        async def main() -> None:
            for n in range(5):
                await create(backend, f"{tag}{n}")

        try:
            asyncio.run(main())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(tag,)) for tag in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert len(asyncio.run(ids_of(backend))) == 20
    asyncio.run(backend.close())


def test_a_forked_child_works_by_itself(url: str, layout: str) -> None:
    """obstore would hang in the child: there it is aioboto3, without being asked."""
    backend = S3Backend(config_for(url, layout=layout))
    asyncio.run(_use(backend, "parent"))

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if asyncio.run(_use(backend, "child")) == ["child", "parent"] else 2
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert asyncio.run(_use(backend, "third")) == ["child", "parent", "third"]
    asyncio.run(backend.close())


PROGRAM = """
import asyncio, sys
from tests.s3.stores import config_for, create, every
from isthmus.backends.s3.backend import S3Backend

async def main():
    backend = S3Backend(config_for(sys.argv[1], layout=sys.argv[2], transport=sys.argv[3]))
    await create(backend, *(f"r{n}" for n in range(50)))
    assert len(await every(backend)) == 50
    if sys.argv[4] == "close":
        await backend.close()

asyncio.run(main())
"""


def test_a_program_ends_in_silence(url: str, layout: str, transport: str) -> None:
    """Closed or not: exit code 0 and not one word (obstore 0.12 alone aborts now and then)."""
    for how in ("close", "leave", "close"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM, url, layout, transport, how],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=Path(__file__).parents[2],
        )

        assert (done.returncode, done.stderr) == (0, ""), how


@pytest.mark.asyncio
async def test_the_native_client_is_one_step_away(url: str) -> None:
    """It is this loop's aioboto3 client, and another backend's is refused."""
    async with AsyncDatabase("s3", {"url": url, "prefix": "native"}) as db:
        await db.upsert("a", {"n": 1})
        client = await isthmus.native.s3(db)
        found = await client.list_objects_v2(Bucket="isthmus-test", Prefix="native/")
        assert "native/a!.json" in [each["Key"] for each in found["Contents"]]
        with pytest.raises(UsageError):
            await isthmus.native.postgres(db)
        await db.clear()


@pytest.mark.asyncio
async def test_a_request_under_way_does_not_connect_again(url: str) -> None:
    """The client was closed by `terminate`: what connects after that, nobody closes."""
    db = await AsyncDatabase.create("s3", {"url": url, "transport": "aioboto3"})
    client = await isthmus.native.s3(db)
    await client.list_objects_v2(Bucket="isthmus-test", MaxKeys=1)
    db.terminate()
    await CLOSINGS.drain()

    with pytest.raises(EndpointConnectionError):
        await client.list_objects_v2(Bucket="isthmus-test", MaxKeys=1)
    await asyncio.sleep(0)
    gc.collect()  # an open session would warn, and such a warning fails the test


@pytest.mark.asyncio
async def test_the_facade_searches_sorts_streams_and_counts(url: str, layout: str, transport: str) -> None:
    """The public surface over S3, with what the store cannot do done here."""
    settings = {
        "url": url,
        "layout": layout,
        "transport": transport,
        "prefix": f"facade-{layout}-{transport}",
    }
    async with AsyncDatabase("s3", settings) as db:
        await db.clear()
        await db.create_batch([{"n": n, "city": ["Lima", "Oslo"][n % 2]} for n in range(50)])
        found = await db.search(Query().filter("city", "=", "Lima").sort("n", "desc").limit(3))
        assert [record["n"] for record in found] == [48, 46, 44]
        assert await db.count(field("city") == "Oslo") == 25
        assert sum([1 async for _ in db.stream(field("n") >= 10)]) == 40
        assert await db.clear() == 50


@pytest.mark.asyncio
async def test_handles_with_equal_settings_share_a_pool_and_others_do_not(url: str) -> None:
    """A pool's key is everything that matters, the secret included."""
    before = open_pools()
    async with opened(url) as one, opened(url, prefix=one.config.prefix) as two:
        assert await one._requests() is await two._requests()
        assert open_pools() == before + 1
        async with opened(url, pool={"max_connections": 2}) as three:
            assert await three._requests() is not await one._requests()
    assert open_pools() == before
