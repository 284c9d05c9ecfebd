"""Settings seen in what stores are sent, or in what calls return; and that each setting has such a test."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isthmus import AlreadyExistsError, AsyncDatabase, native
from isthmus.backends.files.bucket import _bucket_settings
from isthmus.backends.files.config import FilesConfig
from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.transport.requests import Requests
from isthmus.backends.s3.transport.session import find_keys
from isthmus.errors import IsthmusError, PoolTimeoutError
from tests.files.folder import opened, rows, write
from tests.settings.effects import EFFECTS, functions_of
from tests.settings.table import SAMPLES, config_of

pytestmark = pytest.mark.asyncio

NOT_SEEN = {("elasticsearch", name) for name in ("pool.connections", "bulk.concurrency", "update_attempts")}
"""Settings that are read, as the table's tests see, but whose effect no test looks at."""


@pytest.mark.parametrize("backend", SAMPLES)
async def test_each_setting_has_a_test_of_its_effect(backend: str) -> None:
    """The test exists, and names the setting or another spelling of it."""
    effects = EFFECTS[backend]
    unseen = {setting for name, setting in NOT_SEEN if name == backend}

    assert effects.keys() | unseen == SAMPLES[backend].keys()
    assert not effects.keys() & unseen
    for setting, effect in effects.items():
        file, _, name = effect.test.partition("::")
        test = functions_of(file)[name]
        spellings = config_of(backend).spellings
        words = {setting.rpartition(".")[2], *(alias for alias in spellings if spellings[alias] == setting)}
        assert effect.seen in ("session", "request", "explain", "result")
        assert any(word in test for word in words), (setting, effect.test)


# --- Memory, SQLite, SQLAlchemy


def _local(backend: str, folder: Path) -> dict[str, Any]:
    return {
        "memory": {},
        "sqlite": {"path": f"{folder}/a.db"},
        "sqlalchemy": {"url": f"sqlite+aiosqlite:///{folder}/b.db"},
    }[backend]


_LOCAL = pytest.mark.parametrize("backend", ["memory", "sqlite", "sqlalchemy"])


@_LOCAL
async def test_unique_fields_are_checked(backend: str, tmp_path: Path) -> None:
    """`unique` refuses a second record with the value."""
    async with await AsyncDatabase.create(backend, {**_local(backend, tmp_path), "unique": ["a"]}) as db:
        await db.create({"a": 1})

        with pytest.raises(AlreadyExistsError):
            await db.create({"a": 1})


@_LOCAL
async def test_a_collection_has_its_own_settings(backend: str, tmp_path: Path) -> None:
    """What `collections` declares for one is not declared for the others."""
    config = {**_local(backend, tmp_path), "collections": {"c": {"unique": ["a"]}}}
    async with await AsyncDatabase.create(backend, config) as db:
        for _ in range(2):
            await db.create({"a": 1})
        await db.collection("c").create({"a": 1})

        with pytest.raises(AlreadyExistsError):
            await db.collection("c").create({"a": 1})


@_LOCAL
async def test_the_default_collection_is_the_settings(backend: str, tmp_path: Path) -> None:
    """`table` names it."""
    async with await AsyncDatabase.create(backend, {**_local(backend, tmp_path), "table": "notes"}) as db:
        id = await db.create({"a": 1})

        assert db.collection_name == "notes"
        assert await db.collection("notes").get(id) is not None


@pytest.mark.parametrize(("synchronous", "number"), [("full", 2), ("normal", 1), ("off", 0)])
async def test_the_sessions_of_sqlite_are_as_the_config_says(
    synchronous: str, number: int, tmp_path: Path
) -> None:
    """SQLite says so itself."""
    config = {"path": f"{tmp_path}/a.db", "synchronous": synchronous}
    async with await AsyncDatabase.create("sqlite", config) as db, db.transaction() as tx:
        [[found]] = await (await native.sqlite(tx)).fetch("PRAGMA synchronous")

    assert found == number


# --- S3, files


