"""The interface of the two layouts: records in and out of the objects under one prefix."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from isthmus._core.capabilities import Capabilities
from isthmus._core.executor import ItemResult, Mutation, Page, PageRequest, WriteKind
from isthmus._query.ast import Predicate
from isthmus._record import Record

logger = logging.getLogger("isthmus.s3")

MAX_RECORD_BYTES = 64 * 2**20

OBJECT = Capabilities(
    durable=True, conditional_create=True, compare_and_set=True, drop=True, max_record_bytes=MAX_RECORD_BYTES
)
LOG = Capabilities(
    durable=True,
    changes=True,
    atomic_batch=True,
    conditional_create=True,
    compare_and_set=True,
    drop=True,
    unique=True,
    max_record_bytes=MAX_RECORD_BYTES,
)


def end_of(request: PageRequest) -> int | None:
    """Return how many matching records precede the end of a page; None if it has no limit."""
    return None if request.size is None else request.offset + request.size


def start_id(request: PageRequest) -> str | None:
    """Return the id after which a page starts; None for the first page."""
    if request.after is None or request.after.position is None:
        return None
    return str(request.after.position[-1])


class Layout(Protocol):
    """Records of one bucket on one loop. A prefix is that of keys, empty or ending in a slash."""

    async def read(self, prefix: str, ids: Sequence[str]) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none."""
        ...

    async def write(
        self, prefix: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations, as `Executor.write` describes."""
        ...

    async def page(self, prefix: str, request: PageRequest) -> Page:
        """Return a page by id, or in any order."""
        ...

    async def count(self, prefix: str, where: Predicate) -> int:
        """Return how many records match a predicate that the layout evaluates exactly."""
        ...

    async def clear(self, prefix: str) -> int:
        """Delete all records and return how many there were."""
        ...

    async def drop(self, prefix: str) -> None:
        """Delete all objects of a collection but its marker; foreign objects stay."""
        ...


_reported: set[str] = set()


def report_foreign(key: str, why: str) -> None:
    """Warn once that an object is ignored."""
    if key not in _reported and len(_reported) < 10_000:
        _reported.add(key)
        logger.warning("the object %r is ignored: %s", key, why)
