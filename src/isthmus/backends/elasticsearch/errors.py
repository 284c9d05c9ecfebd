"""Translates responses and exceptions of Elasticsearch and its client into isthmus errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import elastic_transport as transport

from isthmus.errors import (
    AccessError,
    Applied,
    ConfigError,
    ConnectError,
    DeadlineError,
    IsthmusError,
    QueryError,
    RateLimitedError,
    UnavailableError,
    UnexpectedError,
)

# Types and reasons of a 400 response for a query that exceeds a limit of the server.
_LIMITS = (
    "too_many_clauses",
    "too_many_nested_clauses",
    "too_complex_to_determinize",
    "maxClauseCount",
    "max_clause_count",
    "Result window is too large",
    "The length of regex",
    "max_terms_count",
    "too_many_buckets",
    "Failed to parse regexp",
)


PRODUCT = "x-elastic-product"
"""The header by which a response is known to be one of Elasticsearch."""


class IndexMissingError(UnavailableError):
    """The name stands for no index; nothing was applied. A read finds nothing, a write creates it."""


class NoIndexError(ConfigError):
    """There is no index to read as it is; one that was deleted since it was opened is `IndexGoneError`."""


class IndexGoneError(UnavailableError):
    """The index that the handle knew is gone, or its name stands for another; nothing was applied.

    The name is to be looked up, and the call repeated.
    """


class RedirectError(transport.TransportError):
    """A response that sends the request, and all that it holds, to another address.

    A `TransportError`, so that it passes through the client, also through the user's own use of it.
    """

    def __init__(self, status: int, source: str, location: str) -> None:
        super().__init__(
            f"{source} redirects ({status}) to {_host_of(source, location)}, which was sent nothing:"
            " redirects are not followed, name the server itself in `hosts`"
        )


def _host_of(source: str, location: str) -> str:
    """Return the scheme and host that a redirect leads to; the other parts may hold a secret."""
    try:
        parts = urlsplit(urljoin(source, location))
    except ValueError:
        return "an address that is none"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"[:300]


def translate_exception(error: Exception, action: str, *, writes: bool) -> IsthmusError:
    """Return the error for an exception of the client or its transport.

    `action` begins its text; `writes` tells whether the request may have been applied.
    """
    maybe = Applied.MAYBE if writes else Applied.NO
    match error:
        case transport.ApiError():
            return translate_response(
                error.meta.status, error.body, error.meta.headers, action, writes=writes
            )
        case transport.ConnectionTimeout():
            return DeadlineError(f"{action}: no response within the request timeout", applied=maybe)
        case transport.TlsError():
            return ConnectError(
                f"{action}: TLS failed: {_root(error)}; check `ca` (the authority that signed the server's"
                " certificate) or `ssl_assert_fingerprint`",
                transient=False,
            )
        case transport.ConnectionError():
            if never_sent(error):
                return ConnectError(f"{action}: cannot connect: {_root(error)}")
            return UnavailableError(f"{action}: the connection broke: {_root(error)}", applied=maybe)
        case transport.SerializationError():
            return UnexpectedError(
                f"{action}: the response is not JSON (is this Elasticsearch?)", applied=maybe
            )
        case RedirectError():
            return ConfigError(f"{action}: {error.message}", applied=maybe)
        case transport.SniffingError():
            return UnavailableError(f"{action}: sniffing failed on every node: {_root(error)}")
        case transport.TransportError():
            return UnexpectedError(f"{action}: {_root(error)}", applied=maybe)
        case _:
            return UnexpectedError(f"{action}: {type(error).__name__}: {error}", applied=maybe)


def never_sent(error: transport.TransportError) -> bool:
    """Return whether no connection was made, so that a node cannot have seen the request."""
    unsent = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
    return any(isinstance(cause, unsent) for cause in _causes(error))


def _causes(error: transport.TransportError) -> list[BaseException]:
    # The transport empties `errors` when it raises (elastic-transport 9.4.2); the context stays.
    return [*error.errors, *([error.__context__] if error.__context__ is not None else [])]


def _root(error: transport.TransportError) -> str:
    causes = _causes(error)
    return str(causes[0] if causes else error.message)[:300]


def invalid_response_error(action: str, problem: str, *, writes: bool) -> UnexpectedError:
    """Return the error for a response that Elasticsearch does not give to a request."""
    applied = Applied.MAYBE if writes else Applied.NO
    return UnexpectedError(f"{action}: the response cannot be read: {problem}", applied=applied)


def foreign_response_error(meta: Any, content: Any, action: str, *, writes: bool) -> ConfigError:
    """Return the error for a response that is not one of Elasticsearch; see `translate_exception`."""
    text = content.decode(errors="replace") if isinstance(content, bytes) else str(content)
    server, kind = meta.headers.get("server", "a server"), meta.headers.get("content-type", "no content type")
    reason = f"a response of Elasticsearch has the header {PRODUCT}"
    if meta.headers.get(PRODUCT) == "Elasticsearch":
        reason = f"it has the header {PRODUCT}, but not the form of a response to this request"
    return ConfigError(
        f"{action}: it was not Elasticsearch that answered, but {server!r}: status {meta.status}, {kind},"
        f" {text[:80]!r} ({reason})",
        applied=Applied.MAYBE if writes else Applied.NO,
    )


def reason_of(body: Any) -> tuple[str, str]:
    """Return the types and reasons of an error response, outermost first."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if isinstance(error, str):
        return "", error
    if not isinstance(error, Mapping):
        return "", str(body)[:300] if body else ""
    kinds, reasons = [], []
    while isinstance(error, Mapping):
        kinds.append(str(error.get("type", "")))
        reasons.append(str(error.get("reason", "")))
        shards = error.get("failed_shards")
        inner = error.get("caused_by")
        if inner is None and isinstance(shards, list) and shards:
            inner = shards[0].get("reason") if isinstance(shards[0], Mapping) else None
        error = inner
    return " < ".join(kinds), "; ".join(dict.fromkeys(reasons))


