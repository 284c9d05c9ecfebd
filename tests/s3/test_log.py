"""Layout `log`: one order of entries for all writers, checkpoints beside them, bounded memory."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from isthmus._core.executor import After, Mutation, PageRequest, WriteKind
from isthmus._query.ast import TRUE
from isthmus.backends.s3.backend import DEFAULT, S3Backend
from isthmus.backends.s3.log.checkpoint import remove_replaced, write_checkpoint
from isthmus.backends.s3.log.layout import LogLayout
from isthmus.backends.s3.log.reader import LogReader
from isthmus.errors import AlreadyExistsError, UnexpectedError
from tests.s3 import crash
from tests.s3.proxy import PASS, answer, proxied
from tests.s3.stores import client_of, create, endpoint_of, every, ids_of, keys_under, kinds, opened, write

pytestmark = pytest.mark.backend("s3")


async def log_of(backend: S3Backend) -> LogReader:
    """Return the backend's log on this loop."""
    layout, prefix = await backend._layout(DEFAULT)
    assert isinstance(layout, LogLayout)
    return layout.committer(prefix).log


@pytest.mark.asyncio
async def test_a_batch_is_one_put_and_a_repeated_search_one_get(url: str) -> None:
    """1,000 records are one entry; what is known is not read again."""
    async with (
        proxied(endpoint_of(url)) as proxy,
        opened(url, layout="log", endpoint_url=proxy.endpoint) as backend,
    ):
        await create(backend, "first")
        proxy.seen.clear()

        await create(backend, *(f"r{n:04}" for n in range(1000)), n=1)
        assert proxy.methods() == ["PUT"]
        proxy.seen.clear()
        assert len(await every(backend)) == 1001
        assert proxy.methods() == ["GET"]


@pytest.mark.asyncio
async def test_concurrent_writes_of_a_process_share_entries(url: str) -> None:
    """What waits while an entry is on its way becomes the next one; each caller gets its own result."""
    async with (
        proxied(endpoint_of(url)) as proxy,
        opened(url, layout="log", endpoint_url=proxy.endpoint) as backend,
    ):
        await create(backend, "first")
        proxy.seen.clear()

        results = await asyncio.gather(*(create(backend, f"r{n % 40:02}") for n in range(80)))

        assert sum(isinstance(result, str) for [result] in results) == 40
        assert sum(isinstance(result, AlreadyExistsError) for [result] in results) == 40
        assert proxy.methods().count("PUT") <= 4


@pytest.mark.asyncio
async def test_writers_of_several_processes_agree(url: str) -> None:
    """Three writers with checkpoints all the time: nothing lost, all see the same."""
    settings: dict[str, Any] = {"layout": "log", "log": {"checkpoint_entries": 5, "grace": 1.0}}
    async with (
        opened(url, **settings) as one,
        opened(url, prefix=one.config.prefix, timeout=29, **settings) as two,
        opened(url, prefix=one.config.prefix, timeout=28, transport="aioboto3", **settings) as three,
    ):

        async def work(backend: S3Backend, tag: str) -> None:
            for n in range(25):
                assert kinds(await create(backend, f"{tag}{n:02}", "shared", n=n))[0] == f"{tag}{n:02}"
                await write(backend, WriteKind.UPSERT, Mutation("counter", {f"{tag}{n}": n}))
                await write(backend, WriteKind.UPDATE, Mutation("counter", {f"u{tag}{n}": n}))
                if n % 3 == 0:
                    assert await write(backend, WriteKind.DELETE, Mutation(f"{tag}{n:02}")) == [True]

        await asyncio.gather(work(one, "a"), work(two, "b"), work(three, "c"))

        kept = sorted([f"{tag}{n:02}" for tag in "abc" for n in range(25) if n % 3] + ["shared", "counter"])
        for backend in (one, two, three):
            assert await ids_of(backend) == kept
        async with opened(url, prefix=one.config.prefix, timeout=27, **settings) as late:
            assert await ids_of(late) == kept
        assert any("_ckpt/" in key for key in await keys_under(one, one.config.key_prefix))


@pytest.mark.asyncio
async def test_a_checkpoint_replaces_entries_after_the_grace_period(url: str) -> None:
    """After it, entries and older checkpoints go, and every record is still there."""
    async with opened(url, layout="log", log={"grace": 0.0}) as backend:
        for n in range(5):
            await create(backend, f"r{n}", n=n)
        await write(backend, WriteKind.DELETE, Mutation("r2"))
        log = await log_of(backend)
        assert await write_checkpoint(log, await log.current())
        await create(backend, "later")
        before = await keys_under(backend, backend.config.key_prefix)
        assert sum("_log/" in key for key in before) == 7

        assert await remove_replaced(log) == 6

        after = await keys_under(backend, backend.config.key_prefix)
        assert sum("_log/" in key for key in after) == 1
        wanted = ["later", "r0", "r1", "r3", "r4"]
        assert await ids_of(backend) == wanted
        async with opened(url, prefix=backend.config.prefix, layout="log", timeout=20) as fresh:
            assert await ids_of(fresh) == wanted
            assert [r.data for r in await every(fresh) if r.id == "r3"] == [{"n": 3}]


