"""Typed collections: pydantic models in, models out."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from pydantic import BaseModel

from isthmus._batch import OnError, Outcomes, check_on_error, resolve_outcomes
from isthmus._collection import Collection
from isthmus._core.executor import ItemResult
from isthmus._index_annotation import IndexKind
from isthmus._models import ModelShape
from isthmus._query.ast import Predicate
from isthmus._query.field import FieldName
from isthmus._query.query import Query, as_query
from isthmus._reads import STREAM_PAGE, Find
from isthmus._record import Record
from isthmus._stream import RecordStream
from isthmus._writes import StreamReceipt
from isthmus.errors import (
    ConflictError,
    InvalidRecordError,
    IsthmusError,
    NotWrittenError,
    UsageError,
)

M = TypeVar("M", bound=BaseModel)

UPDATE_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class TypedPage(Generic[M]):
    """One page of models, and the token that continues it."""

    models: list[M]
    cursor: str | None


class TypedStream(Generic[M]):
    """Models of a search, a page in memory; `async with` gives back what an unfinished one holds."""

    def __init__(self, records: RecordStream, shape: ModelShape[M]) -> None:
        self._records = records
        self._shape = shape

    def __aiter__(self) -> Self:
        self._records.__aiter__()
        return self

    async def __anext__(self) -> M:
        record = await self._records.__anext__()
        return self._shape.read(record.id, record.data)

    async def aclose(self) -> None:
        """End the stream and give back what it holds at the store."""
        await self._records.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class TypedCollection(Generic[M]):
    """A collection of one pydantic model; dates, decimals, UUIDs, enums and bytes come back as such.

    Every write is judged by the model before it is sent. A model with a field `id` keeps the
    record's id there; it is not stored twice, and empty or None it is made. A stored record that
    does not fit the model is an `InvalidRecordError` that names it.
    """

    def __init__(self, collection: Collection, model: type[M]) -> None:
        self._shape = ModelShape(model)
        self.untyped = collection
        """The same collection with plain records."""

    @property
    def model(self) -> type[M]:
        """The model."""
        return self._shape.model

    @property
    def collection_name(self) -> str:
        """The table, index or prefix."""
        return self.untyped.collection_name

    @property
    def indexes(self) -> dict[IndexKind, tuple[str, ...]]:
        """The paths that the model declares by `Indexed`, by the kind of index."""
        return self._shape.indexes()

    def __repr__(self) -> str:
        return f"<TypedCollection {self.collection_name!r} of {self._shape.name}>"

    def _record(self, item: M, key: str | None = None) -> Record:
        id, data = self._shape.written(item, key)
        return Record(data, id=id)

    def _restored(self, record: Record) -> M:
        return self._shape.read(record.id, record.data)

    # One model

    async def create(self, model: M) -> str:
        """Create a record from a model; return its id."""
        return await self.untyped.create(self._record(model))

    async def get(self, id: str, *, for_update: bool = False) -> M | None:
        """Return the model of an id, or None."""
        record = await self.untyped.get(id, for_update=for_update)
        return None if record is None else self._restored(record)

    async def require(self, id: str, *, for_update: bool = False) -> M:
        """Return the model of an id; raises `NotFoundError`."""
        return self._restored(await self.untyped.require(id, for_update=for_update))

    async def replace(self, id: str, model: M, *, if_version: str | None = None) -> str:
        """Replace a record by a model; return its new version."""
        return await self.untyped.replace(id, self._record(model, id), if_version=if_version)

    async def update(self, id: str, /, *, if_version: str | None = None, **mutations: Any) -> M:
        """Change fields of a record and return the model as it is now.

        The whole model is judged with the changes in it, and written only if nobody wrote in
        between (it is read and judged again then), so that what is stored always fits the model.
        """
        unknown = mutations.keys() - self.model.model_fields.keys()
        if unknown or "id" in mutations:
            raise UsageError(f"{self._shape.name} has no field {min(unknown or {'id'})!r} to change")
        for attempt in range(UPDATE_ATTEMPTS):
            record = await self.untyped.require(id)
            before = self._shape.dumped(self._restored(record), id)
            merged = self._shape.judged({**before, **mutations}, id)
            after = self._shape.dumped(merged, id)
            # A validator may change other fields than those that were given.
            patch = {
                name: value
                for name, value in after.items()
                if name != "id" and (name in mutations or name not in before or before[name] != value)
            }
            try:
                await self.untyped.update(id, patch, if_version=if_version or record.version)
            except ConflictError:
                if if_version is not None or attempt == UPDATE_ATTEMPTS - 1:
                    raise
            else:
                return merged
        raise AssertionError("the last attempt returns or raises")

    async def upsert(self, id: str, model: M, *, if_version: str | None = None) -> str:
        """Write a model whether its id exists or not; return the new version."""
        return await self.untyped.upsert(id, self._record(model, id), if_version=if_version)

    async def delete(self, id: str, *, if_version: str | None = None) -> bool:
        """Delete a record; return whether there was one."""
        return await self.untyped.delete(id, if_version=if_version)

    async def exists(self, what: str | Query | Predicate) -> bool:
        """Return whether an id, or any record of a query, is there."""
        return await self.untyped.exists(what)

    # Batches

    async def create_batch(
        self, models: Iterable[M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Create records from models; return their ids in order."""
        return await self._written("create", [(None, model) for model in models], on_error, atomic)

    async def replace_batch(
        self, models: Mapping[str, M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Replace records by models; return their new versions in order."""
        return await self._written("replace", list(models.items()), on_error, atomic)

    async def upsert_batch(
        self, models: Mapping[str, M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Write models by id whether they exist or not; return their versions."""
        return await self._written("upsert", list(models.items()), on_error, atomic)

    async def delete_batch(
        self, ids: Iterable[str], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[bool]:
        """Delete records; return for each id whether there was one."""
        return await self.untyped.delete_batch(ids, on_error=on_error, atomic=atomic)

    async def get_batch(self, ids: Iterable[str]) -> list[M | None]:
        """Return the models of these ids in order, None where there is none."""
        found = await self.untyped.get_batch(ids)
        return [None if record is None else self._restored(record) for record in found]

    async def require_batch(self, ids: Iterable[str]) -> list[M]:
        """Return the models of these ids in order; raises `NotFoundError` if one is missing."""
        return [self._restored(record) for record in await self.untyped.require_batch(ids)]

    async def _written(
        self, verb: str, models: Sequence[tuple[str | None, M]], on_error: OnError, atomic: bool | None
    ) -> Outcomes[str]:
        """Write the models that fit; one that does not is that item's outcome, as in any batch."""
        check_on_error(on_error)
        items: list[Record | InvalidRecordError] = []
        for key, model in models:
            try:
                items.append(self._record(model, key))
            except InvalidRecordError as error:
                items.append(error)
        records = [item for item in items if isinstance(item, Record)]
        run = getattr(self.untyped, f"{verb}_batch")
        if len(records) == len(items):
            return cast("Outcomes[str]", await run(records, on_error=on_error, atomic=atomic))
        results: list[ItemResult] = []
        if self.untyped.capabilities.atomic_batch if atomic is None else atomic:
            results = [item if isinstance(item, IsthmusError) else _left_out(item) for item in items]
        else:
            outcomes = iter(await run(records, on_error="collect", atomic=atomic))
            results = [item if isinstance(item, IsthmusError) else next(outcomes) for item in items]
        return resolve_outcomes(f"{verb}_batch", results, on_error)

    async def stream_write(
        self,
        models: AsyncIterable[M] | Iterable[M],
        *,
        upsert: bool = False,
        batch_size: int = 1_000,
        on_error: OnError = "raise",
    ) -> StreamReceipt:
        """Write models from an iterator in batches; see `Collection.stream_write`.

        A model that is not valid ends the stream with `InvalidRecordError`; what came before its
        batch is written.
        """
        return await self.untyped.stream_write(
            self._records(models), upsert=upsert, batch_size=batch_size, on_error=on_error
        )

    async def _records(self, models: AsyncIterable[M] | Iterable[M]) -> AsyncIterator[Record]:
        if isinstance(models, AsyncIterable):
            async for model in models:
                yield self._record(model)
        else:
            for model in models:
                yield self._record(model)

    # Finding

    async def search(self, query: Find = None) -> list[M]:
        """Return the matching models in the query's order."""
        return [self._restored(record) for record in await self.untyped.search(_whole(query))]

    async def find_one(self, query: Find = None) -> M | None:
        """Return the first matching model, or None."""
        record = await self.untyped.find_one(_whole(query))
        return None if record is None else self._restored(record)

    def stream(
        self, query: Find = None, *, consistent: bool = False, page_size: int = STREAM_PAGE
    ) -> TypedStream[M]:
        """Return the matching models as a stream with bounded memory."""
        records = self.untyped.stream(_whole(query), consistent=consistent, page_size=page_size)
        return TypedStream(records, self._shape)

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
        self,
        query: Find = None,
        *,
        by: FieldName | Iterable[FieldName] = (),
        **columns: str | tuple[str, FieldName],
    ) -> list[dict[str, Any]]:
        """Return one row for each group; see `Collection.aggregate`."""
        return await self.untyped.aggregate(query, by=by, **columns)

    async def delete_where(self, query: Query | Predicate) -> int:
        """Delete the matching records; return how many."""
        return await self.untyped.delete_where(query)


def _left_out(record: Record) -> NotWrittenError:
    return NotWrittenError("not written: another item of this atomic batch failed", record_id=record.id)


def _whole(query: Find) -> Query:
    found = as_query(query)
    if found.fields is not None:
        raise UsageError("a typed collection reads whole models; use .untyped for select()")
    return found


__all__ = ["TypedCollection", "TypedPage", "TypedStream"]
