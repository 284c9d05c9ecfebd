"""Dropping a collection: all that is ours goes, open handles notice, and it can be interrupted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from isthmus import AsyncDatabase
from isthmus._core.executor import Mutation, WriteKind
from isthmus._query.ast import TRUE
from isthmus.backends.s3 import backend as s3_backend
from isthmus.backends.s3.backend import DEFAULT, S3Backend
from isthmus.backends.s3.keys import MARKER
from isthmus.backends.s3.log.checkpoint import write_checkpoint
from isthmus.backends.s3.log.layout import LogLayout
from isthmus.backends.s3.transport.requests import Requests
from isthmus.errors import ConfigError, NotFoundError, UnavailableError
from tests.s3.stores import client_of, config_for, create, every, ids_of, keys_under, kinds, opened, write

pytestmark = pytest.mark.backend("s3")

SECRET = "canary"


@contextlib.asynccontextmanager
async def elsewhere(backend: S3Backend, **settings: Any) -> AsyncIterator[S3Backend]:
    """Open the same prefix with a pool of its own, as another process would."""
    config = backend.config
    given = {"layout": config.layout, "transport": config.transport, "prefix": config.prefix, "timeout": 19}
    async with opened(
        f"s3://{config.bucket}/?endpoint_url={config.endpoint_url}&region={config.region}",
        aws_access_key_id=config.aws_access_key_id,
        aws_secret_access_key=config.aws_secret_access_key,
        **{**given, **settings},
    ) as other:
        yield other


async def _bodies(backend: S3Backend) -> dict[str, bytes]:
    """Return the objects under a backend's prefix."""
    client = await client_of(backend)
    bodies = {}
    for key in await keys_under(backend, backend.config.key_prefix):
        got = await client.get_object(Bucket=backend.config.bucket, Key=key)
        bodies[key.removeprefix(backend.config.key_prefix)] = await got["Body"].read()
    return bodies


@pytest.mark.asyncio
async def test_a_drop_deletes_what_is_ours_and_nothing_else(backend: S3Backend) -> None:
    """Records, marker, entries and checkpoints go; foreign objects and nested collections stay."""
    await create(backend, *(f"r{n}" for n in range(30)), "x" * 300, text=SECRET)
    await create(backend, "other", collection="users", n=1)
    client, config = await client_of(backend), backend.config
    foreign = {"readme.txt", "_log/readme.txt", "photos/a.jpg"}
    for name in foreign:
        await client.put_object(Bucket=config.bucket, Key=config.key_prefix + name, Body=b"hi")

    await backend.drop(DEFAULT)

    bodies = await _bodies(backend)
    kept = {name for name in bodies if not name.startswith("users/")} - foreign
    assert foreign <= bodies.keys()
    assert SECRET not in "".join(body.decode() for body in bodies.values())
    if config.layout == "object":
        assert kept == set()
    else:  # the numbers of entries, for handles that are open elsewhere
        assert kept == {f"_log/{1:020d}.ndjson", f"_log/{2:020d}.ndjson", f"_ckpt/{2:020d}.json"}
    assert await backend.collections() == ["users"]
    assert await ids_of(backend, "users") == ["other"]


@pytest.mark.asyncio
async def test_a_log_without_a_grace_period_leaves_one_manifest(url: str) -> None:
    """It says where the numbers of entries go on; the new collection starts after it."""
    settings: dict[str, Any] = {"layout": "log", "log": {"grace": 0.0}}
    async with opened(url, **settings) as backend, elsewhere(backend, **settings) as other:
        for n in range(4):
            await create(backend, f"r{n}")
        assert len(await ids_of(other)) == 4

        await backend.drop(DEFAULT)

        assert list(await _bodies(backend)) == [f"_ckpt/{5:020d}.json"]
        assert await ids_of(other) == []
        assert await create(other, "r1", new=True) == ["r1"]
        assert [(record.id, record.data) for record in await every(backend)] == [("r1", {"new": True})]


