"""Typed collections: pydantic models in place of records."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar, cast

from pydantic import BaseModel

from isthmus._batch import OnError, Outcomes, check_on_error, resolve_outcomes
from isthmus._collection import Collection
from isthmus._core.apply import not_written
from isthmus._core.executor import ItemResult
from isthmus._index_annotation import IndexKind
from isthmus._model_codec import ModelCodec
from isthmus._model_paths import ModelPaths
from isthmus._query.ast import Predicate
from isthmus._query.field import FieldName, as_path
from isthmus._query.query import Query, as_predicate, as_query
from isthmus._reads import STREAM_PAGE, Find
from isthmus._record import Record
from isthmus._stream import RecordStream
from isthmus._writes import StreamReceipt
from isthmus.errors import (
    ConflictError,
    InvalidRecordError,
    IsthmusError,
    UsageError,
)

M = TypeVar("M", bound=BaseModel)

OnInvalid: TypeAlias = "Literal['raise', 'skip'] | Callable[[InvalidRecordError], object]"
"""What becomes of a stored record that does not match the model."""

UPDATE_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class TypedPage(Generic[M]):
    """One page of models, and the cursor of the next page; None after the last."""

    models: list[M]
    cursor: str | None


class TypedStream(Generic[M]):
    """An async iterator over the models of a search that holds one page in memory.

    Use `async with`, or call `aclose()`, to release the resources of a stream that is not read to the end.
    """

    def __init__(self, records: RecordStream, codec: ModelCodec[M], on_invalid: OnInvalid) -> None:
        self._records = records
        self._codec = codec
        self._on_invalid = on_invalid

    def __aiter__(self) -> Self:
        self._records.__aiter__()
        return self

    async def __anext__(self) -> M:
        while True:
            record = await self._records.__anext__()
            try:
                return self._codec.decode(record.id, record.data)
            except InvalidRecordError as error:
                _pass_over(error, self._on_invalid)

    async def aclose(self) -> None:
        """End the stream and release its resources at the store."""
        await self._records.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class TypedCollection(Generic[M]):
    """A collection of one pydantic model; dates, decimals, UUIDs, enums and bytes keep their types.

    Every write is validated by the model before it is sent. If the model has a field `id`, that is
    the record's id: it is not stored in the data as well, and is generated if it is empty or None.
    Reading a stored record that does not match the model raises `InvalidRecordError` with its id.

    The methods are those of `Collection` with models for records; they have the same cost and
    raise the same errors.
    """

    def __init__(self, collection: Collection, model: type[M]) -> None:
        self._codec = ModelCodec(model)
        self._paths = ModelPaths(model)
        self.untyped = collection
        """The same collection, with records."""

    @property
    def model(self) -> type[M]:
        """The pydantic model."""
        return self._codec.model

    @property
    def collection_name(self) -> str:
        """The name of the table, index or prefix."""
        return self.untyped.collection_name

    @property
    def indexes(self) -> dict[IndexKind, tuple[str, ...]]:
        """The paths that the model declares by `Indexed`, by the kind of index."""
        return self._codec.indexes()

    def __repr__(self) -> str:
        return f"<TypedCollection {self.collection_name!r} of {self._codec.name}>"

    def _to_record(self, item: M, key: str | None = None) -> Record:
        id, data = self._codec.encode(item, key)
        return Record(data, id=id)

    def _to_model(self, record: Record) -> M:
        return self._codec.decode(record.id, record.data)

    # One model

    async def create(self, model: M) -> str:
        """Create a record from a model and return its id."""
        return await self.untyped.create(self._to_record(model))

    async def get(self, id: str, *, for_update: bool = False) -> M | None:
        """Return the model with this id, or None.

        `for_update` locks the record until the end of the transaction.
        """
        record = await self.untyped.get(id, for_update=for_update)
        return None if record is None else self._to_model(record)

    async def require(self, id: str, *, for_update: bool = False) -> M:
        """Return the model with this id; raises `NotFoundError` if there is none."""
        return self._to_model(await self.untyped.require(id, for_update=for_update))

    async def replace(self, id: str, model: M, *, if_version: str | None = None) -> str:
        """Replace a record by a model and return its new version.

        Raises `NotFoundError`, or `ConflictError` if the record is not at `if_version`.
        """
        return await self.untyped.replace(id, self._to_record(model, id), if_version=if_version)

    async def update(self, id: str, /, *, if_version: str | None = None, **mutations: Any) -> M:
        """Change fields of a record and return the changed model.

        `mutations` are the new values by field name. The changed model is validated as a whole, and
        written only if the record has not changed since it was read; otherwise it is read and
        validated again, up to 20 times. So a stored record always matches the model. Costs one read
        and one write for each attempt.

        Raises `NotFoundError`, `ConflictError` if the record is not at `if_version`, and `UsageError`
        for a field that the model lacks.
        """
        unknown = mutations.keys() - self.model.model_fields.keys()
        if unknown or "id" in mutations:
            raise UsageError(f"{self._codec.name} has no field {min(unknown or {'id'})!r} to change")
        for attempt in range(UPDATE_ATTEMPTS):
            record = await self.untyped.require(id)
            before = self._codec.dump(self._to_model(record), id)
            merged = self._codec.validate({**before, **mutations}, id)
            after = self._codec.dump(merged, id)
            # A validator may change fields that were not given.
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
        """Create or replace a record and return its new version."""
        return await self.untyped.upsert(id, self._to_record(model, id), if_version=if_version)

    async def delete(self, id: str, *, if_version: str | None = None) -> bool:
        """Delete a record and return whether it existed."""
        return await self.untyped.delete(id, if_version=if_version)

    async def exists(self, what: str | Query | Predicate) -> bool:
        """Return whether a record with this id, or any record that matches a query, exists."""
        return await self.untyped.exists(what if isinstance(what, str) else self._paths.query(as_query(what)))

    # Batches

    async def create_batch(
        self, models: Iterable[M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Create records from models and return their ids in order."""
        return await self._write_batch("create", [(None, model) for model in models], on_error, atomic)

    async def replace_batch(
        self, models: Mapping[str, M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Replace records by the models of their ids; return the new versions in order."""
        return await self._write_batch("replace", list(models.items()), on_error, atomic)

    async def upsert_batch(
        self, models: Mapping[str, M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Create or replace records by the models of their ids; return the new versions in order."""
        return await self._write_batch("upsert", list(models.items()), on_error, atomic)

    async def delete_batch(
        self, ids: Iterable[str], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[bool]:
        """Delete records and return, for each id, whether the record existed."""
        return await self.untyped.delete_batch(ids, on_error=on_error, atomic=atomic)

    async def get_batch(self, ids: Iterable[str]) -> list[M | None]:
        """Return the models with these ids in order, None where there is no record."""
        records = await self.untyped.get_batch(ids)
        return [None if record is None else self._to_model(record) for record in records]

    async def require_batch(self, ids: Iterable[str]) -> list[M]:
        """Return the models with these ids in order; raises `NotFoundError` if one is missing."""
        return [self._to_model(record) for record in await self.untyped.require_batch(ids)]

    async def _write_batch(
        self, method: str, models: Sequence[tuple[str | None, M]], on_error: OnError, atomic: bool | None
    ) -> Outcomes[str]:
        """Write the valid models; the outcome of an invalid one is its error."""
        check_on_error(on_error)
        items: list[Record | InvalidRecordError] = []
        for key, model in models:
            try:
                items.append(self._to_record(model, key))
            except InvalidRecordError as error:
                items.append(error)
        records = [item for item in items if isinstance(item, Record)]
        run = getattr(self.untyped, f"{method}_batch")
        if len(records) == len(items):
            return cast("Outcomes[str]", await run(records, on_error=on_error, atomic=atomic))
        results: list[ItemResult] = []
        if self.untyped.capabilities.atomic_batch if atomic is None else atomic:
            results = [item if isinstance(item, IsthmusError) else not_written(item) for item in items]
        else:
            outcomes = iter(await run(records, on_error="collect", atomic=atomic))
            results = [item if isinstance(item, IsthmusError) else next(outcomes) for item in items]
        return resolve_outcomes(f"{method}_batch", results, on_error)

    async def stream_write(
        self,
        models: AsyncIterable[M] | Iterable[M],
        *,
        upsert: bool = False,
        batch_size: int = 1_000,
        on_error: OnError = "raise",
    ) -> StreamReceipt:
        """Write models from an iterator in batches; parameters as for `Collection.stream_write`.

        An invalid model ends the stream with `InvalidRecordError`; the batches before it are written.
        """
        return await self.untyped.stream_write(
            self._to_records(models), upsert=upsert, batch_size=batch_size, on_error=on_error
        )

    async def _to_records(self, models: AsyncIterable[M] | Iterable[M]) -> AsyncIterator[Record]:
        if isinstance(models, AsyncIterable):
            async for model in models:
                yield self._to_record(model)
        else:
            for model in models:
                yield self._to_record(model)

    # Queries

    async def search(self, query: Find = None, *, on_invalid: OnInvalid = "raise") -> list[M]:
        """Return the matching models in the query's order.

        `on_invalid` decides about stored records that do not match the model: "raise" ends with the
        first one's `InvalidRecordError`, "skip" leaves them out, and a function is called with each
        error before the record is left out.
        """
        _check_on_invalid(on_invalid)
        models: list[M] = []
        for record in await self.untyped.search(self._resolve(query)):
            try:
                models.append(self._to_model(record))
            except InvalidRecordError as error:
                _pass_over(error, on_invalid)
        return models

    async def find_one(self, query: Find = None) -> M | None:
        """Return the first matching model, or None."""
        record = await self.untyped.find_one(self._resolve(query))
        return None if record is None else self._to_model(record)

    def stream(
        self,
        query: Find = None,
        *,
        consistent: bool = False,
        page_size: int = STREAM_PAGE,
        on_invalid: OnInvalid = "raise",
    ) -> TypedStream[M]:
        """Return the matching models as a stream.

        Parameters are those of `Collection.stream`, and `on_invalid` as for `search`.
        """
        _check_on_invalid(on_invalid)
        records = self.untyped.stream(self._resolve(query), consistent=consistent, page_size=page_size)
        return TypedStream(records, self._codec, on_invalid)

    async def page(
        self, query: Find = None, *, size: int | None = None, cursor: str | None = None
    ) -> TypedPage[M]:
        """Return one page of models, at most `size` of them, and the cursor of the next page."""
        page = await self.untyped.page(self._resolve(query), size=size, cursor=cursor)
        return TypedPage([self._to_model(record) for record in page.records], page.cursor)

    async def count(self, query: Find = None) -> int:
        """Return how many records match."""
        return await self.untyped.count(self._paths.query(as_query(query)))

    async def aggregate(
        self,
        query: Find = None,
        *,
        by: FieldName | Iterable[FieldName] = (),
        **columns: str | tuple[str, FieldName],
    ) -> list[dict[str, Any]]:
        """Return one row for each group; parameters as for `Collection.aggregate`."""
        names = [by] if isinstance(by, str) or not isinstance(by, Iterable) else by
        resolved = {
            name: column if isinstance(column, str) else (column[0], self._paths.resolve(as_path(column[1])))
            for name, column in columns.items()
        }
        return await self.untyped.aggregate(
            self._paths.query(as_query(query)),
            by=[self._paths.resolve(as_path(name)) for name in names],
            **resolved,
        )

    async def delete_where(self, query: Query | Predicate) -> int:
        """Delete the matching records and return how many there were."""
        return await self.untyped.delete_where(self._paths.predicate(as_predicate(query)))

    def _resolve(self, query: Find) -> Query:
        parsed = as_query(query)
        if parsed.fields is not None:
            raise UsageError("a typed collection reads whole models: select() needs .untyped")
        return self._paths.query(parsed)


def _check_on_invalid(on_invalid: object) -> None:
    if on_invalid not in ("raise", "skip") and not callable(on_invalid):
        raise UsageError(f"on_invalid is 'raise', 'skip' or a function of the error, got {on_invalid!r}")


def _pass_over(error: InvalidRecordError, on_invalid: OnInvalid) -> None:
    """Raise the error, or leave its record out."""
    if on_invalid == "raise":
        raise error
    if not isinstance(on_invalid, str):
        on_invalid(error)


__all__ = ["TypedCollection", "TypedPage", "TypedStream"]