@pytest.mark.asyncio
async def test_a_grace_period_keeps_what_was_just_replaced(url: str) -> None:
    """A checkpoint younger than the grace period removes nothing."""
    async with opened(url, layout="log") as backend:
        await create(backend, "a")
        log = await log_of(backend)
        await write_checkpoint(log, await log.current())

        assert await remove_replaced(log) == 0


@pytest.mark.asyncio
async def test_a_grace_period_is_not_shorter_where_times_are_whole_seconds(url: str) -> None:
    """S3 cuts them, so that a checkpoint of a moment ago seems to be one of a second before."""
    async with opened(url, layout="log", log={"grace": 1.0}) as backend:
        await create(backend, "a")
        log = await log_of(backend)
        await asyncio.sleep((0.8 - time.time()) % 1)
        await write_checkpoint(log, await log.current())
        await asyncio.sleep(-time.time() % 1)
        await create(backend, "b")
        await write_checkpoint(log, await log.current())

        assert await remove_replaced(log) == 0


@pytest.mark.asyncio
async def test_a_late_writer_is_not_acknowledged_at_a_used_number(url: str) -> None:
    """A view from before a removal finds its next number free; its write must not vanish there."""
    async with (
        opened(url, layout="log", log={"grace": 0.0}) as slow,
        opened(url, layout="log", log={"grace": 0.0}) as other_prefix,
    ):
        async with opened(
            url, layout="log", log={"grace": 0.0}, prefix=slow.config.prefix, timeout=20
        ) as fast:
            await create(slow, "a")
            await create(fast, "b")
            await create(fast, "c")
            log = await log_of(fast)
            await write_checkpoint(log, await log.current())
            assert await remove_replaced(log) == 3

            # `slow` knows entry 1 only; number 2 was used and removed.
            assert await create(slow, "d") == ["d"]
            assert kinds(await create(slow, "b")) == [AlreadyExistsError]

            for backend in (slow, fast):
                assert await ids_of(backend) == ["a", "b", "c", "d"]
        assert await ids_of(other_prefix) == []


@pytest.mark.asyncio
async def test_an_entry_at_a_used_number_is_told_by_its_token(url: str) -> None:
    """What decides is the first checkpoint at or after the number: it knows the tokens that count."""
    async with opened(url, layout="log") as backend:
        for n in range(4):
            await create(backend, f"r{n}")
        log = await log_of(backend)
        view = await log.current()
        tokens = list(view.tokens)
        assert await log.is_part_of_log(2, "0" * 16) is True  # no checkpoint: the number was free
        await write_checkpoint(log, view)

        assert await log.is_part_of_log(2, tokens[1]) is True
        assert await log.is_part_of_log(2, "0" * 16) is False
        assert await log.is_part_of_log(5, "0" * 16) is True


@pytest.mark.asyncio
async def test_memory_stays_within_its_bound(url: str) -> None:
    """Beyond the bound records are read again from S3: slower, and the same answers."""
    async with opened(url, layout="log", log={"memory_bytes": 60_000}) as backend:
        for batch in range(12):
            await create(backend, *(f"r{n:03}-{batch}" for n in range(20)), text="x" * 500, batch=batch)
        log = await log_of(backend)
        view = await log.current()

        assert view.held_bytes <= 60_000
        records = await every(backend)
        assert [record.id for record in records] == sorted(
            f"r{n:03}-{b}" for n in range(20) for b in range(12)
        )
        assert all(
            record.data["batch"] == int((record.id or "")[-1:]) or record.data["batch"] > 9
            for record in records
        )
        assert view.held_bytes <= 60_000
        await write(backend, WriteKind.UPDATE, *(Mutation(f"r{n:03}-0", {"new": n}) for n in range(20)))
        assert await write_checkpoint(log, await log.current())
        assert [r.data.get("new") for r in await backend.read(DEFAULT, ["r007-0", "r007-1"]) if r] == [
            7,
            None,
        ]
        assert (await log.current()).held_bytes <= 60_000
        async with opened(
            url, prefix=backend.config.prefix, layout="log", log={"memory_bytes": 60_000}
        ) as fresh:
            assert len(await every(fresh)) == 240
            assert (await (await log_of(fresh)).current()).held_bytes <= 60_000


