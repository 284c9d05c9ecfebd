"""Rewriting the records of a typed collection that are of an older schema of its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from isthmus import ConflictError, Field, InvalidRecordError, NotFoundError, Query, Record, UsageError
from isthmus._arguments import check_count
from isthmus._path import Path, Root

if TYPE_CHECKING:
    from pydantic import BaseModel

    from isthmus.typed import TypedCollection

M = TypeVar("M", bound="BaseModel")

ROUNDS = 100
"""How many times a record that other writers keep changing is read again."""


@dataclass(slots=True)
class Migration:
    """What a migration did, or with `dry_run` what it would do."""

    read: int = 0
    """Records of an older schema, or of none that the model knows."""
    migrated: int = 0
    """Records that were rewritten."""
    overtaken: int = 0
    """Records that another writer brought to today's schema, or deleted, after they were read."""
    failed: int = 0
    """Records that stay as they are: an upgrade failed, or its result does not match the model."""
    reasons: dict[str, int] = field(default_factory=dict)
    """How many records failed, by reason."""
    examples: dict[str, str] = field(default_factory=dict)
    """The id of the first record that failed, by reason."""

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        return {
            "read": self.read,
            "migrated": self.migrated,
            "overtaken": self.overtaken,
            "failed": self.failed,
            "reasons": [
                {"reason": reason, "records": count, "example": self.examples[reason]}
                for reason, count in self.reasons.items()
            ],
        }

    def add_failure(self, error: InvalidRecordError) -> None:
        """Count a record that cannot be migrated."""
        self.failed += 1
        id = str(error.record_id)
        reason = str(error).replace(f"record {id!r} ", "", 1)
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.examples.setdefault(reason, id)


async def migrate(
    collection: TypedCollection[M],
    *,
    batch_size: int = 500,
    dry_run: bool = False,
    on_progress: Callable[[Migration], object] | None = None,
) -> Migration:
    """Rewrite the records of an older schema as the model writes them today, and return the figures.

    Reads and writes batches of `batch_size` records, in the order of their ids. A record is written
    only if it is as it was read, so that no write beside the migration is lost; it keeps the keys
    that the model does not know and the rest of its metadata. What is migrated is of today's schema,
    so a migration that was killed goes on where it was when it is started again. With `dry_run`
    nothing is written. `on_progress` is called after each batch.

    Raises `UsageError` for a model without `upgrade` functions, and `ConflictError` if others change
    a record 100 times while it is being migrated.
    """
    if collection.schema is None:
        raise UsageError(f"{collection.model.__name__} has no upgrade functions: there is nothing to migrate")
    check_count("batch_size", batch_size, 10_000)
    migration = Migration()
    current = Field(Path(Root.METADATA, (collection.schema_key,))) == collection.schema
    old = Query().not_(current).sort("_id")
    cursor: str | None = None
    while True:
        page = await collection.untyped.page(old, size=batch_size, cursor=cursor)
        migration.read += len(page.records)
        await _migrate_batch(collection, page.records, migration, dry_run=dry_run)
        if on_progress is not None:
            on_progress(migration)
        cursor = page.cursor
        if cursor is None:
            return migration


async def _migrate_batch(
    collection: TypedCollection[M], records: Sequence[Record], migration: Migration, *, dry_run: bool
) -> None:
    """Migrate records that were read, again and again where others changed them meanwhile."""
    pending = records
    for _ in range(ROUNDS):
        rewritten = _rewrite(collection, pending, migration)
        if dry_run:
            migration.migrated += len(rewritten)
            return
        conflicts = await _write(collection, rewritten, migration)
        if not conflicts:
            return
        found = [record for record in await collection.untyped.get_batch(conflicts) if record is not None]
        pending = [record for record in found if not _is_current(collection, record)]
        migration.overtaken += len(conflicts) - len(pending)
    raise ConflictError(
        f"{len(pending)} records kept changing, {pending[0].id!r} first", record_id=pending[0].id
    )


def _is_current(collection: TypedCollection[M], record: Record) -> bool:
    number = record.metadata.get(collection.schema_key)
    return not isinstance(number, bool) and number == collection.schema


def _rewrite(
    collection: TypedCollection[M], records: Sequence[Record], migration: Migration
) -> list[tuple[str, Record, str | None]]:
    """Return what to write, with the versions that were read; count the records that cannot be."""
    rewritten = []
    for record in records:
        try:
            new = collection.upgrade_record(record)
        except InvalidRecordError as error:
            migration.add_failure(error)
        else:
            rewritten.append((str(record.id), new, record.version))
    return rewritten


async def _write(
    collection: TypedCollection[M], items: list[tuple[str, Record, str | None]], migration: Migration
) -> list[str]:
    """Write records by compare-and-set; return the ids of those that were changed meanwhile."""
    outcomes = await collection.untyped.replace_batch(items, on_error="collect", atomic=False)
    conflicts: list[str] = []
    for (id, _, _), outcome in zip(items, outcomes, strict=True):
        match outcome:
            case str():
                migration.migrated += 1
            case ConflictError():
                conflicts.append(id)
            case NotFoundError():
                migration.overtaken += 1
            case InvalidRecordError():  # such as one that is too large for the store
                outcome.record_id = id
                migration.add_failure(outcome)
            case error:
                raise error
    return conflicts
