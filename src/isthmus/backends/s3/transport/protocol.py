"""The five requests of the data path, as both transports offer them.

A transport sends one request for each call and repeats none: a repeated conditional write would
fail because the first one succeeded. A missing key or a failed condition is a result or a private
exception of `errors`; every other failure is an error of isthmus.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from isthmus.errors import IsthmusError


class Blob(NamedTuple):
    """An object's body and entity tag."""

    body: bytes
    etag: str


class Listed(NamedTuple):
    """An object in a listing; `name` is its key without the listing's prefix."""

    name: str
    etag: str
    size: int
    modified: dt.datetime


class Listing(NamedTuple):
    """A page of a listing, in the order of the keys' UTF-8 bytes."""

    found: list[Listed]
    more: bool
    rest: Any = None
    """Continues the listing where this page ends; pass it to the request for the next page, if any."""


class Transport(Protocol):
    """Puts, gets and lists objects of one bucket on one event loop."""

    repeats: bool
    """Whether the HTTP client may send a request twice by itself, so that a failed condition is verified."""

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object and return its entity tag.

        Raises `PreconditionError` if the object exists (`if_absent`), or if it is missing or has
        another entity tag (`if_match`).
        """
        ...

    async def get(self, key: str) -> Blob | None:
        """Return an object, None if there is none; raises `UnavailableError` for a truncated body."""
        ...

    async def get_range(self, key: str, start: int, end: int, etag: str) -> bytes:
        """Return the bytes from `start` to before `end` of an object with this entity tag.

        Raises `PreconditionError` if it has another one, `NoSuchKeyError` if there is no object.
        """
        ...

    async def head(self, key: str) -> str | None:
        """Return an object's entity tag, None if there is no such object or bucket."""
        ...

    async def listing(self, prefix: str, *, after: str = "", limit: int = 1000, rest: Any = None) -> Listing:
        """Return up to `limit` (at most 1,000) objects under `prefix` whose names sort after `after`.

        `rest` is that of the page that ended at `after`; it can be used once.
        """
        ...

    async def delete_many(self, keys: Sequence[str]) -> dict[str, IsthmusError]:
        """Delete up to 1,000 objects, existing or not; return the errors of those that were not deleted."""
        ...
