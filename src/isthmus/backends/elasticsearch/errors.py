"""Turns what Elasticsearch and its client say into the error tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

# Reasons in an answer 400 that mean: this query is beyond the server's limits.
_TOO_MUCH = (
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


def failed_call(error: Exception, doing: str, *, writes: bool) -> IsthmusError:
    """Return the error for an exception of the client or its transport."""
    maybe = Applied.MAYBE if writes else Applied.NO
    match error:
        case transport.ApiError():
            return failed_answer(error.meta.status, error.body, error.meta.headers, doing, writes=writes)
        case transport.ConnectionTimeout():
            return DeadlineError(f"{doing}: no answer within the request timeout", applied=maybe)
        case transport.TlsError():
            return ConnectError(f"{doing}: TLS failed: {_root(error)}", transient=False)
        case transport.ConnectionError():
            if never_sent(error):
                return ConnectError(f"{doing}: cannot connect: {_root(error)}")
            return UnavailableError(f"{doing}: the connection broke: {_root(error)}", applied=maybe)
        case transport.SerializationError():
            return UnexpectedError(f"{doing}: the answer is not JSON (is this Elasticsearch?)", applied=maybe)
        case transport.SniffingError():
            return UnavailableError(f"{doing}: no node said which nodes there are: {_root(error)}")
        case transport.TransportError():
            return UnexpectedError(f"{doing}: {_root(error)}", applied=maybe)
        case _:
            return UnexpectedError(f"{doing}: {type(error).__name__}: {error}", applied=maybe)


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


def reason_of(body: Any) -> tuple[str, str]:
    """Return an error answer's type and reason, the innermost that it names."""
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
            inner = shards[0].get("reason")
        error = inner
    return " < ".join(kinds), "; ".join(dict.fromkeys(reasons))


def failed_answer(
    status: int, body: Any, headers: Mapping[str, str] | None, doing: str, *, writes: bool
) -> IsthmusError:
    """Return the error for an answer whose status is not a success."""
    kind, reason = reason_of(body)
    said = f"{doing}: {status} {kind}: {reason}"[:1000]
    maybe = Applied.MAYBE if writes else Applied.NO
    if "media_type_header" in kind:
        return ConfigError(f"{said} (this client and this server do not fit)")
    if "index_closed" in kind:
        return UnavailableError(f"{said} (the index is closed)", transient=False)
    if "cluster_block" in kind:
        return _blocked(said, status)
    if "search_context_missing" in kind or "No search context found" in reason:
        return UnavailableError(f"{said} (the stream stood longer than keep_alive)", transient=False)
    match status:
        case 400 if any(sign in kind or sign in reason for sign in _TOO_MUCH):
            return QueryError(f"{said} (beyond a limit of the server)")
        case 401 | 403:
            return AccessError(said)
        case 408 | 504:
            return DeadlineError(said, applied=maybe)
        case 429:
            return RateLimitedError(said, retry_after=_seconds(headers))
        case 502 | 503:
            # 503 also comes after a write reached the primary but not enough copies.
            return UnavailableError(said, applied=maybe, retry_after=_seconds(headers))
        case _ if status >= 500:
            return UnexpectedError(said, applied=maybe)
        case _:
            return UnexpectedError(said)


def _blocked(said: str, status: int) -> IsthmusError:
    if status == 429:
        return UnavailableError(f"{said} (a node is out of disk space: the index takes no writes)")
    if status == 503:
        return UnavailableError(said)
    return AccessError(f"{said} (the index is read-only)")


def _seconds(headers: Mapping[str, str] | None) -> float | None:
    try:
        return float(headers["retry-after"]) if headers and "retry-after" in headers else None
    except ValueError:  # a date; not worth a parser
        return None
