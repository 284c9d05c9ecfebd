"""The effect of a write on the record that is there, and its refusals: one implementation for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._record import Record
from isthmus._values import decode
from isthmus.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidRecordError,
    IsthmusError,
    NotFoundError,
    NotWrittenError,
    RecordError,
)

# A global is found faster than a member of an enumeration.
_CREATE, _UPDATE, _DELETE = WriteKind.CREATE, WriteKind.UPDATE, WriteKind.DELETE
_NEEDS_RECORD = (WriteKind.REPLACE, WriteKind.UPDATE)


class Rows(Protocol):
    """The rows that a batch touches, as its earlier items have left them.

    A backend loads the rows it needs, lets `apply_in_order` change them, and stores the outcome.
    """

    def version(self, id: str) -> str | None:
        """Return the version of the record with this id; None if there is none."""
        ...

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        """Write a whole record, given as canonical JSON, and return its new version.

        Raises `InvalidRecordError` for a record that is too large for the store, and
        `AlreadyExistsError` for a value that another record has in a unique field.
        """
        ...

    def merge(self, id: str, data: bytes, metadata: bytes) -> str:
        """Merge top-level keys into the record that is there and return its new version."""
        ...

    def delete(self, id: str) -> None:
        """Delete the record that is there."""
        ...


def apply_in_order(rows: Rows, kind: WriteKind, mutations: Sequence[Mutation]) -> list[ItemResult]:
    """Apply mutations of one kind one after another; return one result for each (meaning §5).

    A refused item changes nothing and its error is its result; the others are applied.
    """
    return [apply_one(rows, kind, mutation) for mutation in mutations]


def apply_one(rows: Rows, kind: WriteKind, mutation: Mutation) -> ItemResult:
    """Apply one mutation and return its result: an id, a version, a bool, or the error that refused it."""
    id = mutation.id
    try:
        # A record that cannot be encoded is invalid, whatever the store holds under its id.
        if kind is not _DELETE:
            data = mutation.raw or mutation.encode()
            metadata = mutation.raw_metadata or mutation.encode_metadata()
        version = rows.version(id)
        error = refusal(kind, mutation, version)
        if error is not None:
            return error
        if kind is _DELETE:
            if version is not None:
                rows.delete(id)
            return version is not None
        write = rows.merge if kind is _UPDATE else rows.put
        version = write(id, data, metadata)
    except AlreadyExistsError as clash:
        return clash  # with the id of the record that has the value of a unique field
    except RecordError as invalid:
        invalid.record_id = id
        return invalid
    return id if kind is _CREATE else version


def merge_documents(
    old_data: dict[str, Any], old_metadata: dict[str, Any], data: bytes, metadata: bytes
) -> tuple[bytes, bytes]:
    """Return the canonical JSON of a record after an update: top-level keys merged, later ones win.

    Both sides are canonical, and so are their keys together: nothing is checked again.
    """
    if not old_metadata or metadata == b"{}":
        merged_metadata = orjson.dumps(old_metadata) if old_metadata else metadata
    else:
        merged_metadata = orjson.dumps({**old_metadata, **decode(metadata)})
    return orjson.dumps({**old_data, **decode(data)}), merged_metadata


def refusal(kind: WriteKind, mutation: Mutation, version: str | None) -> RecordError | None:
    """Return why a mutation of a record at `version` is refused, None if it is not (meaning §5).

    `version` is None when there is no record with that id.
    """
    if kind is _CREATE:
        return None if version is None else already_exists(mutation.id)
    if version is None and kind in _NEEDS_RECORD:
        return not_found(mutation.id)
    if mutation.if_version is not None and mutation.if_version != version:
        return version_conflict(mutation.id, mutation.if_version)
    return None


def already_exists(id: str) -> AlreadyExistsError:
    """Return the error of a create whose id is taken."""
    return AlreadyExistsError(f"a record with the id {id!r} already exists", record_id=id)


def not_found(id: str) -> NotFoundError:
    """Return the error of a call that needs a record and found none."""
    return NotFoundError(f"no record has the id {id!r}", record_id=id)


def version_conflict(id: str, expected: str) -> ConflictError:
    """Return the error of a compare-and-set whose record has changed or is gone."""
    return ConflictError(f"record {id!r} is no longer at version {expected!r}", record_id=id)


def not_written(item: Mutation | Record) -> NotWrittenError:
    """Return the result of an item that was fine, in an atomic batch that failed."""
    return NotWrittenError("not written: another item of this atomic batch failed", record_id=item.id)


def has_repeated_ids(mutations: Sequence[Mutation]) -> bool:
    """Return whether several items of a batch are of one record."""
    return len(mutations) > 1 and len({mutation.id for mutation in mutations}) < len(mutations)


def refuse_batch(mutations: Sequence[Mutation], results: Sequence[ItemResult]) -> list[ItemResult] | None:
    """Return the results of an atomic batch that is rolled back; None if no item failed."""
    if not any(isinstance(result, IsthmusError) for result in results):
        return None
    return [
        result if isinstance(result, IsthmusError) else not_written(mutation)
        for result, mutation in zip(results, mutations, strict=True)
    ]


def reject_invalid(mutations: Sequence[Mutation]) -> list[ItemResult] | None:
    """Return the results of an atomic batch if some record of it is invalid, else None.

    Encodes every item, to find all the invalid ones; called after the first one was met.
    """
    results: list[ItemResult] = []
    found = False
    for mutation in mutations:
        try:
            mutation.encode()
            mutation.encode_metadata()
        except InvalidRecordError as error:
            error.record_id = mutation.id
            results.append(error)
            found = True
        else:
            results.append(not_written(mutation))
    return results if found else None
