"""Cursors as tokens: a position, bound to its query and collection, that a user may keep."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Any

import orjson

from isthmus._query.ast import SortKey
from isthmus._query.codec import to_json
from isthmus._query.order import Position
from isthmus._query.query import Query
from isthmus.errors import QueryError

_FORMAT = 1
_MAX_TOKEN = 2_000_000


def encode_cursor(position: Position, query: Query, collection: str, secret: bytes) -> str:
    """Return a URL-safe token for a position; it survives restarts and fits only this query."""
    body = orjson.dumps([_FORMAT, position])
    return base64.urlsafe_b64encode(_digest(body, query, collection, secret) + body).decode().rstrip("=")


def decode_cursor(token: Any, query: Query, collection: str, secret: bytes) -> Position:
    """Return the position of a token.

    Raises `QueryError` for a token that was changed, or made for another query or collection.
    """
    if not isinstance(token, str) or len(token) > _MAX_TOKEN:
        raise QueryError("cursor: expected the text that page() returned")
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise QueryError("cursor: this is not a cursor that page() returned") from None
    digest, body = raw[:16], raw[16:]
    # The last character of base64 has spare bits; only the spelling that we wrote is ours.
    ours = base64.urlsafe_b64encode(raw).decode().rstrip("=") == token
    if not ours or not hmac.compare_digest(digest, _digest(body, query, collection, secret)):
        raise QueryError("cursor: it was changed, or belongs to another query, collection or secret")
    decoded = orjson.loads(body)
    if decoded[0] != _FORMAT:
        raise QueryError(f"cursor: format {decoded[0]} is not known to this version of isthmus")
    *keys, last = decoded[1]
    return (*(tuple(key) for key in keys), last)


def _digest(body: bytes, query: Query, collection: str, secret: bytes) -> bytes:
    # Page sizes may change on the way; conditions and order may not.
    shape = to_json(Query(where=query.where, order=query.order))
    bound = orjson.dumps([collection, shape], option=orjson.OPT_SORT_KEYS)
    return hmac.new(secret or b"isthmus", bound + b"\0" + body, hashlib.sha256).digest()[:16]


def fits_order(position: Position, order: tuple[SortKey, ...]) -> bool:
    """Return whether a position has a value for each sort key."""
    return len(position) == len(order) + 1
