"""A redirect is refused: records and credentials go to the configured hosts only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import elastic_transport
import pytest
import pytest_asyncio

from isthmus._core.executor import PageRequest, WriteKind
from isthmus._query.ast import TRUE
from isthmus.errors import Applied, ConfigError
from tests.elasticsearch.by_value import write
from tests.elasticsearch.conftest import Build
from tests.elasticsearch.proxy import AnswerProxy
from tests.elasticsearch.test_strangers import backend_at

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]


class OtherHost:
    """A server that notes who connects to it, and answers nothing."""

    def __init__(self) -> None:
        self.connections = 0
        self.url = ""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Count a connection and close it."""
        self.connections += 1
        writer.close()


@pytest_asyncio.fixture
async def other() -> AsyncIterator[OtherHost]:
    """Return a running host of somebody else."""
    host = OtherHost()
    server = await asyncio.start_server(host.accept, "127.0.0.1", 0)
    host.url = f"http://localhost:{server.sockets[0].getsockname()[1]}"
    yield host
    server.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_call_follows_a_redirect(
    proxy: AnswerProxy, build: Build, other: OtherHost, status: int
) -> None:
    """Each call of an open handle names the other host in one typed error, and sends it nothing."""
    backend = build(hosts=[proxy.url], bearer_token="canary")
    index = backend.default_collection
    await write(backend, WriteKind.CREATE, a={"v": 1})
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: backend.read(index, ["a"]),
        lambda: backend.count(index, TRUE),
        lambda: backend.fetch(index, PageRequest(TRUE, (), 5)),
        lambda: backend.remove(index, TRUE),
        lambda: backend.drop(index),
        backend.ping,
    ]

    proxy.redirect = status, other.url
    for call in calls:
        with pytest.raises(ConfigError, match=rf"redirects \({status}\) to {other.url}, "):
            await call()
    for kind in WriteKind:
        with pytest.raises(ConfigError, match=other.url) as caught:
            await write(backend, kind, a={"v": 2}, b={"v": 3})
        assert "canary" not in str(caught.value)
    assert caught.value.applied is Applied.MAYBE
    with pytest.raises(elastic_transport.TransportError, match=other.url):
        await (await backend.native()).get(index=index, id="a")
    proxy.redirect = None

    assert other.connections == 0
    a, b = await backend.read(index, ["a", "b"])
    assert a is not None
    assert (a.data, b) == ({"v": 1}, None)


@pytest.mark.parametrize("more", [{}, {"sniff": True}])
async def test_a_redirect_of_the_first_request_is_refused(
    proxy: AnswerProxy, other: OtherHost, more: dict[str, Any]
) -> None:
    """Credentials go nowhere else; neither does the message repeat what the other address holds."""
    proxy.redirect = 302, f"{other.url.replace('//', '//user:hush@')}/login?token=hush&next="
    backend = backend_at(proxy.url, user="u", password="canary", **more)

    with pytest.raises(ConfigError, match=other.url) as caught:
        await backend.open("records")
    await backend.close()

    assert "hush" not in str(caught.value)
    assert other.connections == 0


@pytest.mark.parametrize("location", ["/login", "", "http://[", "//["])
async def test_an_address_without_a_host_is_that_of_the_server(proxy: AnswerProxy, location: str) -> None:
    """A page to log in at, and what is no address, are refused like another host."""
    proxy.redirect = 302, location
    backend = backend_at(proxy.url)

    with pytest.raises(ConfigError, match=r"redirects \(302\) to (http|an address that is none)"):
        await backend.open("records")
    await backend.close()
