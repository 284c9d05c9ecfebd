"""One client per event loop: requests with a connection slot, a timeout and typed errors."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import elastic_transport
import orjson
from elastic_transport import TransportError
from elasticsearch.exceptions import HTTP_EXCEPTIONS

from elasticsearch import ApiError, AsyncElasticsearch
from isthmus._core.executor import PoolStats
from isthmus._core.uncancelled import Ends
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from isthmus.backends.elasticsearch.errors import (
    PRODUCT,
    foreign_response_error,
    invalid_response_error,
    never_sent,
    translate_exception,
    translate_response,
)
from isthmus.backends.elasticsearch.responses import is_response
from isthmus.backends.elasticsearch.slots import Slots
from isthmus.backends.elasticsearch.transport import RAW_BODY, HttpNode, PlainTransport, ResponseSerializer
from isthmus.errors import ClosedError, ConfigError, QueryError, StoreError

log = logging.getLogger("isthmus.elasticsearch")

_JSON = {"accept": "application/json", "content-type": "application/json"}
_LINES = {"accept": "application/json", "content-type": "application/x-ndjson"}
OLDEST = (8, 15)
# Statuses that `call` returns by default; others raise.
_EXPECTED = frozenset({200, 201})
FOUND = frozenset({200, 404})
"""The statuses that are expected of a request whose index may be missing."""

# Statuses on which a call acts: an index is missing only if Elasticsearch itself says so. It sends the header
# with every response, and the client's own methods require it too.
_TRUSTED = frozenset({200, 201, 404})


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
            previous = RAW_BODY.set(raw_body)
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
                RAW_BODY.reset(previous)
            meta, content = answer.meta, answer.body
            if meta.status in _TRUSTED and not _is_trustworthy(method, target, meta, content):
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
    nodes = body.get("nodes", {}) if status == 200 else {}
    for node in nodes.values():
        version = str(node.get("version", ""))
        parts = version.split(".")
        if len(parts) >= 2 and parts[0].isdigit() and parts[1].isdigit():
            found = (int(parts[0]), int(parts[1]))
            if found < OLDEST:
                raise ConfigError(f"elasticsearch: the server is {version}; 8.15 is the oldest that works")


def _is_trustworthy(method: str, target: str, meta: Any, content: Any) -> bool:
    """Return whether a response is one of Elasticsearch, by its header and, of a success, by its form."""
    if meta.headers.get(PRODUCT) != "Elasticsearch":
        return False
    # Bytes were asked for by the caller, who looks into them.
    return meta.status == 404 or isinstance(content, bytes) or is_response(method, target, content)


def decode_response(body: bytes, action: str, *, writes: bool) -> Mapping[str, Any]:
    """Return the decoded body of a response that was asked for as bytes."""
    try:
        decoded = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid_response_error(action, "it is not JSON", writes=writes) from error
    if not isinstance(decoded, Mapping):
        raise invalid_response_error(action, "it is no object", writes=writes)
    return decoded


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
