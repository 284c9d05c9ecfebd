"""The effect of modifications on the records that are there, and their refusals: one implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import orjson

from isthmus._core.apply import refusal
from isthmus._core.executor import ItemResult, WriteKind
from isthmus._core.modify import Modification
from isthmus._query.ast import TRUE
from isthmus._query.changes import apply_changes
from isthmus._query.evaluate import matches
from isthmus._record import Record
from isthmus._values import encode
from isthmus.errors import AlreadyExistsError, ConflictError, RecordError


class ModifiableRows(Protocol):
    """The rows that a batch touches, with their records, as its earlier items have left them."""

    def record(self, id: str) -> Record | None:
        """Return the record with this id; None if there is none. It is not altered."""
        ...

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        """Store the whole record and return its new version; both texts are canonical JSON.

        Raises what `Rows.put` raises.
        """
        ...


def modify_in_order(rows: ModifiableRows, modifications: Sequence[Modification]) -> list[ItemResult]:
    """Apply modifications one after another; return each one's new version, or its error (meaning §5).

    A refused one changes nothing; the others are applied.
    """
    return [_modify_one(rows, modification) for modification in modifications]


def _modify_one(rows: ModifiableRows, modification: Modification) -> ItemResult:
    id = modification.id
    record = rows.record(id)
    error = refusal(WriteKind.UPDATE, modification, None if record is None else record.version)
    if error is not None or record is None:
        return error  # type: ignore[return-value]  # a missing record is refused
    if modification.where != TRUE and not matches(modification.where, record):
        return condition_failed(id)
    try:
        data = encode(apply_changes(record.data, modification.changes))
        return rows.put(id, data, metadata_of(record))
    except AlreadyExistsError as clash:
        return clash  # with the id of the record that has the value of a unique field
    except RecordError as invalid:
        invalid.record_id = id
        return invalid


def metadata_of(record: Record) -> bytes:
    """Return a stored record's metadata as canonical JSON."""
    raw = record.raw[1]
    return orjson.dumps(record.metadata) if raw is None else raw


def condition_failed(id: str) -> ConflictError:
    """Return the error of a modification whose condition is false for the record."""
    return ConflictError(f"the condition does not hold for record {id!r}", record_id=id)
