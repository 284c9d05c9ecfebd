"""Which writes may be repeated after their response was lost, and what the repetition reveals.

A write whose response was lost is ambiguous: it was applied, was not, or is still on its way. A
read of the store cannot tell the last two apart. Repeating can, where the store itself refuses to
apply the same write twice:

* a create, since an id is created once, unless the store makes the id. If it is refused as existing and
  the id was generated for this very write, the record can only be our own: the write was applied. An id
  that the caller chose may belong to another's record, even one with equal data (two processes that
  claim one lock write the same record), so the outcome stays ambiguous.
* any write with `if_version`. If it is refused as changed, the change was our own or another's; the
  outcome stays ambiguous, whatever the record holds now (two processes that count from 1 to 2 write
  the same record).

Other ambiguous writes are never repeated: a change made by another in between would be undone.
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


def refuses_repetition(kind: WriteKind, mutation: Mutation) -> bool:
    """Return whether the store refuses to apply this mutation a second time."""
    if kind is WriteKind.CREATE:
        return not mutation.store_makes_id
    return mutation.if_version is not None


def can_repeat(op: Op[Any], error: IsthmusError) -> bool:
    """Return whether an operation that failed with this error may be repeated."""
    if not error.transient:
        return False
    if error.applied is Applied.NO or op.idempotent:
        return True
    return isinstance(op, Write) and all(refuses_repetition(op.kind, mutation) for mutation in op.mutations)


def can_repeat_item(kind: WriteKind, mutation: Mutation, result: ItemResult | None) -> bool:
    """Return whether one item of a batch may be repeated by itself."""
    return (
        isinstance(result, IsthmusError)
        and result.transient
        and (result.applied is Applied.NO or refuses_repetition(kind, mutation))
    )


def resolve_ambiguity(
    op: Write, results: Sequence[ItemResult], ambiguous: Mapping[int, IsthmusError]
) -> list[ItemResult]:
    """Return the results of a repeated write, corrected by what they reveal about the first attempt.

    `ambiguous` maps an item's index to the error of its earlier attempt. An item whose outcome
    stays ambiguous gets that error again, with `applied=MAYBE`.
    """
    # Repeated by this layer or by a driver: nobody else can have written an id generated for it. A
    # value of a unique field, which the error then names, anybody can.
    ours = {
        index
        for index, result in enumerate(results)
        if isinstance(result, AlreadyExistsError) and result.field is None and op.mutations[index].own_id
    }
    if not (ambiguous or ours):
        return list(results)
    if ours and op.atomic:
        # All or nothing, and one of the records is our own: all of them are.
        return [mutation.id for mutation in op.mutations]
    return [
        mutation.id
        if index in ours
        else ambiguous_error(ambiguous[index], result)
        if index in ambiguous and _may_be_own_write(mutation, result)
        else result
        for index, (mutation, result) in enumerate(zip(op.mutations, results, strict=True))
    ]


def _may_be_own_write(mutation: Mutation, result: ItemResult) -> bool:
    """Return whether our own first attempt may be the reason why an item was refused."""
    if isinstance(result, NotFoundError):
        return mutation.if_version is not None
    return isinstance(result, (AlreadyExistsError, ConflictError, NotWrittenError))


def ambiguous_error(earlier: IsthmusError, later: ItemResult) -> IsthmusError:
    """Return the error of an ambiguous attempt, with a note about the later attempt."""
    error = copy.copy(earlier)
    error.applied = Applied.MAYBE
    error.add_note(f"a later attempt ended with {type(later).__name__}: {later}")
    return error
