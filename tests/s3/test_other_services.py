"""A server that is no S3, or lost the bucket: each method raises an error that says so."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from isthmus import AsyncDatabase
from isthmus.errors import ConfigError, IsthmusError, StoreError
from tests.s3.proxy import PASS, Seen, proxied
from tests.s3.stores import config_for, endpoint_of

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("s3")]

Call = Callable[[AsyncDatabase], Awaitable[Any]]
READS: dict[str, Call] = {
    "search": lambda db: db.search(),
    "count": lambda db: db.count(),
    "collections": lambda db: db.collections(),
    "get": lambda db: db.get("first"),
}
WRITES: dict[str, Call] = {
    "create": lambda db: db.create({"n": 1}),
    "create_batch": lambda db: db.create_batch([{"n": 1}, {"n": 2}]),
    "upsert": lambda db: db.upsert("first", {"n": 1}),
    "replace": lambda db: db.replace("first", {"n": 1}),
    "delete": lambda db: db.delete("first"),
    "delete_batch": lambda db: db.delete_batch(["first", "other"]),
    "clear": lambda db: db.clear(),
    "drop": lambda db: db.drop_collection(db.collection_name),
}
CALLS = READS | WRITES


def _respond(status: str, body: bytes = b"", kind: str = "text/html") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


NOT_FOUND = {
    "html": _respond("404 Not Found", b"<h1>Not here</h1>"),
    "json": _respond("404 Not Found", b'{"detail":"Not Found"}', "application/json"),
    "nothing": _respond("404 Not Found"),
}
SUCCESS = {
    "html": _respond("200 OK", b"<html>Hello</html>"),
    "broken html": _respond("200 OK", b"<!doctype html><p>Hello"),
    "json": _respond("200 OK", b"{}", "application/json"),
    "nothing": _respond("200 OK"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
}


def _answer_with(response: bytes) -> Callable[[Seen], str | bytes]:
    """Return a rule that gives one response; that to a HEAD has no body."""
    head = response.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    return lambda seen: head if seen.method == "HEAD" else response


async def _call(url: str, response: bytes, call: Call, **settings: Any) -> None:
    """Open a store behind a proxy, and call it when the proxy gives another service's response."""
    async with proxied(endpoint_of(url)) as proxy:
        config = config_for(url, endpoint_url=proxy.endpoint, timeout=5, **settings)
        async with AsyncDatabase("s3", config) as db:
            await db.upsert("first", {"n": 0})
            proxy.rule = _answer_with(response)
            try:
                await call(db)
            finally:
                proxy.rule = lambda seen: PASS


@pytest.mark.parametrize("response", NOT_FOUND)
@pytest.mark.parametrize("name", CALLS)
async def test_a_service_that_knows_no_path_is_a_config_error(
    url: str, layout: str, transport: str, name: str, response: str
) -> None:
    """A 404 that is not S3's own is not about a record, and none of the internal errors comes out."""
    with pytest.raises(ConfigError, match="no S3 server"):
        await _call(url, NOT_FOUND[response], CALLS[name], layout=layout, transport=transport)


@pytest.mark.parametrize("response", SUCCESS)
@pytest.mark.parametrize("name", CALLS)
async def test_a_service_that_takes_everything_is_refused(
    url: str, layout: str, transport: str, name: str, response: str
) -> None:
    """Its responses lack what S3's have: no KeyError of a client comes out."""
    lists = layout == "object" and name not in ("get", "create", "create_batch", "upsert", "replace")
    call = _call(url, SUCCESS[response], CALLS[name], layout=layout, transport=transport)
    if transport == "obstore" and response == "html" and lists:
        # object_store takes XML of any form for the listing of an empty bucket.
        with contextlib.suppress(ConfigError, StoreError):
            await call
        return

    with pytest.raises((ConfigError, StoreError), match=r"\w"):
        await call


@pytest.mark.parametrize("create_bucket", [False, True])
@pytest.mark.parametrize("response", [*NOT_FOUND.values(), *SUCCESS.values()])
async def test_another_service_is_refused_at_opening(
    url: str, layout: str, transport: str, response: bytes, *, create_bucket: bool
) -> None:
    """Before the first call, also where the bucket is to be created."""
    async with proxied(endpoint_of(url)) as proxy:
        proxy.rule = _answer_with(response)
        settings = {"layout": layout, "transport": transport, "create_bucket": create_bucket, "timeout": 5}
        config = config_for(url, endpoint_url=proxy.endpoint, **settings)

        with pytest.raises(IsthmusError):
            await AsyncDatabase.create("s3", config)
