"""Turns the items of a bulk response into the results of their mutations.

An item answered 503 may have been applied all the same: its primary applied it and was lost before
enough copies answered. Sent again it is refused, as existing or as changed, by what may be our own
first attempt. Such a refusal is ambiguous: the record is read to find out, and where that does not
decide it, the result is an error with `applied` MAYBE.
"""

from __future__ import annotations

from collections.abc import Sequence

from isthmus._core.apply import already_exists, version_conflict
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._values import decode
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.layout import times_json, version_of
from isthmus.backends.elasticsearch.read.documents import contents, get_many
from isthmus.backends.elasticsearch.write.bulk import BulkItem
from isthmus.backends.elasticsearch.write.bulk_lines import BulkLine
from isthmus.errors import Applied, ConflictError, InvalidRecordError, IsthmusError, StoreError

# Parts of the error types of a document that the server cannot index.
_REJECTED = ("parsing", "illegal_argument", "mapper", "input_coercion", "stream_constraints")


def action_of(kind: WriteKind, index: CollectionIndex) -> str:
    """Return the phrase that begins the text of an error."""
    return f"{kind.value} in {index.name}"


def find_rejected(items: Sequence[BulkItem]) -> list[int]:
    """Return the indexes of documents that the server could not parse; they can be stored as text."""
    return [
        number
        for number, item in enumerate(items)
        if item.status == 400 and any(sign in item.kind for sign in _REJECTED)
    ]


async def create_result(
    pool: ClientPool, index: CollectionIndex, mutation: Mutation, item: BulkItem, time: str
) -> ItemResult:
    """Return the result of a create that was sent at `time`."""
    if item.status == 201:
        return mutation.id
    if item.status != 409:
        result: ItemResult = item_error(WriteKind.CREATE, index, mutation, item)
    elif mutation.own_id:
        # The id was made for this very mutation: if it is taken, then by this create, which we or
        # the cluster sent twice.
        return mutation.id
    else:
        result = already_exists(mutation.id)
    if not item.is_ambiguous:
        return result
    try:
        (hit,) = await get_many(pool, index, [mutation.id], only="created_at")
    except StoreError:  # the store does not tell
        hit = None
    # A record created before ours was sent is another's. One of the same time or later may be ours or
    # another's (two processes that claim one lock write the same record).
    if hit is not None and hit["_source"]["created_at"] < time:
        return result
    return _ambiguous_error(WriteKind.CREATE, index, mutation, item, result)


def delete_result(index: CollectionIndex, mutation: Mutation, item: BulkItem) -> ItemResult:
    """Return the result of a delete: whether there was a record."""
    result: ItemResult
    if item.status == 409:
        result = _conflict(mutation)
    elif item.status == 404 and not item.kind:
        result = False
    else:
        result = True if item.status == 200 else item_error(WriteKind.DELETE, index, mutation, item)
    return _ambiguous_error(WriteKind.DELETE, index, mutation, item, result) if item.is_ambiguous else result


async def replace_result(
    pool: ClientPool,
    index: CollectionIndex,
    kind: WriteKind,
    mutation: Mutation,
    item: BulkItem,
    line: BulkLine,
) -> ItemResult:
    """Return the result of a replace, update or upsert that was sent as `line`."""
    if item.status in (200, 201):
        return item.version(index)
    result = _conflict(mutation) if item.status == 409 else item_error(kind, index, mutation, item)
    if not item.is_ambiguous:
        return result
    if mutation.if_version is None:
        # Without a version, the record as we sent it, with our time, is what the caller wants. Any
        # other may have been ours and changed since: a second attempt would undo that change.
        try:
            (hit,) = await get_many(pool, index, [mutation.id])
        except StoreError:  # the store does not tell
            hit = None
        if hit is not None and _is_as_sent(hit, line):
            return version_of(hit, index.uuid)
    return _ambiguous_error(kind, index, mutation, item, result)


def _is_as_sent(hit: dict[str, object], line: BulkLine) -> bool:
    source = hit["_source"]
    assert isinstance(source, dict)
    if times_json(source["created_at"], source["updated_at"]) != line.times:
        return False
    return contents(source) == (decode(line.data), decode(line.metadata))


def item_error(kind: WriteKind, index: CollectionIndex, mutation: Mutation, item: BulkItem) -> IsthmusError:
    """Return the error of an item that failed for another reason than its record's state."""
    if item.status == 413:
        return InvalidRecordError(f"data: {item.reason}", path="data", record_id=mutation.id)
    if item.is_index_missing:
        return index.mark_gone()
    return item.error(f"{action_of(kind, index)} ({mutation.id!r})")


def _conflict(mutation: Mutation) -> ConflictError:
    if mutation.if_version is None:
        return race_lost(mutation, 1)
    return version_conflict(mutation.id, mutation.if_version)


def race_lost(mutation: Mutation, attempts: int) -> ConflictError:
    """Return the error of a mutation without a version that lost against other writers each time."""
    return ConflictError(
        f"record {mutation.id!r} was changed by other writers in each of {attempts} attempts",
        record_id=mutation.id,
    )


def _ambiguous_error(
    kind: WriteKind, index: CollectionIndex, mutation: Mutation, item: BulkItem, later: ItemResult
) -> IsthmusError:
    """Return the error of a mutation that an earlier attempt may have applied, noting the last result."""
    assert item.earlier is not None
    error = item_error(kind, index, mutation, item.earlier)
    error.applied = Applied.MAYBE
    error.add_note(f"it was sent again, which ended with {type(later).__name__}: {later}")
    return error
