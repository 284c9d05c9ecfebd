"""Positions among changes as text that a user keeps."""

from __future__ import annotations

import base64
import binascii
import zlib

import orjson

from isthmus._core.changes import Position, not_a_position, other_source
from isthmus.errors import QueryError

_FORMAT = 1
_MAX_TEXT = 10_000


def encode_position(backend: str, position: Position) -> str:
    """Return a position as URL-safe text, with a checksum."""
    parts = [position.source, position.place, position.after, position.seen]
    body = orjson.dumps([_FORMAT, backend, *parts])
    return base64.urlsafe_b64encode(_checksum(body) + body).decode().rstrip("=")


def decode_position(text: str, backend: str, collection: str) -> Position:
    """Return the position that a text stands for.

    Raises `QueryError` for a text that was changed or that no `Change` had, and
    `ChangesExpiredError` for a position of another kind of store.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise not_a_position() from None
    checksum, body = raw[:4], raw[4:]
    if len(text) > _MAX_TEXT or "=" in text or checksum != _checksum(body):
        raise not_a_position()
    # A checksum is no signature: what it fits may still be anything.
    try:
        parts = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise not_a_position() from None
    match parts:
        case [int(form), *_] if form != _FORMAT:
            raise QueryError(f"since: positions of format {form} are not known to this version of isthmus")
        case [int(), str(of), str(source), str(place), str() | None as after, str() | None as seen]:
            if of != backend:
                raise other_source(collection)
            return Position(source, place, after, seen)
    raise not_a_position()


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4)
