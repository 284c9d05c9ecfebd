"""The five verbs that the data path needs of S3, and what they give.

A transport sends one request for a call and repeats nothing: a repeat of a conditional write
would meet its own success. Missing keys and failed conditions come as answers or as the private
exceptions of `errors`; all else is an error of isthmus.
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
    """An object in a listing; the key without the listing's prefix."""

    name: str
    etag: str
    size: int
    modified: dt.datetime


class Listing(NamedTuple):
    """A page of a listing in the order of UTF-8 bytes."""

    found: list[Listed]
    more: bool
    rest: Any = None
    """What goes on where this ended, for the same operation's next page: it may know that there is none."""


class Transport(Protocol):
    """Puts, gets and lists objects of one bucket on one event loop."""

    repeats: bool
    """Whether what carries the requests may send one twice by itself, so that a refusal is looked at."""

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object and return its entity tag.

        Raises `PreconditionError` if there is one already (`if_absent`), or if it is missing or
        another one (`if_match`).
        """
        ...

    async def get(self, key: str) -> Blob | None:
        """Return an object, None if there is none; a body that ends early is an error."""
        ...

    async def head(self, key: str) -> str | None:
        """Return an object's entity tag, None if there is none (or no bucket: the answer has no body)."""
        ...

    async def listing(self, prefix: str, *, after: str = "", limit: int = 1000, rest: Any = None) -> Listing:
        """Return up to `limit` (1,000) objects whose key is `prefix` and a name beyond `after`.

        `rest` is that of the page that ended at `after`, used once: what it holds is not read again.
        """
        ...

    async def delete_many(self, keys: Sequence[str]) -> dict[str, IsthmusError]:
        """Delete up to 1,000 objects, there or not; return the errors of those that failed."""
        ...
