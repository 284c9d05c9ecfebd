"""What the store tells of a change that an earlier attempt may have made.

An item that was answered 503 may have been done all the same: its primary did it and was lost
before enough copies answered. Sent again it is refused, as existing or as changed, by what may be
our own first attempt. (An id made for the change itself is ours for sure: `outcomes.created`.)
"""

from __future__ import annotations

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._values import decode
from isthmus.backends.elasticsearch.bulk import Item
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.documents import get_many
from isthmus.backends.elasticsearch.index import Index
from isthmus.backends.elasticsearch.layout import version_of
from isthmus.backends.elasticsearch.outcomes import doubtful
from isthmus.backends.elasticsearch.prepare import Prepared
from isthmus.backends.elasticsearch.stored import contents
from isthmus.errors import IsthmusError, StoreError

_REFUSALS = frozenset({404, 409})


def refused_again(item: Item) -> bool:
    """Return whether our own earlier attempt may be why an item was refused."""
    return item.earlier is not None and item.status in _REFUSALS


async def created(
    pool: ClientPool, index: Index, mutation: Mutation, item: Item, time: str, said: ItemResult
) -> ItemResult:
    """Return the result of a create whose id the caller chose, sent at that time.

    A record that was created before is another's. One of the same time or later may be ours, or
    another's in our place (two processes that claim one lock write the same record): the doubt stays.
    """
    if not isinstance(said, IsthmusError):
        return said
    try:
        (hit,) = await get_many(pool, index, [mutation.id], only="created_at")
    except StoreError:  # the store does not tell
        hit = None
    if hit is not None and hit["_source"]["created_at"] < time:
        return said
    return doubtful(WriteKind.CREATE, index, mutation, item, said)


async def replaced(
    pool: ClientPool,
    index: Index,
    kind: WriteKind,
    mutation: Mutation,
    item: Item,
    sent: Prepared,
    said: ItemResult,
) -> ItemResult:
    """Return the result of a replace, update or upsert.

    Without a version, the record as we sent it, with our time, is what was asked for. Otherwise it
    may have been ours and changed since, and to do it once more would undo that: the doubt stays.
    """
    if mutation.if_version is None:
        try:
            (hit,) = await get_many(pool, index, [mutation.id])
        except StoreError:  # the store does not tell
            hit = None
        if hit is not None and _as_sent(hit, sent):
            return version_of(hit)
    return doubtful(kind, index, mutation, item, said)


def _as_sent(hit: dict[str, object], sent: Prepared) -> bool:
    source = hit["_source"]
    assert isinstance(source, dict)
    if f'"updated_at":"{source["updated_at"]}"'.encode() not in sent.times:
        return False
    return contents(source) == (decode(sent.data), decode(sent.metadata))
