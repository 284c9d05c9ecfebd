"""What a layout does for the backend: records in and out of objects under one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from isthmus._core.capabilities import Capabilities
from isthmus._core.executor import ItemResult, Mutation, Page, PageRequest, WriteKind
from isthmus._query.ast import Predicate
from isthmus._record import Record

MAX_RECORD_BYTES = 64 * 2**20

OBJECT = Capabilities(
    durable=True, conditional_create=True, compare_and_set=True, max_record_bytes=MAX_RECORD_BYTES
)
LOG = Capabilities(
    durable=True,
    atomic_batch=True,
    conditional_create=True,
    compare_and_set=True,
    max_record_bytes=MAX_RECORD_BYTES,
)

NO_LIMIT = 2**62
"""More records than there can be."""


def end_of(request: PageRequest) -> int:
    """Return how many matching records are passed at the end of a page."""
    return request.offset + request.size_up_to(NO_LIMIT)


def start_id(request: PageRequest) -> str | None:
    """Return the id after which a page begins; None at the beginning."""
    if request.after is None or request.after.position is None:
        return None
    return str(request.after.position[-1])


class Layout(Protocol):
    """Records of one bucket on one loop. A place is a key prefix, empty or ending in a slash."""

    async def read(self, prefix: str, ids: Sequence[str]) -> list[Record | None]:
        """Return the records of these ids."""
        ...

    async def write(
        self, prefix: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply changes, as `Executor.write` says."""
        ...

    async def page(self, prefix: str, request: PageRequest) -> Page:
        """Return a page by id, or in any order."""
        ...

    async def count(self, prefix: str, where: Predicate) -> int:
        """Return how many records match a predicate about ids alone."""
        ...

    async def clear(self, prefix: str) -> int:
        """Delete every record and return how many there were."""
        ...
