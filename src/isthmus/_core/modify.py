"""Modifications: changes of part of a record, and the optional part of the seam for native ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import orjson

from isthmus._core.apply import Rows, refusal
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._query.ast import TRUE, Predicate
from isthmus._query.changes import FieldChange, apply_changes
from isthmus._query.evaluate import matches
from isthmus._record import Record
from isthmus._values import encode
from isthmus.errors import ConflictError, RecordError


class Modification(Mutation):
    """The changes of one record, made if it is at `if_version` and `where` holds for it."""

    __slots__ = ("changes", "where")

    def __init__(
        self,
        id: str,
        changes: tuple[FieldChange, ...],
        where: Predicate = TRUE,
        if_version: str | None = None,
    ) -> None:
        super().__init__(id, None, None, if_version)
        self.changes = changes
        self.where = where


class ModifiableRows(Rows, Protocol):
    """The rows that a batch touches, with their records, as its earlier items have left them."""

    def record(self, id: str) -> Record | None:
        """Return the record with this id; None if there is none. It is not altered."""
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


@runtime_checkable
class SupportsModify(Protocol):
    """An executor that modifies records natively; the capability `modify` is true.

    Optional, for speed: what it does not do, the core does by reading records and writing each
    under the version that was read. `where` has EXACT leaves only.
    """

    async def modify(self, collection: str, modification: Modification) -> ItemResult | None:
        """Apply a modification as `modify_in_order` does and return its result.

        Returns None, and changes nothing, where the store cannot do that exactly or where it only
        knows that the modification is refused: the core then finds the reason.
        """
        ...

    async def modify_where(
        self, collection: str, where: Predicate, changes: tuple[FieldChange, ...]
    ) -> int | None:
        """Change all matching records and return how many.

        Returns None, and changes nothing, where the store cannot do that exactly or a record does
        not admit a change.
        """
        ...
