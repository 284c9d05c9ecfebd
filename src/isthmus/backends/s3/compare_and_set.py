"""What a write makes of the record that is there, or why it is refused; both layouts ask here."""

from __future__ import annotations

import orjson

from isthmus._core.executor import Mutation, WriteKind
from isthmus._record import Record
from isthmus._values import decode, format_datetime
from isthmus.backends.s3.envelope import RecordRow, new_token
from isthmus.errors import ConflictError, NotFoundError


def rewritten(
    kind: WriteKind, mutation: Mutation, current: Record | None, data: bytes, metadata: bytes, stamp: str
) -> RecordRow:
    """Return the row that a replace, update or upsert makes of the current record; raises its refusal."""
    if current is None and kind is not WriteKind.UPSERT:
        raise NotFoundError(f"no record has the id {mutation.id!r}", record_id=mutation.id)
    judge_version(mutation, current)
    if current is None:
        return RecordRow(mutation.id, new_token(), stamp, stamp, metadata, data)
    if kind is WriteKind.UPDATE:
        data = orjson.dumps({**current.data, **decode(data)})
        metadata = orjson.dumps({**current.metadata, **decode(metadata)})
    assert current.created_at is not None
    return RecordRow(mutation.id, new_token(), format_datetime(current.created_at), stamp, metadata, data)


def judge_version(mutation: Mutation, current: Record | None) -> None:
    """Raise the refusal of a compare-and-set: `ConflictError`, or what a missing record means."""
    if mutation.if_version is None or (current is not None and current.version == mutation.if_version):
        return
    if current is None:
        raise gone(mutation)
    raise ConflictError(f"{mutation.id!r} is no longer at the version that was read", record_id=mutation.id)


def gone(mutation: Mutation) -> ConflictError:
    """Return what a compare-and-set says of a record that somebody deleted."""
    return ConflictError(f"{mutation.id!r} is not there any more", record_id=mutation.id)
