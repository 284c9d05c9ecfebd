"""Changes of layout `log`: entries stay as long as readers may need them, and orders stay with records."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from isthmus import AsyncDatabase, Change, Record
from isthmus.backends.s3.backend import S3Backend
from isthmus.backends.s3.keys import MARKER
from isthmus.errors import ChangesExpiredError, ConfigError, UnsupportedError
from tests.s3.stores import client_of, keys_under

pytestmark = [pytest.mark.backend("s3"), pytest.mark.asyncio, pytest.mark.timeout(60)]

SHORT = {"grace": 0.0}


@contextlib.asynccontextmanager
async def handle(url: str, prefix: str = "", **settings: Any) -> AsyncIterator[AsyncDatabase]:
    """Open a log with a pool and a state of its own, as another process would."""
    given = {"layout": "log", "prefix": prefix or f"t/{secrets.token_hex(6)}", **settings}
    # Pools are shared by handles with the same settings.
    timeout = 20 + secrets.randbelow(10_000) / 1_000
    async with await AsyncDatabase.create("s3", {"url": url, "timeout": timeout, **given}) as db:
        yield db


def backend_of(db: AsyncDatabase) -> S3Backend:
    """Return a handle's backend."""
    backend = db._backend
    assert isinstance(backend, S3Backend)
    return backend


def prefix_of(db: AsyncDatabase) -> str:
    """Return a handle's prefix."""
    return backend_of(db).config.prefix


async def read(db: AsyncDatabase, since: str) -> list[Change[Record]]:
    """Return the changes that there are now."""
    found: list[Change[Record]] = []
    async with db.changes(since=since) as stream:
        while changes := await stream.read(wait=False):
            found += changes
    return found


async def position_of(db: AsyncDatabase) -> str:
    """Return the position of now."""
    async with db.changes() as stream:
        assert stream.position is not None
        return stream.position


def shown(changes: list[Change[Record]]) -> dict[str, tuple[int | None, object]]:
    """Return the last order and data of each id."""
    return {change.id: (change.order, change.record and change.record.data) for change in changes}


async def test_orders_stay_with_records_in_a_checkpoint(url: str) -> None:
    """A process that loads the log afterwards gives them; those from before the declaration are 0."""
    async with handle(url) as plain:
        await plain.upsert("old", {})
        async with handle(url, prefix_of(plain)) as db:
            await backend_of(db).make_changes(db.collection_name)
            await db.upsert("a", {"n": 1})
            await db.upsert("b", {"n": 1})
            await db.upsert("a", {"n": 2})
            before = shown(await read(db, "start"))
            assert await backend_of(db).compact(db.collection_name) == (True, 0)

        async with handle(url, prefix_of(plain)) as later:
            assert shown(await read(later, "start")) == before
        assert before["old"] == (0, {})
        assert 0 < before["b"][0] < before["a"][0]  # type: ignore[operator]


async def test_entries_stay_for_changes_keep_beyond_their_checkpoint(url: str) -> None:
    """So that a reader that has fallen behind goes on; without changes they would be gone at once."""
    async with handle(url, changes=True, log=SHORT) as db:
        position = await position_of(db)
        for number in range(5):
            await db.upsert(f"r{number}", {})
        await db.delete("r0")
        await asyncio.sleep(1.1)  # the server's times are whole seconds
        for _ in range(2):
            await db.upsert("last", {})
            await backend_of(db).compact(db.collection_name)

        found = shown(await read(db, position))

        assert {id: data for id, (_, data) in found.items()} == {
            **{f"r{number}": {} for number in range(1, 5)},
            "r0": None,
            "last": {},
        }


async def test_what_was_pruned_has_expired_and_an_idle_reader_goes_on(url: str) -> None:
    """The entry of its position is the one that stays."""
    async with handle(url, changes=True, changes_keep=0.5, log=SHORT) as db:
        behind = await position_of(db)
        for number in range(4):
            await db.upsert(f"r{number}", {})
        current = await position_of(db)
        await asyncio.sleep(1.6)
        await db.upsert("newer", {})
        await backend_of(db).compact(db.collection_name)
        await asyncio.sleep(1.1)
        await db.upsert("newest", {})
        await backend_of(db).compact(db.collection_name)

        with pytest.raises(ChangesExpiredError, match="changes_keep"):
            await read(db, behind)
        with pytest.raises(ChangesExpiredError, match="changes_keep"):
            await read(db, current)
        idle = await position_of(db)
        await asyncio.sleep(1.6)
        await backend_of(db).compact(db.collection_name)
        assert await read(db, idle) == []
        await db.upsert("again", {})
        assert list(shown(await read(db, idle))) == ["again"]


