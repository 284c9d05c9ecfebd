"""The modifications of a typed collection: those of `Collection`, checked against the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from isthmus._batch import OnError, Outcomes
from isthmus._collection import Collection
from isthmus._model_changes import ModelChanges
from isthmus._model_paths import ModelPaths
from isthmus._query.changes import FieldChange, as_changes
from isthmus._query.query import as_predicate
from isthmus._typed_query import Where, resolve_where
from isthmus._writes import Modifications
from isthmus.errors import InvalidRecordError, UsageError

M = TypeVar("M", bound=BaseModel)


class TypedModifyMethods(Generic[M]):
    """Changes of parts of records; names, aliases and values are checked by the model before any I/O."""

    untyped: Collection
    """The same collection, with records."""

    def __init__(self, collection: Collection, model: type[M]) -> None:
        self.untyped = collection
        self._paths = ModelPaths(model)
        self._changes = ModelChanges(model, self._paths)

    async def modify(
        self,
        id: str,
        *changes: FieldChange,
        where: Where[M] | None = None,
        if_version: str | None = None,
    ) -> str:
        """Change part of a record atomically and return its new version.

        As `Collection.modify`. A value that does not match its field's type is an
        `InvalidRecordError`, a name that the model lacks or a kind of change that it does not admit a
        `QueryError`. What only the changed record can show is not checked: after `inc`, a number may
        be beyond a constraint of the model, so give the condition as `where`.
        """
        try:
            resolved = self._resolve_changes(changes)
        except InvalidRecordError as error:
            error.record_id = id
            raise
        condition = None if where is None else as_predicate(resolve_where(where, self._paths))
        return await self.untyped.modify(id, *resolved, where=condition, if_version=if_version)

    async def modify_batch(
        self, items: Modifications, *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Change parts of records and return their new versions in order; as `Collection.modify_batch`."""
        resolved: list[Any] = []
        for item in list(items.items() if isinstance(items, Mapping) else items):
            if not isinstance(item, tuple) or len(item) not in (2, 3):
                raise UsageError(f"an item is (id, changes) or (id, changes, version); got {item!r:.80}")
            changes = item[1] if isinstance(item[1], Iterable) else (item[1],)
            resolved.append((item[0], self._resolve_changes(changes), *item[2:]))
        return await self.untyped.modify_batch(resolved, on_error=on_error, atomic=atomic)

    async def update_where(self, where: Where[M], *changes: FieldChange) -> int:
        """Change parts of the matching records and return how many; as `Collection.update_where`."""
        query = resolve_where(where, self._paths)
        return await self.untyped.update_where(query, *self._resolve_changes(changes))

    def _resolve_changes(self, changes: Iterable[FieldChange]) -> list[FieldChange]:
        return [self._changes.resolve(change) for change in as_changes(changes)]
