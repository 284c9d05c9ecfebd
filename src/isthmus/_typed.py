"""Typed collections: pydantic models in, models out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from isthmus._batch import OnError, Outcomes
from isthmus._collection import Collection, Find, Items
from isthmus._query.ast import Predicate
from isthmus._query.build import FieldName, Query, as_query
from isthmus._record import Record
from isthmus.errors import ConfigError, InvalidRecordError, NotFoundError, UsageError

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class TypedPage(Generic[M]):
    """One page of models, and the token that continues it."""

    models: list[M]
    cursor: str | None


class TypedCollection(Generic[M]):
    """A collection of one pydantic model; dates, decimals and the like come back as their types.

    A model with a field `id` of text keeps the record's id there; it is not stored twice. A record
    that does not fit the model is an `InvalidRecordError` that names it.
    """

    def __init__(self, collection: Collection, model: type[M]) -> None:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise ConfigError(f"a typed collection needs a pydantic model, got {model!r}")
        self._model: Any = model
        self._has_id = "id" in model.model_fields
        self.untyped = collection
        """The same collection with plain records."""

    def _record(self, item: M, key: str | None = None) -> Record:
        if not isinstance(item, self._model):
            raise InvalidRecordError(
                f"expected a {self._model.__name__}, got {type(item).__name__}", path="data", record_id=key
            )
        data = item.model_dump()
        own = data.pop("id", None) if self._has_id else None
        return Record(data, id=key or (None if own is None else str(own)))

    def _restored(self, record: Record) -> M:
        data = {**record.data, "id": record.id} if self._has_id else record.data
        try:
            return self._model.model_validate(data)  # type: ignore[no-any-return]
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = ".".join(map(str, first["loc"]))
            raise InvalidRecordError(
                f"record {record.id!r} is no {self._model.__name__}: {path}: {first['msg']}",
                path=f"data.{path}",
                record_id=record.id,
            ) from error

    async def create(self, model: M) -> str:
        """Create a record from a model; return its id."""
        return await self.untyped.create(self._record(model))

    async def create_batch(
        self, models: Iterable[M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Create records from models; return their ids in order."""
        return await self.untyped.create_batch(map(self._record, models), on_error=on_error, atomic=atomic)

    async def get(self, id: str) -> M | None:
        """Return the model of an id, or None."""
        record = await self.untyped.get(id)
        return None if record is None else self._restored(record)

    async def require(self, id: str) -> M:
        """Return the model of an id; raises `NotFoundError`."""
        model = await self.get(id)
        if model is None:
            raise NotFoundError(f"no record has the id {id!r}", record_id=id)
        return model

    async def get_batch(self, ids: Iterable[str]) -> list[M | None]:
        """Return the models of these ids in order, None where there is none."""
        found = await self.untyped.get_batch(ids)
        return [None if record is None else self._restored(record) for record in found]

    async def replace(self, id: str, model: M, *, if_version: str | None = None) -> str:
        """Replace a record by a model; return its new version."""
        return await self.untyped.replace(id, self._record(model, id), if_version=if_version)

    async def update(self, id: str, *, if_version: str | None = None, **changes: Any) -> M:
        """Change fields of a record, judged by the model; return the model as it is now.

        Without `if_version` the fields are merged into whatever the record is by then.
        """
        unknown = changes.keys() - self._model.model_fields.keys()
        if unknown or "id" in changes:
            raise UsageError(f"{self._model.__name__} has no field {min(unknown or {'id'})!r} to change")
        current = await self.require(id)
        merged = self._model.model_validate({**current.model_dump(), **changes})  # type: ignore[attr-defined]
        valid = merged.model_dump(include=set(changes))
        await self.untyped.update(id, valid, if_version=if_version)
        return await self.require(id)

    async def upsert(self, id: str, model: M, *, if_version: str | None = None) -> str:
        """Write a model whether its id exists or not; return the new version."""
        return await self.untyped.upsert(id, self._record(model, id), if_version=if_version)

    async def upsert_batch(
        self, models: Mapping[str, M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Write models by id whether they exist or not; return their versions."""
        items: Items = [self._record(model, key) for key, model in models.items()]
        return await self.untyped.upsert_batch(items, on_error=on_error, atomic=atomic)

    async def delete(self, id: str, *, if_version: str | None = None) -> bool:
        """Delete a record; return whether there was one."""
        return await self.untyped.delete(id, if_version=if_version)

    async def exists(self, what: str | Query | Predicate) -> bool:
        """Return whether an id, or any record of a query, is there."""
        return await self.untyped.exists(what)

    async def search(self, query: Find = None) -> list[M]:
        """Return the matching models in the query's order."""
        return [self._restored(record) for record in await self.untyped.search(_whole(query))]

    async def find_one(self, query: Find = None) -> M | None:
        """Return the first matching model, or None."""
        record = await self.untyped.find_one(_whole(query))
        return None if record is None else self._restored(record)

    async def stream(self, query: Find = None, *, consistent: bool = False) -> AsyncIterator[M]:
        """Yield the matching models with bounded memory."""
        async with self.untyped.stream(_whole(query), consistent=consistent) as records:
            async for record in records:
                yield self._restored(record)

    async def page(
        self, query: Find = None, *, size: int | None = None, cursor: str | None = None
    ) -> TypedPage[M]:
        """Return one page of models and the cursor of the next."""
        page = await self.untyped.page(_whole(query), size=size, cursor=cursor)
        return TypedPage([self._restored(record) for record in page.records], page.cursor)

    async def count(self, query: Find = None) -> int:
        """Return how many records match."""
        return await self.untyped.count(query)

    async def aggregate(
        self, query: Find = None, *, by: FieldName | Iterable[FieldName] = (), **columns: Any
    ) -> list[dict[str, Any]]:
        """Return one row for each group; see `Collection.aggregate`."""
        return await self.untyped.aggregate(query, by=by, **columns)

    async def delete_where(self, query: Query | Predicate) -> int:
        """Delete the matching records; return how many."""
        return await self.untyped.delete_where(query)


def _whole(query: Find) -> Query:
    found = as_query(query)
    if found.fields is not None:
        raise UsageError("a typed collection reads whole models; use .untyped for select()")
    return found