async def test_a_batch_larger_than_a_page_is_read_in_parts(url: str) -> None:
    """Each part continues inside the entry, and a position there does too."""
    async with handle(url, changes=True) as db:
        position = await position_of(db)
        await db.create_batch([Record({"n": number}, id=f"r{number:04}") for number in range(2_500)])
        await db.update("r0000", {"n": "new"})

        async with db.changes(since=position) as stream:
            first = await stream.read(700)
        rest = await read(db, first[-1].position)

        assert len(first) == 700
        assert {change.id for change in [*first, *rest]} == {f"r{number:04}" for number in range(2_500)}
        assert shown(rest)["r0000"][1] == {"n": "new"}


async def test_a_restored_log_is_another_one(url: str) -> None:
    """Its entries have the same numbers and are others: found by their token, or by the missing end."""
    async with handle(url, changes=True) as db:
        prefix = backend_of(db).config.key_prefix
        client, bucket = await client_of(backend_of(db)), backend_of(db).config.bucket
        await db.upsert("a", {})
        await db.upsert("lost", {})
        position = await position_of(db)
        [*_, last] = await keys_under(backend_of(db), f"{prefix}_log/")
        await client.delete_object(Bucket=bucket, Key=last)

        async with handle(url, prefix_of(db)) as restored:
            with pytest.raises(ChangesExpiredError):
                await read(restored, position)
            for id in ("other", "more"):
                await restored.upsert(id, {})
                with pytest.raises(ChangesExpiredError):
                    await read(restored, position)


async def test_a_dropped_log_is_declared_again_by_the_next_write(url: str) -> None:
    """With another making: of the same handle, and of one in another process."""
    async with handle(url, changes=True) as db, handle(url, prefix_of(db), changes=True) as other:
        await other.upsert("a", {})
        position = await position_of(db)
        await db.drop_collection(db.collection_name)
        await other.upsert("b", {})

        for reader in (db, other):
            with pytest.raises(ChangesExpiredError):
                await read(reader, position)
            assert list(shown(await read(reader, "start"))) == ["b"]


async def test_a_log_with_records_is_declared_by_command_only(url: str) -> None:
    """Connecting is a ConfigError; format 2 is in the marker and in the entry; ten handles declare once."""
    async with handle(url) as plain:
        await plain.upsert("a", {})
        with pytest.raises(ConfigError, match="isthmus index"):
            async with handle(url, prefix_of(plain), changes=True):
                pass
        await plain.clear()

        async with contextlib.AsyncExitStack() as stack:
            opening = (
                stack.enter_async_context(handle(url, prefix_of(plain), changes=True)) for _ in range(10)
            )
            handles = [await one for one in opening]
            sources = {(await backend_of(db).changes_position(db.collection_name)).source for db in handles}
        assert len(sources) == 1
        client, config = await client_of(backend_of(plain)), backend_of(plain).config
        got = await client.get_object(Bucket=config.bucket, Key=config.key_prefix + MARKER)
        assert orjson.loads(await got["Body"].read())["isthmus"] == 2


async def test_readers_and_writers_go_on_beside_compactions(url: str) -> None:
    """Nothing is skipped, and no order falls."""
    settings: dict[str, Any] = {"changes": True, "log": {"checkpoint_entries": 4, "grace": 1.0}}
    async with handle(url, **settings) as db, handle(url, prefix_of(db), **settings) as other:
        position = await position_of(db)
        done = asyncio.Event()

        async def work(writer: AsyncDatabase, tag: str) -> None:
            for number in range(30):
                await writer.upsert(f"{tag}{number % 7}", {"n": number})
                if number % 5 == 0:
                    await writer.delete(f"{tag}{number % 7}")

        async def compact() -> None:
            while not done.is_set():
                await backend_of(other).compact(other.collection_name)
                await asyncio.sleep(0.05)

        compacting = asyncio.create_task(compact())
        found: list[Change[Record]] = []
        async with db.changes(since=position) as stream:
            working = asyncio.gather(work(db, "a"), work(other, "b"))
            while not working.done():
                found += await stream.read(wait=False)
            await working
            done.set()
            await compacting
            while changes := await stream.read(wait=False):
                found += changes

        orders: dict[str, int] = {}
        for change in found:
            assert change.order is not None
            assert change.order >= orders.get(change.id, 0)
            orders[change.id] = change.order
        content = {id: data for id, (_, data) in shown(found).items() if data is not None}
        assert content == {record.id: record.data for record in await db.search()}


async def test_layout_object_refuses_the_setting(url: str) -> None:
    """A delete there leaves nothing behind."""
    with pytest.raises(UnsupportedError, match="layout 'object'") as refused:
        AsyncDatabase("s3", {"url": url, "changes": True})
    assert refused.value.capability == "changes"
    async with handle(url, layout="object") as db:
        with pytest.raises(UnsupportedError):
            db.changes()
