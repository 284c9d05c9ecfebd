"""Whatever lies under a prefix: no key of others breaks a call, is taken for ours, or is deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from isthmus._core.executor import Mutation, WriteKind
from isthmus._query.ast import TRUE
from isthmus.backends.s3.backend import DEFAULT
from isthmus.backends.s3.transport import conditional_put_probe
from tests.s3.stores import client_of, create, ids_of, keys_under, opened, write

pytestmark = [pytest.mark.backend("s3"), pytest.mark.asyncio]

FOREIGN = [
    "",
    "/x",
    "//",
    "./x",
    "../x",
    "../_layout.json",
    "/_layout.json",
    "(20/x",
    "...f/x",
    "a/../b",
    "%2F/x",
    "é/ü\U0001f600",
    "with space/x y",
    "q'uo\"te&<x>/z",
    "+/x",
    "\\/x",
    "~/x",
    "x\x01y/z\x7f",
    "_log//x",
    "_log/../x",
    "_log/x.ndjson",
    "_log/" + "0" * 20 + ".ndjson.bak",
    "_checkpoint//x",
    "_probe-left-behind",
    "_layout.json/x",
    "a!.json/x",
    "z" * 300 + "!.json",
    "folder/_layout.json.bak",
]


async def test_foreign_keys_break_nothing_and_stay(
    running_server: Callable[[str], Any],
    layout: str,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """moto takes keys that a file system cannot hold."""
    url = str(running_server("moto").url)
    async with opened(url, layout=layout, transport=transport) as backend:
        client, config = await client_of(backend), backend.config
        # It checks and writes in two steps, which a race may find out; here one task writes.
        monkeypatch.setitem(conditional_put_probe._puts, (config.endpoint_url, config.bucket), True)
        await create(backend, "a", "b")
        await create(backend, "u", collection="users")
        foreign = {config.key_prefix + name for name in FOREIGN}
        for key in foreign:
            await client.put_object(Bucket=config.bucket, Key=key, Body=b"theirs")

        with caplog.at_level(logging.WARNING, "isthmus.s3"):
            assert await backend.collections() == [DEFAULT, "users"]
            assert await ids_of(backend) == ["a", "b"]
        assert "_probe-" not in caplog.text
        async with opened(url, prefix=config.prefix, layout=layout, transport=transport) as fresh:
            assert await ids_of(fresh) == ["a", "b"]
            assert (await fresh.count(DEFAULT, TRUE)).count == 2
            assert await write(fresh, WriteKind.DELETE, Mutation("a"), Mutation("none")) == [True, False]
        assert await backend.remove(DEFAULT, TRUE) == 1
        await backend.drop(DEFAULT)
        assert await backend.collections() == ["users"]
        assert foreign <= set(await keys_under(backend, config.key_prefix))
