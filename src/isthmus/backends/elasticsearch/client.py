"""One client per event loop: requests with a connection slot, a timeout and typed errors."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import logging
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import elastic_transport
import orjson
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload, Payload
from elastic_transport import AiohttpHttpNode, AsyncTransport, NodeConfig, TransportError
from elasticsearch.exceptions import HTTP_EXCEPTIONS
from elasticsearch.serializer import OrjsonSerializer

from elasticsearch import ApiError, AsyncElasticsearch
from isthmus._core.executor import PoolStats
from isthmus._core.uncancelled import Ends
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.elasticsearch.errors import (
    PRODUCT,
    RedirectError,
    foreign_response_error,
    never_sent,
    translate_exception,
    translate_response,
)
from isthmus.backends.elasticsearch.slots import Slots
from isthmus.errors import Applied, ClosedError, ConfigError, QueryError, StoreError, UnexpectedError

log = logging.getLogger("isthmus.elasticsearch")

_JSON = {"accept": "application/json", "content-type": "application/json"}
_LINES = {"accept": "application/json", "content-type": "application/x-ndjson"}
OLDEST = (8, 15)
_PIECE = 2**18
# Statuses that `call` returns by default; others raise.
_EXPECTED = frozenset({200, 201})
FOUND = frozenset({200, 404})
"""The statuses that are expected of a request whose index may be missing."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Statuses on which a call acts: an index is missing only if Elasticsearch itself says so. It sends the header
# with every response, and the client's own methods require it too.
_TRUSTED = frozenset({200, 201, 404})


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


_RAW_BODY: ContextVar[bool] = ContextVar("raw_body", default=False)


class ResponseSerializer(OrjsonSerializer):
    """Decodes responses, but for a request that wants the bytes."""

    def loads(self, data: bytes) -> Any:
        """Return the decoded response, or its bytes."""
        return data if _RAW_BODY.get() else super().loads(data)


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


class ClientPool:
    """An `AsyncElasticsearch` of one loop, and the slots for its connections."""

    def __init__(self, config: ElasticsearchConfig) -> None:
        self._config = config
        self.client = _client(config)
        # A derived client has the same transport, and the retries that users expect.
        self.native = self.client.options(max_retries=3)
        self._slots = Slots(config.pool.maxsize * len(config.hosts), config.pool.timeout)
        self._closed = False
        self.ends = Ends()
        """Points in time that are being closed."""
        self.points_in_time: set[str] = set()
        """The ids of those that are open."""

    async def close(self) -> None:
        """Close the points in time of streams that were left open, then every connection."""
        await self.ends.drain()
        for id in list(self.points_in_time):
            await self.close_point_in_time(id)
        self._closed = True
        await self.client.close()

    def discard(self) -> None:
        """Close the sockets, those in use too; the loop may be closed."""
        self._closed = True
        for node in self.client.transport.node_pool.all():
            session = getattr(node, "session", None)
            if session is None or session.closed:
                continue
            if session._loop.is_running():  # this one: those in use are closed too
                self.ends.finish(session.close(), "isthmus-pool-drop")
            else:
                _drop(session)

    def is_healthy(self) -> bool:
        """Return whether this is open; connections are opened again as needed."""
        return not self._closed

    def stats(self) -> PoolStats:
        """Return how the slots are used; a slot is the permission to use one connection."""
        return self._slots.stats(self._config.pool.connections)

    async def close_point_in_time(self, id: str) -> None:
        """Release a point in time at the server; one that cannot be released expires by itself.

        So a failure here is no failure of the call that is done, nor takes the place of its own.
        """
        self.points_in_time.discard(id)
        try:
            await self.call("DELETE", "/_pit", {"id": id}, action="close", expected=FOUND)
        except StoreError as error:
            log.debug("a point in time could not be closed: %s", error)

    async def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        action: str,
        writes: bool = False,
        lines: bool = False,
        expected: frozenset[int] = _EXPECTED,
        timeout: float | None = None,
        raw_body: bool = False,
    ) -> tuple[int, Any]:
        """Send one request and return its status and decoded body.

        `body` is bytes or a value that is sent as JSON; `lines` marks it as newline-delimited.
        `action` begins the text of errors, `writes` tells whether the request may change the store.
        Statuses not in `expected` raise. `timeout` is in seconds. With `raw_body` the body of a
        response of status 200 is bytes.

        A request that no node has received is sent to the next one; a read also if a node fails
        while it answers.
        """
        if body is not None and not isinstance(body, bytes):
            body = json_text(body)
        headers = _LINES if lines else _JSON
        attempts = len(self._config.hosts)
        while True:
            attempts -= 1
            previous = _RAW_BODY.set(raw_body)
            try:
                answer = await self._send(method, target, body, headers, timeout)
            except TransportError as error:
                again = never_sent(error) or (
                    not writes and isinstance(error, elastic_transport.ConnectionError)
                )
                if attempts > 0 and again:
                    continue
                raise translate_exception(error, action, writes=writes) from error
            finally:
                _RAW_BODY.reset(previous)
            meta, content = answer.meta, answer.body
            if meta.status in _TRUSTED and meta.headers.get(PRODUCT) != "Elasticsearch":
                raise foreign_response_error(meta, content, action, writes=writes)
            if raw_body and meta.status != 200 and isinstance(content, bytes):
                content = _decode_error(content)
            if meta.status in expected:
                return meta.status, content
            if attempts > 0 and not writes and meta.status in (502, 503):
                continue
            # As the client's own methods would raise it.
            cause = HTTP_EXCEPTIONS.get(meta.status, ApiError)(f"{method} {target}", meta, content)
            raise translate_response(meta.status, content, meta.headers, action, writes=writes) from cause

    async def _send(
        self, method: str, target: str, body: bytes | None, headers: dict[str, str], timeout: float | None
    ) -> Any:
        async with self._slots.hold():
            if self._closed:  # the client would open connections again
                raise ClosedError("elasticsearch: the handle was closed")
            return await self.client.transport.perform_request(
                method,
                target,
                body=body,
                headers=headers,
                max_retries=0,
                request_timeout=timeout or self._config.request_timeout,
            )