@pytest.mark.asyncio
async def test_a_dropped_collection_is_empty_and_created_again_by_a_write(backend: S3Backend) -> None:
    """Reads find nothing; the next write makes the collection again, with its records only."""
    await create(backend, "a", "b", n=1)

    await backend.drop(DEFAULT)

    assert await backend.read(DEFAULT, ["a"]) == [None]
    assert await ids_of(backend) == []
    assert (await backend.count(DEFAULT, TRUE)).count == 0
    assert kinds(await write(backend, WriteKind.UPDATE, Mutation("a", {"n": 2}))) == [NotFoundError]
    assert await create(backend, "b", n=3) == ["b"]
    assert [(record.id, record.data) for record in await every(backend)] == [("b", {"n": 3})]
    assert await backend.collections() == [DEFAULT]


@pytest.mark.parametrize("cache", [False, True], ids=["", "cache"])
@pytest.mark.asyncio
async def test_handles_that_know_the_records_notice_at_once(
    url: str, layout: str, transport: str, cache: bool
) -> None:
    """A warm state or cache of another handle serves and resurrects nothing."""
    settings: dict[str, Any] = {"layout": layout, "transport": transport}
    if cache:
        settings |= {"cache": {}} if layout == "object" else {"log": {"memory_bytes": 2_000}}
    async with (
        opened(url, **settings) as backend,
        elsewhere(backend, **settings) as reader,
        elsewhere(backend, **settings, pool={"max_connections": 7}) as writer,
        elsewhere(backend, **settings, pool={"max_connections": 8}) as late,
    ):
        await create(backend, *(f"r{n:02}" for n in range(20)), text=SECRET * 20)
        assert await ids_of(late) == await ids_of(reader)  # `late` knows the first entry only
        await create(backend, *(f"s{n:02}" for n in range(20)), text=SECRET * 20)
        assert len(await ids_of(reader)) == len(await ids_of(writer)) == 40

        await backend.drop(DEFAULT)

        assert await ids_of(reader) == []
        assert await reader.read(DEFAULT, ["r01", "s01"]) == [None, None]
        assert kinds(await write(writer, WriteKind.UPDATE, Mutation("r01", {"n": 1}))) == [NotFoundError]
        assert await create(writer, "r01", n=1) == ["r01"]
        assert kinds(await write(late, WriteKind.REPLACE, Mutation("r02", {}))) == [NotFoundError]
        for handle in (late, reader, writer, backend):
            assert [(record.id, record.data) for record in await every(handle)] == [("r01", {"n": 1})]
        assert await backend.collections() == [DEFAULT]
        async with elsewhere(backend, **settings, pool={"max_connections": 9}) as fresh:
            assert await ids_of(fresh) == ["r01"]


@pytest.mark.asyncio
async def test_a_collection_can_be_dropped_many_times(backend: S3Backend) -> None:
    """Each life has its own records, whichever handle created it."""
    async with elsewhere(backend) as other:
        for life in range(4):
            assert await create(backend if life % 2 else other, "a", life=life) == ["a"]
            assert [record.data for record in await every(backend)] == [{"life": life}]
            assert [record.data for record in await every(other)] == [{"life": life}]
            await (other if life % 2 else backend).drop(DEFAULT)
            assert await ids_of(other) == await ids_of(backend) == []
        await backend.drop(DEFAULT)
        await backend.drop("never there")


