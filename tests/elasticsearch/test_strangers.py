"""A server that answers something that is no Elasticsearch: one typed error that says what answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import elastic_transport
import pytest

import elasticsearch
from isthmus._core.executor import AggregateRequest, PageRequest, WriteKind
from isthmus._path import parse_path
from isthmus._query.ast import TRUE, Function, Measure
from isthmus.backends.elasticsearch import plugin
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.errors import Applied, ConfigError, ConnectError, IsthmusError, StoreError
from tests.elasticsearch.by_value import write
from tests.elasticsearch.conftest import Build

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]

_MEASURES = (Measure("most", Function.MAX, parse_path("v")),)
_INDICES = b"{" + b",".join(b'"i%d":{"aliases":{}}' % number for number in range(33)) + b"}"


def respond(status: int, kind: str, body: bytes, *more: str) -> bytes:
    """Return a whole HTTP response."""
    head = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


_PRODUCT = "x-elastic-product: Elasticsearch"
_HELLO = respond(200, "application/json", b"{}", _PRODUCT)
# What a gateway answers to everything that adds the header to whatever is behind it.
_WITH_HEADER = [
    b"[1]",
    b"null",
    b"5",
    b'"x"',
    b"",
    b"{}",
    b"<html>Welcome</html>",
    _INDICES,
    b'{"nodes":[1]}',
    b'{"nodes":{"x":null}}',
    b'{"nodes":{"x":{"version":"9.2.0"}}}',
    b'{"nodes":{"x":{"version":9}}}',
    b'{"docs":[1],"hits":[1],"items":[1],"id":1,"_shards":1,"responses":[1,2,3],"count":"x"}',
    b'{"docs":[],"hits":{"hits":[]},"errors":true,"items":[],"_shards":{"failed":1,"failures":[1]}}',
]
STRANGERS = {
    "a page": respond(200, "text/html", b"<html>Welcome to nginx</html>", "server: nginx"),
    "a missing page": respond(404, "text/html", b"<html>not found</html>", "server: nginx"),
    "another API": respond(200, "application/json", _INDICES, "server: uvicorn"),
    "a missing route": respond(404, "application/json", b'{"detail":"Not Found"}', "server: uvicorn"),
    "a list": respond(200, "application/json", b"[1, 2]"),
    "null": respond(200, "application/json", b"null"),
    "no JSON": respond(200, "application/json", b"{"),
    "nothing": respond(200, "application/json", b""),
    "no content": respond(204, "text/plain", b""),
    "a redirect": respond(302, "text/html", b"", "location: /login"),
    "a login": respond(401, "text/html", b"<html>log in</html>"),
    "an error": respond(500, "text/html", b"<html>oops</html>"),
    **{
        f"with the header of Elasticsearch: {body.decode()[:30]}": respond(
            200, "text/html" if body.startswith(b"<") else "application/json", body, _PRODUCT
        )
        for body in _WITH_HEADER
    },
    "no HTTP": b"SSH-2.0-OpenSSH_9.2p1\r\n",
}


@contextlib.asynccontextmanager
async def answering(response: bytes, *, greets: bool = False) -> AsyncIterator[str]:
    """Run a server that gives the same response to everything, and yield its URL.

    One that `greets` is Elasticsearch as long as a client connects.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.split(b":")[1]))
            writer.write(_HELLO if greets and b"/_nodes" in head else response)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def backend_at(url: str, **settings: Any) -> ElasticsearchBackend:
    """Return a backend for a URL."""
    config = {"hosts": [url], "index": "records", "request_timeout": 5, **settings}
    made = plugin.build(ElasticsearchConfig.load(config, environ={}))
    assert isinstance(made, ElasticsearchBackend)
    return made


@pytest.mark.parametrize("layout", ["mapped", "native"])
@pytest.mark.parametrize("stranger", STRANGERS)
async def test_a_stranger_is_recognized_when_it_is_opened(stranger: str, layout: str) -> None:
    """In time, and the message shows what answered where a response claims success or absence."""
    async with answering(STRANGERS[stranger]) as url:
        backend = backend_at(url, layout=layout)
        start = time.monotonic()
        with pytest.raises(IsthmusError) as caught:
            await backend.open("records")
        await backend.close()

    assert time.monotonic() - start < 4
    claims = b" 200 " in STRANGERS[stranger][:16] or b" 404 " in STRANGERS[stranger][:16]
    if claims and stranger != "no JSON":
        assert isinstance(caught.value, ConfigError)
        assert "it was not Elasticsearch that answered" in str(caught.value)
    else:
        assert isinstance(caught.value, (ConfigError, StoreError))


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_a_stranger_has_no_nodes_to_discover(stranger: str) -> None:
    """The client itself takes whatever is JSON for a list of nodes."""
    async with answering(STRANGERS[stranger]) as url:
        backend = backend_at(url, sniff=True)
        with pytest.raises(IsthmusError):
            await backend.open("records")
        await backend.close()


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_a_stranger_in_the_place_of_an_open_server(build: Build, stranger: str) -> None:
    """Each call ends with one typed error; an absence that a stranger reports is none."""
    real = build()
    index = real.default_collection
    await write(real, WriteKind.CREATE, a={"v": 1})
    async with answering(STRANGERS[stranger], greets=True) as url:
        backend = backend_at(url, index=index)
        state = backend._collection(index)
        # As a handle has it whose server was there a moment ago.
        state.index.is_ready, state.index.written, state.index.visible = True, 1, 1
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: backend.read(index, ["a"]),
            lambda: backend.count(index, TRUE),
            lambda: backend.fetch(index, PageRequest(TRUE, (), 5)),
            lambda: backend.fetch(index, PageRequest(TRUE, None, 5)),
            lambda: backend.fetch(index, PageRequest(TRUE, (), None)),
            lambda: backend.aggregate(index, AggregateRequest(TRUE, _MEASURES)),
            lambda: backend.remove(index, TRUE),
            lambda: backend.drop(index),
        ]
        if b"\r\n\r\n{}" not in STRANGERS[stranger]:  # Elasticsearch says so too, of a cluster without any
            calls.append(backend.collections)
        for call in calls:
            with pytest.raises(IsthmusError):
                await call()
        await backend.close()
        native = backend_at(url, index=index, layout="native")
        native._collection(index).index.is_ready = True
        for read in (
            lambda: native.read(index, ["a"]),
            lambda: native.fetch(index, PageRequest(TRUE, None, 5)),
            lambda: native.count(index, TRUE),
        ):
            with pytest.raises(IsthmusError):
                await read()
        await native.close()
        for kind in WriteKind:
            with pytest.raises(IsthmusError):
                for result in await write(backend, kind, a={"v": 2}):
                    raise result
        await backend.close()


async def test_the_cause_is_the_error_of_the_client(build: Build) -> None:
    """Of the transport if no response came, of the client's own class for its status otherwise."""
    nowhere = backend_at("http://127.0.0.1:9")
    with pytest.raises(ConnectError) as refused:
        await nowhere.open("records")
    await nowhere.close()
    assert isinstance(refused.value.__cause__, elastic_transport.ConnectionError)

    backend = build()
    native = await backend.native()
    await write(backend, WriteKind.CREATE, a={"v": 1})
    await native.indices.close(index=backend.default_collection)
    with pytest.raises(StoreError, match="closed") as closed:
        await backend.count(backend.default_collection, TRUE)
    assert isinstance(closed.value.__cause__, elasticsearch.BadRequestError)
    assert closed.value.applied is Applied.NO
