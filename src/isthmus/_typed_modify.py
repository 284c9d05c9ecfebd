"""The modifications of a typed collection: those of `Collection`, checked against the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel

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
from isthmus.errors import ConflictError, InvalidRecordError, UsageError

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
        for _ in range(ROUNDS):
            try:
                return await self.untyped.modify(id, *changes, where=current, if_version=if_version)
            except ConflictError:
                record = await self.untyped.require(id)
                changed = if_version is not None and record.version != if_version
                if changed or not upgrades.is_old(record):
                    raise
            version = await self._upgrade([record])
            if if_version is not None:
                if version is None:
                    raise ConflictError(f"record {id!r} is not at version {if_version!r}", record_id=id)
                if_version = version
        raise ConflictError(f"record {id!r} kept changing", record_id=id)

    async def _upgrade(self, records: Iterable[Record | None]) -> str | None:
        """Rewrite records of older schemas; return the last one's version, None if others were first."""
        items = [
            (str(record.id), self._codec.rewrite(record), record.version)
            for record in records
            if record is not None and self._codec.upgrades.is_old(record)
        ]
        outcomes = await self.untyped.replace_batch(items, on_error="collect", atomic=False)
        return next((outcome for outcome in reversed(outcomes) if isinstance(outcome, str)), None)

    async def modify_batch(
        self, items: TypedModifications[M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Change parts of records and return their new versions in order; as `Collection.modify_batch`."""
        made: list[Item | InvalidRecordError] = []
        for item in list(items.items() if isinstance(items, Mapping) else items):
            if not isinstance(item, tuple) or len(item) not in (2, 3):
                raise UsageError(f"an item is (id, changes) or (id, changes, version); got {item!r:.80}")
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

        Return the items, with an error in place of one whose record cannot be upgraded.
        """
        ids = [item[0] for item in items if isinstance(item, tuple)]
        records = iter(await self.untyped.get_batch(ids))
        old: list[Record] = []
        checked: list[Item | InvalidRecordError] = []
        for item in items:
            record = next(records) if isinstance(item, tuple) else None
            try:
                if record is not None and self._codec.upgrades.is_old(record):
                    self._codec.rewrite(record)
                    old.append(record)
            except InvalidRecordError as error:
                checked.append(error)
            else:
                checked.append(item)
        if not (atomic and any(isinstance(item, InvalidRecordError) for item in checked)):
            await self._upgrade(old)
        return checked

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