def translate_response(
    status: int, body: Any, headers: Mapping[str, str] | None, action: str, *, writes: bool
) -> IsthmusError:
    """Return the error for a response whose status is not a success; see `translate_exception`."""
    kind, reason = reason_of(body)
    message = f"{action}: {status} {kind}: {reason}"[:1000]
    maybe = Applied.MAYBE if writes else Applied.NO
    if "media_type_header" in kind:
        return ConfigError(f"{message} (this client does not work with this server)")
    if "index_closed" in kind:
        return UnavailableError(f"{message} (the index is closed)", transient=False)
    if "cluster_block" in kind:
        return _block_error(message, status)
    if "search_context_missing" in kind or "No search context found" in reason:
        return UnavailableError(f"{message} (the stream was idle longer than keep_alive)", transient=False)
    match status:
        case 400 if any(sign in kind or sign in reason for sign in _LIMITS):
            return QueryError(f"{message} (it exceeds a limit of the server)")
        case 401 | 403:
            return AccessError(message)
        case 408 | 504:
            return DeadlineError(message, applied=maybe)
        case 429:
            return RateLimitedError(message, retry_after=_seconds(headers))
        case 502 | 503:
            # 503 also follows a write that the primary applied and too few copies confirmed.
            return UnavailableError(message, applied=maybe, retry_after=_seconds(headers))
        case _ if status >= 500:
            return UnexpectedError(message, applied=maybe)
        case _:
            return UnexpectedError(message)


def _block_error(message: str, status: int) -> IsthmusError:
    if status == 429:
        return UnavailableError(f"{message} (a node is out of disk space: the index takes no writes)")
    if status == 503:
        return UnavailableError(message)
    return AccessError(f"{message} (the index is read-only)")


def _seconds(headers: Mapping[str, str] | None) -> float | None:
    try:
        return float(headers["retry-after"]) if headers and "retry-after" in headers else None
    except ValueError:  # a date; not worth a parser
        return None
