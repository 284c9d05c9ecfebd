"""Unique fields of layout `log`: an entry declares them, and every later one is written under them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.unique import unique_of
from isthmus._query.ast import TRUE
from isthmus.backends.s3.backend import DEFAULT, S3Backend
from isthmus.backends.s3.keys import MARKER
from isthmus.backends.s3.log.checkpoint import remove_replaced, write_checkpoint
from isthmus.errors import AlreadyExistsError, ConfigError, InvalidRecordError, UnsupportedError
from tests.s3.stores import client_of, config_for, keys_under, kinds, opened, write
from tests.s3.test_log import log_of

pytestmark = [pytest.mark.backend("s3"), pytest.mark.asyncio]

[EMAIL] = unique_of([["email"]])
FEW_BYTES: dict[str, Any] = {"memory_bytes": 2**20}


@contextlib.asynccontextmanager
async def elsewhere(url: str, backend: S3Backend, **settings: Any) -> AsyncIterator[S3Backend]:
    """Open the same prefix with a pool and a state of its own, as another process would."""
    given = {"layout": "log", "prefix": backend.config.prefix, "timeout": 19, **settings}
    async with opened(url, **given) as other:
        yield other


async def claim(backend: S3Backend, id: str, email: Any, **more: Any) -> ItemResult:
    """Create a record with a value."""
    [result] = await write(backend, WriteKind.CREATE, Mutation(id, {"email": email, **more}))
    return result


def holder(result: ItemResult) -> str | None:
    """Return the record that a refused claim names."""
    assert isinstance(result, AlreadyExistsError)
    assert result.field == "email"
    return result.record_id


async def test_a_writer_that_knows_the_log_from_before_is_bound(url: str) -> None:
    """Its next entry has another number, so that it meets the declaration first."""
    async with opened(url, layout="log") as plain, elsewhere(url, plain) as declaring:
        assert await claim(plain, "a", "x") == "a"
        await declaring.make_unique(DEFAULT, EMAIL)

        assert holder(await claim(plain, "b", "x")) == "a"
        assert holder(await claim(declaring, "b", "x")) == "a"
        [refused] = await write(plain, WriteKind.UPSERT, Mutation("c", {"email": ["x"]}))
        assert isinstance(refused, InvalidRecordError)
        assert await write(plain, WriteKind.DELETE, Mutation("a")) == [True]
        assert await claim(declaring, "b", "x") == "b"
        await declaring.end_unique(DEFAULT, EMAIL)
        assert await claim(plain, "c", "x") == "c"


async def test_claims_by_several_processes_have_one_winner(url: str) -> None:
    """The condition of the entry decides, also for values that move between records."""
    settings: dict[str, Any] = {"layout": "log", "log": {"checkpoint_entries": 5, "grace": 1.0}}
    async with (
        opened(url, unique=["email"], **settings) as one,
        elsewhere(url, one, **settings) as two,
        elsewhere(url, one, **{**settings, "timeout": 28}) as three,
    ):

        async def work(backend: S3Backend, tag: str) -> int:
            won = 0
            for number in range(20):
                result = await claim(backend, f"{tag}{number}", f"name {number}")
                won += isinstance(result, str)
                await write(backend, WriteKind.UPSERT, Mutation(f"{tag}-own", {"email": f"{tag} {number}"}))
            return won

        won = await asyncio.gather(work(one, "a"), work(two, "b"), work(three, "c"))

        assert sum(won) == 20
        async with elsewhere(url, one, timeout=27) as late:
            results = [await claim(late, "late", f"name {number}") for number in range(20)]
            assert all(isinstance(result, AlreadyExistsError) for result in results)


async def test_values_of_evicted_records_are_known(url: str) -> None:
    """Those of records that were evicted before the declaration are read; later ones are kept."""
    async with opened(url, layout="log", log=FEW_BYTES) as backend:
        for number in range(40):
            assert await claim(backend, f"r{number:02}", number, filler="x" * 100_000) == f"r{number:02}"
        assert not (await log_of(backend)).state.complete  # type: ignore[union-attr]

        await backend.make_unique(DEFAULT, EMAIL)

        for known in (backend, None):
            async with contextlib.AsyncExitStack() as stack:
                writer = known or await stack.enter_async_context(elsewhere(url, backend, log=FEW_BYTES))
                for number in (0, 17, 39):
                    assert holder(await claim(writer, "new", float(number))) == f"r{number:02}"


async def test_a_checkpoint_keeps_the_declaration(url: str) -> None:
    """Once the entry that made it is removed."""
    async with opened(url, unique=["email"], layout="log", log={"grace": 0.0}) as backend:
        assert await claim(backend, "a", "x") == "a"
        log = await log_of(backend)
        for number in range(2):
            await claim(backend, f"b{number}", number)
            assert await write_checkpoint(log, await log.current())
            await remove_replaced(log)

        async with elsewhere(url, backend) as other:
            assert holder(await claim(other, "c", "x")) == "a"


async def test_duplicates_and_impossible_values_refuse_a_declaration(url: str) -> None:
    """They are named, and nothing is written."""
    async with opened(url, layout="log") as backend:
        await claim(backend, "a", 1)
        await claim(backend, "b", 1.0)
        await claim(backend, "c", ["x"])
        before = await keys_under(backend, backend.config.key_prefix)

        with pytest.raises(InvalidRecordError, match="a list") as invalid:
            await backend.make_unique(DEFAULT, EMAIL)
        assert invalid.value.record_id == "c"
        await write(backend, WriteKind.DELETE, Mutation("c"))
        with pytest.raises(ConfigError, match="'a', 'b'"):
            await backend.make_unique(DEFAULT, EMAIL)
        with pytest.raises(ConfigError, match="isthmus index"):
            async with elsewhere(url, backend, unique=["email"]):
                pass
        assert len(await keys_under(backend, backend.config.key_prefix)) == len(before) + 1
        await write(backend, WriteKind.DELETE, Mutation("b"))
        await backend.make_unique(DEFAULT, EMAIL)
        assert holder(await claim(backend, "d", 1)) == "a"


async def test_a_declaration_makes_the_collection_format_2(url: str) -> None:
    """The marker, the entry and the manifest: 0.1.0 refuses each. Without one they stay format 1."""
    async with opened(url, layout="log", log={"grace": 0.0}) as backend:
        await claim(backend, "a", "x")
        assert await _formats(backend) == {1}

        await backend.make_unique(DEFAULT, EMAIL)
        await claim(backend, "b", "y")
        log = await log_of(backend)
        await write_checkpoint(log, await log.current())
        await remove_replaced(log)
        assert await _formats(backend, MARKER, "_ckpt/") == {2}
        assert await _formats(backend) >= {2}


async def _formats(backend: S3Backend, *names: str) -> set[int]:
    client, formats = await client_of(backend), set()
    for key in await keys_under(backend, backend.config.key_prefix):
        name = key.removeprefix(backend.config.key_prefix)
        if name.startswith(names or ("_log/", "_ckpt/", MARKER)):
            got = await client.get_object(Bucket=backend.config.bucket, Key=key)
            formats.add(orjson.loads((await got["Body"].read()).split(b"\n")[0])["isthmus"])
    return formats


async def test_a_drop_ends_declarations_and_a_config_makes_its_own_again(url: str) -> None:
    """Also for a writer elsewhere that has read neither the end nor what came before."""
    async with (
        opened(url, unique=["email"], layout="log") as declaring,
        elsewhere(url, declaring) as other,
        elsewhere(url, declaring, timeout=28) as behind,
    ):
        await declaring.make_unique(DEFAULT, *unique_of([["name"]]))
        assert await claim(behind, "a", "x", name="n") == "a"
        assert await claim(other, "b", "y", name="m") == "b"

        await other.drop(DEFAULT)
        assert await claim(behind, "a", "x", name="n") == "a"
        assert await claim(behind, "b", "x", name="n") == "b"  # nobody has declared anything since
        await behind.remove(DEFAULT, TRUE)

        assert await claim(declaring, "a", "x", name="n") == "a"  # and with it the config's field
        assert holder(await claim(declaring, "b", "x", name="n")) == "a"
        assert holder(await claim(behind, "b", "x", name="n")) == "a"
        assert await claim(other, "b", "y", name="n") == "b"


async def test_items_of_one_entry_are_checked_in_their_order(url: str) -> None:
    """A value may move within a batch; a refused atomic batch claims nothing."""
    async with opened(url, unique=["email"], layout="log") as backend:
        await claim(backend, "a", "x")
        await claim(backend, "b", "y")

        swap = [
            Mutation("a", {"email": "free"}),
            Mutation("b", {"email": "x"}),
            Mutation("a", {"email": "y"}),
        ]
        results = await write(backend, WriteKind.UPDATE, *swap, atomic=True)
        assert all(isinstance(result, str) for result in results)
        failing = [Mutation("c", {"email": "z"}), Mutation("d", {"email": "x"})]
        assert kinds(await write(backend, WriteKind.CREATE, *failing, atomic=True))[1] is AlreadyExistsError
        together = await asyncio.gather(*(claim(backend, f"t{number}", "z") for number in range(10)))
        assert sum(isinstance(result, str) for result in together) == 1
        await backend.remove(DEFAULT, TRUE)
        assert await claim(backend, "e", "x") == "e"
        assert holder(await claim(backend, "f", "x")) == "e"


async def test_the_layout_object_refuses_unique_fields(url: str) -> None:
    """When the handle is made."""
    with pytest.raises(UnsupportedError) as refused:
        S3Backend(config_for(url, unique=["email"]))
    assert refused.value.capability == "unique"