@contextlib.asynccontextmanager
async def _silent() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server that reads requests and never answers; yield its address and what it was sent."""
    heads: list[bytes] = []
    open_ones: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones[writer] = asyncio.current_task()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await reader.read()

    server = await asyncio.start_server(read, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    finally:
        server.close()
        for writer in open_ones:
            writer.close()
        await asyncio.gather(*filter(None, open_ones.values()))
        await asyncio.gather(*(writer.wait_closed() for writer in open_ones), return_exceptions=True)


_TRANSPORTS = pytest.mark.parametrize("transport", ["obstore", "aioboto3"])
_KEYS = {"aws_access_key_id": "mykey", "aws_secret_access_key": "s", "aws_session_token": "mytoken"}


async def _requests(endpoint: str, transport: str, **settings: Any) -> Requests:
    given = {"bucket": "bucket-1", "endpoint_url": endpoint, "transport": transport, **_KEYS, **settings}
    config = S3Config.load(given, environ={})
    return await Requests.open(config, find_keys(config, {}))


def _signed(heads: list[bytes]) -> list[bytes]:
    """Return the requests but the one by which a pool finds out about redirects."""
    return [head for head in heads if b"authorization:" in head.lower()]


@_TRANSPORTS
async def test_a_setting_of_s3_is_in_its_requests(transport: str) -> None:
    """`region` and `aws_access_key_id` in the signature, `aws_session_token` in a header."""
    async with _silent() as (endpoint, heads):
        pool = await _requests(endpoint, transport, region="eu-north-1")
        task = asyncio.create_task(pool.get("a"))
        while not (signed := _signed(heads)):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await pool.close()

    head = signed[0].decode().lower()
    assert "credential=mykey/" in head
    assert "/eu-north-1/s3/aws4_request" in head
    assert "x-amz-security-token: mytoken" in head


@_TRANSPORTS
async def test_a_server_of_s3_that_says_nothing_costs_its_timeout(transport: str) -> None:
    """For each attempt: `timeout` ends a request that gets no answer."""
    async with _silent() as (endpoint, heads):
        pool = await _requests(endpoint, transport, timeout=0.3)
        started = time.monotonic()

        with pytest.raises(IsthmusError):
            await asyncio.wait_for(pool.get("a"), 60)

        assert time.monotonic() - started >= 0.3
        assert heads
        await pool.close()


@_TRANSPORTS
async def test_requests_in_flight_are_bounded(transport: str) -> None:
    """By `pool.max_connections`; the others wait for `pool.timeout`."""
    async with _silent() as (endpoint, heads):
        limits = {"max_connections": 2, "timeout": 0.5}
        pool = await _requests(endpoint, transport, pool=limits, timeout=30)
        tasks = [asyncio.create_task(pool.get("a")) for _ in range(5)]

        done, waiting = await asyncio.wait(tasks, timeout=20, return_when=asyncio.FIRST_EXCEPTION)
        while len(done) < 3:
            more, waiting = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_EXCEPTION)
            done |= more

        assert all(isinstance(task.exception(), PoolTimeoutError) for task in done)
        assert len(_signed(heads)) == len(waiting) == 2
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await pool.close()


async def test_a_collection_of_s3_has_its_own_settings() -> None:
    """What `collections` declares for one is not declared for the others."""
    config = S3Config.load(
        {"bucket": "bucket-1", "layout": "log", "collections": {"c": {"unique": ["a"]}}}, environ={}
    )

    assert config.unique_fields("notes") == {"notes": (), "c": (("a",),)}


async def test_a_folder_is_read_as_its_settings_say(tmp_path: Path) -> None:
    """`location`, `table`, `format` and `records`."""
    folder = write(tmp_path, {"one/a.txt": '{"n": 1}\n', "two/b.jsonl": '{"id": "x", "data": {"n": 2}}\n'})

    assert await rows(folder / "one", format="jsonl") == [{"n": 1}]
    assert await rows(folder / "two") == [{"id": "x", "data": {"n": 2}}]
    assert await rows(folder / "two", records=True) == [{"n": 2}]
    async with opened(folder, table="two") as db:
        assert db.collection_name == "two"
        assert await db.count() == 1


async def test_keys_of_files_are_those_of_their_bucket() -> None:
    """`aws_access_key_id`, `aws_secret_access_key`, `aws_session_token`, over those in `s3`."""
    config = FilesConfig.load({"location": "s3://bucket-1/a", **_KEYS, "s3": {"region": "a"}}, environ={})

    given = S3Config.load(_bucket_settings(config), environ={})

    keys = find_keys(given, {})
    assert keys is not None
    assert (keys.access, keys.token, given.region, given.bucket) == ("mykey", "mytoken", "a", "bucket-1")
