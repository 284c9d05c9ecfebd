"""Deletes records that were found by a scan."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus._core.evaluation import select_matching
from isthmus._core.executor import Mutation, WriteKind
from isthmus._core.op import Read, Remove, Write
from isthmus._core.stack import Next
from isthmus._record import Record
from isthmus.errors import ConflictError, IsthmusError

_DELETE_ATTEMPTS = 10


async def delete_matching(op: Remove, records: Sequence[Record], call_next: Next, *, versions: bool) -> int:
    """Delete records that matched when read; re-evaluate those that have changed since.

    With `versions` each is deleted at the version that was read only.
    """
    removed = 0
    for _ in range(_DELETE_ATTEMPTS):
        if not records:
            return removed
        mutations = [
            Mutation(record.id or "", if_version=record.version if versions else None) for record in records
        ]
        results = await call_next(Write(op.collection, WriteKind.DELETE, mutations, atomic=False))
        removed += sum(result is True for result in results)
        stale = [
            c.id for c, result in zip(mutations, results, strict=True) if isinstance(result, ConflictError)
        ]
        for result in results:
            if isinstance(result, IsthmusError) and not isinstance(result, ConflictError):
                raise result
        again = await call_next(Read(op.collection, stale)) if stale else []
        records = await select_matching([record for record in again if record is not None], op.where)
    raise ConflictError(
        f"delete_where: {len(records)} records kept changing in {_DELETE_ATTEMPTS} attempts",
        record_id=records[0].id,
    )