@pytest.mark.asyncio
async def test_a_checkpoint_that_fails_is_not_tried_at_every_entry(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log goes on without it; as many entries later it is tried again."""
    refused = answer(403, "AccessDenied")
    async with proxied(endpoint_of(url)) as proxy:
        settings: dict[str, Any] = {"endpoint_url": proxy.endpoint, "log": {"checkpoint_entries": 4}}
        async with opened(url, layout="log", **settings) as backend:
            proxy.rule = lambda seen: refused if seen.method == "PUT" and "/_parts/" in seen.path else PASS
            for n in range(11):
                await create(backend, f"r{n:02}")
                await settled(backend)
            tried = sum("/_parts/" in seen.path and seen.method == "PUT" for seen in proxy.seen)
            assert tried == 2
            assert "no checkpoint this time" in caplog.text

            proxy.rule = lambda seen: PASS
            for n in range(11, 16):
                await create(backend, f"r{n:02}")
                await settled(backend)
            assert any("_ckpt/" in key for key in await keys_under(backend, backend.config.key_prefix))
            assert len(await ids_of(backend)) == 16


async def settled(backend: S3Backend) -> None:
    """Wait for the checkpoint that may be under way."""
    layout, prefix = await backend._layout(DEFAULT)
    assert isinstance(layout, LogLayout)
    task = layout.committer(prefix).checkpointer._task
    if task is not None:
        await asyncio.wait([task])


@pytest.mark.asyncio
async def test_clearing_is_one_entry(url: str) -> None:
    """Clear ends all records at once and says how many; new ones may follow."""
    async with opened(url, layout="log") as backend:
        await create(backend, "a", "b")

        assert await backend.remove(DEFAULT, TRUE) == 2
        assert await backend.remove(DEFAULT, TRUE) == 0
        assert await create(backend, "a") == ["a"]
        async with opened(url, prefix=backend.config.prefix, layout="log", timeout=20) as fresh:
            assert await ids_of(fresh) == ["a"]


@pytest.mark.asyncio
async def test_a_damaged_entry_is_an_error_and_a_foreign_object_is_not(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Passing over an entry would lose its records; passing over somebody's file loses nothing."""
    async with opened(url, layout="log") as backend:
        await create(backend, "a")
        client, config = await client_of(backend), backend.config
        await client.put_object(Bucket=config.bucket, Key=f"{config.key_prefix}_log/readme.txt", Body=b"hi")
        async with opened(url, prefix=config.prefix, layout="log", timeout=20) as fresh:
            assert await ids_of(fresh) == ["a"]
        assert "readme.txt" in caplog.text

        key = f"{config.key_prefix}_log/{1:020d}.ndjson"
        body = await (await client.get_object(Bucket=config.bucket, Key=key))["Body"].read()
        await client.put_object(Bucket=config.bucket, Key=key, Body=body[:-10])
        with pytest.raises(UnexpectedError, match="not a log entry"):
            async with opened(url, prefix=config.prefix, layout="log", timeout=21) as broken:
                await every(broken)


@pytest.mark.asyncio
async def test_pages_stay_in_place_while_others_write(url: str) -> None:
    """A page begins after the last id, wherever that is by now."""
    async with opened(url, layout="log") as backend:
        await create(backend, *(f"r{n:02}" for n in range(0, 40, 2)))
        first = await backend.fetch(DEFAULT, PageRequest(TRUE, (), 10))
        await create(backend, *(f"r{n:02}" for n in range(1, 40, 2)))
        await write(backend, WriteKind.DELETE, Mutation("r18"))

        second = await backend.fetch(DEFAULT, PageRequest(TRUE, (), 5, after=After(("r18",))))

        assert first.records[-1].id == "r18"
        assert [record.id for record in second.records] == ["r19", "r20", "r21", "r22", "r23"]


def test_writers_killed_at_random_requests_leave_whole_batches_only(url: str) -> None:
    """A slice of `python -m tests.s3.crash`, in a process of its own: this one has used obstore."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", crash.__name__, "--url", url, "--kills", "12", "--seed", "7"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost" in done.stdout


def test_a_record_of_the_log_takes_less_than_a_kilobyte(url: str) -> None:
    """Of 94 bytes, in the resident memory of a process of its own."""
    import secrets
    import subprocess
    import sys

    bucket, _, options = url.partition("?")
    place = f"{bucket}t/{secrets.token_hex(6)}?{options}&layout=log"
    done = subprocess.run(
        [sys.executable, "-m", "tests.kept_memory", place, "20000"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )

    sizes = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert max(sizes) < 1_000, done.stdout
