"""What the server said of an item, as the result of its change."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus.backends.elasticsearch.bulk import Item
from isthmus.backends.elasticsearch.index import Index
from isthmus.errors import AlreadyExistsError, Applied, ConflictError, InvalidRecordError, IsthmusError

_REFUSED = ("parsing", "illegal_argument", "mapper", "input_coercion", "stream_constraints")


def doing(kind: WriteKind, index: Index) -> str:
    """Return what is being done, for an error's text."""
    return f"{kind.value} in {index.name}"


def unparsed(items: Sequence[Item]) -> list[int]:
    """Return the places of documents that the server could not parse."""
    return [
        at
        for at, item in enumerate(items)
        if item.status == 400 and any(sign in item.kind for sign in _REFUSED)
    ]


def created(index: Index, mutation: Mutation, item: Item) -> ItemResult:
    """Return the result of a create."""
    if item.status == 201:
        return mutation.id
    if item.status != 409:
        return failure(WriteKind.CREATE, index, mutation, item)
    if mutation.own_id:
        # The id was made for this very change: whoever sent it twice, we or the cluster within
        # itself, nobody else can have written it.
        return mutation.id
    return AlreadyExistsError(f"a record {mutation.id!r} exists", record_id=mutation.id)


def deleted(index: Index, mutation: Mutation, item: Item) -> ItemResult:
    """Return the result of a delete."""
    if item.status == 409:
        return conflict(mutation)
    if item.status == 404 and not item.kind:
        return False
    return True if item.status == 200 else failure(WriteKind.DELETE, index, mutation, item)


def replaced(kind: WriteKind, index: Index, mutation: Mutation, item: Item) -> ItemResult:
    """Return the result of a replace, update or upsert."""
    if item.status == 409:
        return conflict(mutation)
    return item.version if item.status in (200, 201) else failure(kind, index, mutation, item)


def failure(kind: WriteKind, index: Index, mutation: Mutation, item: Item) -> IsthmusError:
    """Return the error of an item that failed for another reason than its record's state."""
    if item.status == 413:
        return InvalidRecordError(f"data: {item.reason}", path="data", record_id=mutation.id)
    if item.status == 404 and "index_not_found" in item.kind:
        return index.gone()
    return item.failure(f"{doing(kind, index)} ({mutation.id!r})")


def conflict(mutation: Mutation) -> ConflictError:
    """Return the error of a change that came too late."""
    return ConflictError(
        f"record {mutation.id!r} is not at version {mutation.if_version!r} any more", record_id=mutation.id
    )


def doubtful(
    kind: WriteKind, index: Index, mutation: Mutation, item: Item, later: ItemResult
) -> IsthmusError:
    """Return the error of a change that an earlier attempt may have made, with what came after it."""
    assert item.earlier is not None
    error = failure(kind, index, mutation, item.earlier)
    error.applied = Applied.MAYBE
    error.add_note(f"it was sent again, which ended with {type(later).__name__}: {later}")
    return error
