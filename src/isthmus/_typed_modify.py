"""The modifications of a typed collection: those of `Collection`, checked against the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel

from isthmus._arguments import shorten
from isthmus._batch import OnError, Outcomes
from isthmus._collection import Collection
from isthmus._lambda_calls import call_with_model
from isthmus._model_changes import ModelChanges
from isthmus._model_codec import ModelCodec
from isthmus._model_paths import ModelPaths
from isthmus._query.ast import TRUE, And, Predicate
from isthmus._query.changes import FieldChange, as_changes
from isthmus._query.query import as_predicate
from isthmus._record import Record
from isthmus._typed_batch import Item, write_valid
from isthmus._typed_query import Where, resolve_where
from isthmus.errors import (
    ConflictError,
    InvalidRecordError,
    IsthmusError,
    NotFoundError,
    UsageError,
)

M = TypeVar("M", bound=BaseModel)

Change: TypeAlias = "FieldChange | Callable[[M], FieldChange | tuple[FieldChange, ...]]"
"""A change with the names of the model, or a lambda: `lambda p: f(p.stock).inc(-1)`."""
Changes: TypeAlias = "Change[M] | Iterable[Change[M]]"
TypedModifications: TypeAlias = (
    "Mapping[str, Changes[M]] | Iterable[tuple[str, Changes[M]] | tuple[str, Changes[M], str | None]]"
)
ROUNDS = 20
"""How many times a record that other writers keep making old is upgraded."""


class TypedModifyMethods(Generic[M]):
    """Changes of parts of records; names, aliases and values are checked by the model before any I/O."""

    _codec: ModelCodec[M]
    untyped: Collection
    """The same collection, with records."""

    def __init__(self, collection: Collection, model: type[M]) -> None:
        self.untyped = collection
        self._paths = ModelPaths(model)
        self._changes = ModelChanges(model, self._paths)

    async def modify(
        self,
        id: str,
        *changes: Change[M],
        where: Where[M] | None = None,
        if_version: str | None = None,
    ) -> str:
        """Change part of a record atomically and return its new version.

        As `Collection.modify`. A value beyond its field's constraints is an `InvalidRecordError`; a
        value of another type, a name that the model lacks or a kind of change that it does not admit
        is a `QueryError`. What only the changed record can show is not checked: after `inc`, a number may
        be beyond a constraint of the model, so give the condition as `where`.
        """
        try:
            resolved = self._resolve_changes(changes)
        except InvalidRecordError as error:
            error.record_id = id
            raise
        condition = None if where is None else as_predicate(resolve_where(where, self._paths))
        if self._codec.upgrades.schema is not None:
            return await self._modify_current(id, resolved, condition, if_version)
        return await self.untyped.modify(id, *resolved, where=condition, if_version=if_version)

    async def _modify_current(
        self, id: str, changes: list[FieldChange], where: Predicate | None, if_version: str | None
    ) -> str:
        """Modify a record of today's schema; one of an older schema is rewritten first."""
        upgrades = self._codec.upgrades
        current = And((upgrades.current, where)) if where is not None else upgrades.current
        was_current = False
        for _ in range(ROUNDS):
            try:
                return await self.untyped.modify(id, *changes, where=current, if_version=if_version)
            except ConflictError:
                record = await self.untyped.require(id)
                if if_version is not None and record.version != if_version:
                    raise
                if not upgrades.is_old(record):
                    if was_current:
                        raise
                    # Another writer may have brought it to today's schema after the attempt.
                    was_current = True
                    continue
            [outcome] = await self._upgrade({id: (self._codec.rewrite(record), record.version)})
            was_current = isinstance(outcome, str)
            if if_version is not None:
                if not isinstance(outcome, str):
                    raise outcome
                if_version = outcome
            elif not isinstance(outcome, str | ConflictError | NotFoundError):
                raise outcome
        raise ConflictError(f"record {id!r} kept changing", record_id=id)

    async def _upgrade(self, rewritten: Mapping[str, tuple[Record, str | None]]) -> list[str | IsthmusError]:
        """Write records in the form of today's schema, each if it is still at its version.

        Return the new versions in order, with errors in place of those that were not written.
        """
        items = [(id, record, version) for id, (record, version) in rewritten.items()]
        return list(await self.untyped.replace_batch(items, on_error="collect", atomic=False))

    async def modify_batch(
        self, items: TypedModifications[M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Change parts of records and return their new versions in order; as `Collection.modify_batch`."""
        made: list[Item | InvalidRecordError] = []
        for item in list(items.items() if isinstance(items, Mapping) else items):
            if not isinstance(item, tuple) or len(item) not in (2, 3):
                raise UsageError(f"an item is (id, changes) or (id, changes, version); got {shorten(item)}")
            changes = item[1] if isinstance(item[1], Iterable) else (item[1],)
            try:
                made.append((item[0], self._resolve_changes(changes), *item[2:]))
            except InvalidRecordError as error:
                error.record_id = item[0]
                made.append(error)
        atomic_by_default = self.untyped.capabilities.atomic_batch
        if self._codec.upgrades.schema is not None:
            made = await self._upgrade_items(made, atomic=atomic_by_default if atomic is None else atomic)
        return await write_valid(
            "modify",
            self.untyped.modify_batch,
            made,
            on_error,
            atomic=atomic,
            atomic_by_default=atomic_by_default,
        )

    async def _upgrade_items(
        self, items: list[Item | InvalidRecordError], *, atomic: bool
    ) -> list[Item | InvalidRecordError]:
        """Rewrite the records of a batch that are of an older schema.

        Return the items, with an error in place of one whose record cannot be upgraded, and with the
        new version in place of one that the record had before.
        """
        pending = {item[0] for item in items if isinstance(item, tuple)}
        refused = any(isinstance(item, InvalidRecordError) for item in items)
        errors: dict[str, InvalidRecordError] = {}
        versions: dict[tuple[str, str | None], str] = {}
        for _ in range(ROUNDS):
            old = await self._read_old(sorted(pending), errors)
            if not old or (atomic and (refused or errors)):
                break
            pending = set()
            for (id, (_, before)), outcome in zip(old.items(), await self._upgrade(old), strict=True):
                match outcome:
                    case str():
                        versions[id, before] = outcome
                    case InvalidRecordError():
                        errors[id] = outcome
                    case ConflictError() | NotFoundError():  # another writer was first
                        pending.add(id)
                    case error:
                        raise error
            if not pending:
                break
        else:
            id = min(pending)
            raise ConflictError(f"record {id!r} kept changing", record_id=id)
        return [
            item if isinstance(item, InvalidRecordError) else _after_upgrade(item, errors, versions)
            for item in items
        ]

    async def _read_old(
        self, ids: list[str], errors: dict[str, InvalidRecordError]
    ) -> dict[str, tuple[Record, str | None]]:
        """Return the records of older schemas as they are to be written, and the versions that were read."""
        old: dict[str, tuple[Record, str | None]] = {}
        for record in await self.untyped.get_batch(ids):
            if record is None:
                continue
            id = str(record.id)
            try:
                if self._codec.upgrades.is_old(record):
                    old[id] = (self._codec.rewrite(record), record.version)
            except InvalidRecordError as error:
                errors[id] = error
        return old

    async def update_where(self, where: Where[M], *changes: Change[M]) -> int:
        """Change parts of the matching records and return how many; as `Collection.update_where`.

        Records of an older schema of a model with `upgrade` functions are not changed: migrate first.
        """
        query = resolve_where(where, self._paths)
        if self._codec.upgrades.schema is not None and query.where != TRUE:
            query = query.filter(self._codec.upgrades.current)
        return await self.untyped.update_where(query, *self._resolve_changes(changes))

    def _resolve_changes(self, changes: Iterable[Any]) -> list[FieldChange]:
        made: list[Any] = []
        for change in changes:
            built = call_with_model(change, self._paths, lambda b: b) if callable(change) else change
            made += built if isinstance(built, tuple) else [built]
        return [self._changes.resolve(change) for change in as_changes(made)]


def _after_upgrade(
    item: Any, errors: Mapping[str, InvalidRecordError], versions: Mapping[tuple[str, str | None], str]
) -> Item | InvalidRecordError:
    """Return an item for a record that may have been rewritten: its version is another one then."""
    id = item[0]
    if id in errors:
        return errors[id]
    return (*item[:2], *(versions.get((id, version), version) for version in item[2:]))
