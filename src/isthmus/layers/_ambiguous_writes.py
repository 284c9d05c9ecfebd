"""What may be repeated after a write whose answer was lost, and what the repetition tells about it.

A lost answer leaves a write in doubt: it was done, was not, or is still on its way to be done. A
look at the store cannot tell the last two apart. Repeating can, where the store itself refuses to
do it twice:

* a create, since an id is created once. Refused as existing, an id that was made for this very
  write can only be our own: the write was done. An id that the caller chose may be another's
  record, even one with equal data (two processes that claim one lock write the same record), so
  the doubt stays.
* anything with `if_version`. Refused as changed, it was our own change or another's; the doubt
  stays, whatever the record holds now (two processes that count from 1 to 2 write the same record).

Other writes are never repeated while in doubt: another's change in between would be undone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.op import Op, Write
from isthmus.errors import (
    AlreadyExistsError,
    Applied,
    ConflictError,
    IsthmusError,
    NotFoundError,
    NotWrittenError,
)


def once(kind: WriteKind, mutation: Mutation) -> bool:
    """Return whether the store refuses to do this change a second time."""
    return kind is WriteKind.CREATE or mutation.if_version is not None


def repeatable(op: Op[Any], error: IsthmusError) -> bool:
    """Return whether an operation that was answered by an error, or not at all, may be done again."""
    if not error.transient:
        return False
    if error.applied is Applied.NO or op.idempotent:
        return True
    return isinstance(op, Write) and all(once(op.kind, mutation) for mutation in op.mutations)


def item_repeatable(kind: WriteKind, mutation: Mutation, result: ItemResult | None) -> bool:
    """Return whether one item of a batch may be done again by itself."""
    return (
        isinstance(result, IsthmusError)
        and result.transient
        and (result.applied is Applied.NO or once(kind, mutation))
    )


def settled(op: Write, results: Sequence[ItemResult], doubts: Mapping[int, IsthmusError]) -> list[ItemResult]:
    """Return the results of a write that repeats one in doubt, with what they tell about the first.

    `doubts` has the error of the earlier attempt by an item's place. An item whose doubt cannot be
    resolved gets that error again, which says `applied=MAYBE`.
    """
    # Whoever repeated it, this layer or a driver: nobody else can have written an id of ours.
    ours = {
        index
        for index, result in enumerate(results)
        if isinstance(result, AlreadyExistsError) and op.mutations[index].own_id
    }
    if not (doubts or ours):
        return list(results)
    if ours and op.atomic:
        # All or nothing, and one of them is there by us: all of them are.
        return [mutation.id for mutation in op.mutations]
    return [
        mutation.id
        if index in ours
        else doubtful(doubts[index], result)
        if index in doubts and _may_be_ours(mutation, result)
        else result
        for index, (mutation, result) in enumerate(zip(op.mutations, results, strict=True))
    ]


def _may_be_ours(mutation: Mutation, result: ItemResult) -> bool:
    """Return whether our own first attempt may be why an item was refused."""
    if isinstance(result, NotFoundError):
        return mutation.if_version is not None
    return isinstance(result, (AlreadyExistsError, ConflictError, NotWrittenError))


def doubtful(doubt: IsthmusError, later: ItemResult) -> IsthmusError:
    """Return the error of an attempt in doubt, with a note of what came after it."""
    error = copy.copy(doubt)
    error.applied = Applied.MAYBE
    error.add_note(f"a later attempt ended with {type(later).__name__}: {later}")
    return error