@pytest.mark.breadth(2)
@pytest.mark.asyncio
async def test_an_interrupted_drop_is_finished_by_the_next(
    url: str, layout: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off at each of its requests: what is left is readable, and a second drop finishes it."""
    send = Requests.send
    settings: dict[str, Any] = {"layout": layout, "transport": transport}
    for number in range(100):
        async with opened(url, **settings) as backend:
            ids = [f"r{n}" for n in range(5)]
            await create(backend, *ids, text=SECRET)
            await write(backend, WriteKind.DELETE, Mutation("r4"))
            if layout == "log":
                log_layout, prefix = await backend._layout(DEFAULT)
                assert isinstance(log_layout, LogLayout)
                log = log_layout.committer(prefix).log
                await write_checkpoint(log, await log.current())
            remaining = [number]

            async def breaking(
                self: Requests,
                request: Callable[[Any], Awaitable[Any]],
                remaining: list[int] = remaining,
            ) -> Any:
                remaining[0] -= 1
                if remaining[0] < 0:
                    raise UnavailableError("broken off", transient=False)
                return await send(self, request)

            async def at_once(self: Requests, attempt: int, retry_after: float | None = None) -> None:
                await asyncio.sleep(0)

            with monkeypatch.context() as patch:
                patch.setattr(Requests, "send", breaking)
                patch.setattr(Requests, "pause", at_once)
                try:
                    await backend.drop(DEFAULT)
                except UnavailableError:
                    done = False
                else:
                    done = True

            async with elsewhere(backend) as other:
                left = await ids_of(other)
                assert left in (ids[:4], []) if layout == "log" else set(left) <= set(ids)
                await other.drop(DEFAULT)
                assert await ids_of(other) == await ids_of(backend) == []
                bodies = await _bodies(backend)
                assert MARKER not in bodies
                assert SECRET not in "".join(body.decode() for body in bodies.values())
                assert layout == "log" or bodies == {}
                assert await create(other, "r1", n=number) == ["r1"]
                assert [record.data for record in await every(backend)] == [{"n": number}]
            if done:
                return
    raise AssertionError("a drop takes less than 100 requests")


@pytest.mark.asyncio
async def test_records_written_during_a_drop_are_of_the_new_collection(url: str) -> None:
    """Writers beside a drop: whatever they wrote after it is there, for a handle that lags behind too."""
    settings: dict[str, Any] = {"layout": "log"}
    async with (
        opened(url, **settings) as backend,
        elsewhere(backend, **settings) as writer,
        elsewhere(backend, **settings, pool={"max_connections": 7}) as late,
    ):
        await create(backend, "old", text=SECRET)
        assert await ids_of(late) == ["old"]

        async def work() -> None:
            for n in range(20):
                assert await create(writer, f"n{n:02}", n=n) == [f"n{n:02}"]

        async def drop() -> None:
            await asyncio.sleep(0.02)
            await backend.drop(DEFAULT)

        await asyncio.gather(work(), drop())

        there = await ids_of(backend)
        assert there == [f"n{n:02}" for n in range(20 - len(there), 20)]
        assert await ids_of(late) == await ids_of(writer) == there
        async with elsewhere(backend, **settings, pool={"max_connections": 9}) as fresh:
            assert await ids_of(fresh) == there


@pytest.mark.asyncio
async def test_a_writer_elsewhere_restores_the_marker_in_time(
    url: str, layout: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that knows nothing of the drop looks for the marker again after some seconds."""
    async with opened(url, layout=layout, transport=transport) as backend, elsewhere(backend) as other:
        await create(other, "a")
        await backend.drop(DEFAULT)
        # As in another process: this one's notes of its drops are not known there.
        monkeypatch.setattr(s3_backend, "_dropped", {})
        await create(other, "b")
        monkeypatch.setattr(s3_backend, "_MARKER_SECONDS", -1.0)

        await create(other, "c")

        assert await other.collections() == [DEFAULT]
        assert await ids_of(other) == ["b", "c"]


@pytest.mark.asyncio
async def test_a_dropped_collection_may_get_the_other_layout(url: str, transport: str) -> None:
    """The marker that told the layout is gone."""
    async with opened(url, transport=transport) as objects:
        await create(objects, "a")
        with pytest.raises(ConfigError):
            async with elsewhere(objects, layout="log"):
                pass
        await objects.drop(DEFAULT)
        async with elsewhere(objects, layout="log") as log:
            assert await create(log, "b") == ["b"]
            assert await ids_of(log) == ["b"]
        with pytest.raises(ConfigError):
            await create(objects, "c")


@pytest.mark.asyncio
async def test_a_database_drops_collections(url: str, layout: str) -> None:
    """`db.drop_collection(name)` drops one collection and leaves the others."""
    async with await AsyncDatabase.create("s3", config_for(url, layout=layout)) as db:
        users, notes = db.collection("users"), db.collection("notes")
        await users.create({"n": 1})
        note = await notes.create({"n": 2})

        await db.drop_collection("users")

        assert await db.collections() == ["notes"]
        assert await users.count() == 0
        assert (await notes.require(note)).data == {"n": 2}
