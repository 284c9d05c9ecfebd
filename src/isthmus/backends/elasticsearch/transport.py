"""The transport and the nodes of the client: plain media types, headers, large bodies, no redirects."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import elastic_transport
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload, Payload
from elastic_transport import AiohttpHttpNode, AsyncTransport, NodeConfig, SniffingError
from elasticsearch.serializer import OrjsonSerializer

from isthmus.backends.elasticsearch.errors import RedirectError

_PIECE = 2**18
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class PlainTransport(AsyncTransport):
    """Requests plain JSON in place of the media type of the client's major version.

    A client of major 9 sends `compatible-with=9`, which a server 8 rejects with 400, and an API
    method's own header overrides `headers=` (elasticsearch-py 9.5.1). Every server answers plain JSON
    in its own version.
    """

    headers: Mapping[str, str] = {}
    """Headers of every request; of the client's own ones, sniffing has neither credentials nor `headers=`."""

    async def perform_request(self, method: str, target: str, **options: Any) -> Any:  # type: ignore[override]
        """Send one request with plain media types."""
        given = options.get("headers")
        headers = dict(self.headers)
        if given is not None and given is not elastic_transport.client_utils.DEFAULT:
            headers |= given
        for name in ("accept", "content-type"):
            value = headers.get(name)
            if value and "vnd.elasticsearch+" in value:
                headers[name] = "application/x-ndjson" if "ndjson" in value else "application/json"
        options["headers"] = headers
        return await super().perform_request(method, target, **options)

    async def sniff(self, is_initial_sniff: bool = False) -> None:  # type: ignore[override]
        """Discover nodes; raises `SniffingError` also for a response that is not one of Elasticsearch."""
        try:
            await super().sniff(is_initial_sniff)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # It takes whatever is JSON for a list of nodes (elasticsearch-py 9.5.1).
            raise SniffingError("the response is no list of nodes", errors=(error,)) from error


RAW_BODY: ContextVar[bool] = ContextVar("raw_body", default=False)
"""Whether the response of the request under way is wanted as bytes."""


class ResponseSerializer(OrjsonSerializer):
    """Decodes responses, but for a request that wants the bytes."""

    def loads(self, data: bytes) -> Any:
        """Return the decoded response, or its bytes."""
        return data if RAW_BODY.get() else super().loads(data)


class _Body(BytesPayload):
    """A large body, written in pieces; aiohttp 3.14 warns of one that is plain bytes."""

    def __init__(self, value: bytes) -> None:
        Payload.__init__(self, value, content_type="application/octet-stream")
        self._size = len(value)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the whole body."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the first `content_length` bytes, or the whole body."""
        view = memoryview(self._value)[:content_length]
        for start in range(0, len(view), _PIECE):
            await writer.write(view[start : start + _PIECE])


class HttpNode(AiohttpHttpNode):
    """The client's aiohttp node: large bodies in pieces, IP addresses verified, redirects refused."""

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        context = self._ssl_context
        if context is not None and context.verify_mode is ssl.CERT_REQUIRED:
            # elastic-transport 9 leaves it out for hosts given as addresses, so that a certificate
            # for any other host would be accepted.
            context.check_hostname = True

    async def perform_request(  # type: ignore[override]
        self, method: str, target: str, body: Any = None, *rest: Any, **more: Any
    ) -> Any:
        """Send one request; raises `RedirectError` for a response that redirects it."""
        if body is not None and len(body) > _PIECE and not self._http_compress:
            body = _Body(body)
        response = await super().perform_request(method, target, body, *rest, **more)
        meta = response.meta
        if meta.status in _REDIRECTS:
            raise RedirectError(meta.status, self.base_url, meta.headers.get("location") or "")
        return response

    def _create_aiohttp_session(self) -> None:
        super()._create_aiohttp_session()
        session = self.session
        assert session is not None
        # aiohttp follows redirects to any host, with the records and the headers, and the node passes no
        # option (elastic-transport 9.4.2).
        vars(session)["request"] = functools.partial(session.request, allow_redirects=False)