async def open_client(config: ElasticsearchConfig) -> ClientPool:
    """Return a pool after a check of the server's version; opens the config's `connections`."""
    pool = ClientPool(config)
    try:
        await _check(pool)
        if config.pool.connections > 1:
            warm = (_hello(pool) for _ in range(config.pool.connections))
            await asyncio.gather(*warm)
    except BaseException:
        await pool.ends.run(pool.close(), "isthmus-pool-close")
        raise
    return pool


async def _hello(pool: ClientPool) -> tuple[int, Any]:
    # `info()` and `ping()` do not tell what went wrong, and minimal servers lack them.
    expected = frozenset({200, 400, 403, 404, 405, 410})
    path = "/_nodes/_local?filter_path=nodes.*.version"
    return await pool.call("GET", path, action="connect", expected=expected)


async def _check(pool: ClientPool) -> None:
    """Raise `ConfigError` for a server that is too old, if it tells its version."""
    status, body = await _hello(pool)
    nodes = body.get("nodes", {}) if status == 200 and isinstance(body, Mapping) else {}
    for node in nodes.values():
        version = str(node.get("version", ""))
        parts = version.split(".")
        if len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit():
            found = (int(parts[0]), int(parts[1]))
            if found < OLDEST:
                raise ConfigError(f"elasticsearch: the server is {version}; 8.15 is the oldest that works")


def decode_response(body: bytes, action: str, *, writes: bool) -> Any:
    """Return the decoded body of a response that was asked for as bytes."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        applied = Applied.MAYBE if writes else Applied.NO
        raise UnexpectedError(f"{action}: the response is not JSON", applied=applied) from error


def _decode_error(body: bytes) -> Any:
    """Return the decoded body of an error response; that of a proxy may be no JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")


def json_text(body: Any) -> bytes:
    """Return a request's body; raises `QueryError` for a query that is nested deeper than JSON allows."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        # Operands were checked when the query was built: only the query itself can be too deep (254 levels).
        raise QueryError(f"the query is nested too deeply for elasticsearch ({error})") from None


def _authorization(config: ElasticsearchConfig) -> dict[str, str]:
    if config.api_key is not None:
        return {"authorization": f"ApiKey {config.api_key.get_secret_value()}"}
    if config.bearer_token is not None:
        return {"authorization": f"Bearer {config.bearer_token.get_secret_value()}"}
    if config.user is not None and config.password is not None:
        secret = f"{config.user}:{config.password.get_secret_value()}".encode()
        return {"authorization": "Basic " + base64.b64encode(secret).decode()}
    return {}


def _client(config: ElasticsearchConfig) -> AsyncElasticsearch:
    options: dict[str, Any] = {}
    if any(host.startswith("https:") for host in config.hosts):
        options["verify_certs"] = config.verify_certs and config.ssl_assert_fingerprint is None
        options["ssl_show_warn"] = False
        given = {
            "ca_certs": config.ca,
            "client_cert": config.client_cert,
            "client_key": config.client_key,
            "ssl_assert_fingerprint": config.ssl_assert_fingerprint,
        }
        options |= {name: str(value) for name, value in given.items() if value is not None}
    if config.headers:
        options["headers"] = {name: value.get_secret_value() for name, value in config.headers.items()}
    if config.api_key is not None:
        options["api_key"] = config.api_key.get_secret_value()
    elif config.bearer_token is not None:
        options["bearer_auth"] = config.bearer_token.get_secret_value()
    elif config.user is not None and config.password is not None:
        options["basic_auth"] = (config.user, config.password.get_secret_value())
    try:
        client = AsyncElasticsearch(
            list(config.hosts),
            transport_class=PlainTransport,
            node_class=HttpNode,
            serializers={"application/json": ResponseSerializer()},
            connections_per_node=config.pool.maxsize,
            request_timeout=config.request_timeout,
            http_compress=config.http_compress,
            sniff_on_start=config.sniff,
            max_retries=0,
            **options,
        )
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"elasticsearch: {error}") from error
    assert isinstance(client.transport, PlainTransport)
    headers = {name.lower(): value.get_secret_value() for name, value in config.headers.items()}
    client.transport.headers = headers | _authorization(config)
    return client


def _drop(session: Any) -> None:
    """Close an aiohttp session's sockets without its loop, which may be closed, and without warnings."""
    connector = session.connector
    session.detach()
    if connector is None or connector.closed:
        return
    for connections in connector._conns.values():
        for protocol, *_ in connections:
            transport = protocol.transport
            # A transport closes its socket in a callback of its loop, which does not run any more.
            socket = getattr(transport, "_sock", None)
            if socket is not None:
                transport._sock = None
                with contextlib.suppress(OSError):
                    socket.close()
    connector._conns.clear()
    connector._closed = True
