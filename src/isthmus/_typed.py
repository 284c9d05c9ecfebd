"""Typed collections: pydantic models in place of records."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from pydantic import BaseModel

from isthmus._batch import OnError, Outcomes
from isthmus._collection import Collection
from isthmus._core.executor import Mutation, mutation_for
from isthmus._index_annotation import IndexKind
from isthmus._model_codec import ModelCodec
from isthmus._model_columns import is_every_column, model_columns
from isthmus._model_upgrades import SCHEMA_KEY
from isthmus._query.field import FieldName
from isthmus._query.query import Query
from isthmus._reads import STREAM_PAGE
from isthmus._record import Record
from isthmus._typed_batch import Item, write_valid
from isthmus._typed_change_stream import TypedChangesMethods
from isthmus._typed_modify import TypedModifyMethods
from isthmus._typed_query import Key, TypedColumn, TypedGroups, TypedQuery, Where, resolve_where
from isthmus._typed_stream import OnInvalid, TypedHit, TypedPage, TypedStream
from isthmus._value import replace
from isthmus._writes import StreamReceipt
from isthmus.errors import ConflictError, InvalidRecordError, UsageError

if TYPE_CHECKING:
    from isthmus._explain import Explanation

M = TypeVar("M", bound=BaseModel)
B = TypeVar("B", bound=BaseModel)
T = TypeVar("T")

UPDATE_ATTEMPTS = 20


class TypedCollection(TypedChangesMethods[M], TypedModifyMethods[M], Generic[M]):
    """A collection of one pydantic model; dates, decimals, UUIDs, enums and bytes keep their types.

    Every write is validated by the model before it is sent. If the model has a field `id`, that is
    the record's id: it is not stored in the data as well, and is generated if it is empty or None.
    Reading a stored record that does not match the model raises `InvalidRecordError` with its id.
    A model with `upgrade` functions reads records of its older schemas too; `schema_key` is the
    metadata key of a record's schema number, and a record without one is of schema 1.

    The methods are those of `Collection` with models for records; they have the same cost and
    raise the same errors.
    """

    def __init__(
        self,
        collection: Collection,
        model: type[M],
        *,
        schema_key: str = SCHEMA_KEY,
        config: object = None,
    ) -> None:
        self._codec = ModelCodec(model, schema_key)
        self._codec.upgrades.check_store(config)
        self._every_column = is_every_column(config, collection.collection_name)
        super().__init__(collection, model)

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
        """The paths that the model declares by `Indexed`, by the kind of index or column."""
        return {**self._codec.indexes(), **model_columns(self.model, every=self._every_column)}

    def __repr__(self) -> str:
        return f"<TypedCollection {self.collection_name!r} of {self._codec.name}>"

    def _to_record(self, item: M, key: str | None = None) -> Record:
        id, data = self._codec.encode(item, key)
        return Record(data, id=id, metadata=self._codec.upgrades.metadata)

    @property
    def schema(self) -> int | None:
        """The number of the model's schema; None for a model without `upgrade` functions."""
        return self._codec.upgrades.schema

    @property
    def schema_key(self) -> str:
        """The metadata key of a record's schema number."""
        return self._codec.upgrades.key

    def upgrade_record(self, record: Record) -> Record:
        """Return a stored record as the model writes it today; keys that the model lacks are kept.

        Raises `InvalidRecordError` if an `upgrade` function fails, or the result does not match the model.
        """
        return self._codec.rewrite(record)

    # One model

    async def create(self, model: M) -> str:
        """Create a record from a model and return its id."""
        return await self.untyped.create(self._to_record(model))

    async def get(self, id: str, *, for_update: bool = False) -> M | None:
        """Return the model with this id, or None.

        `for_update` locks the record until the end of the transaction.
        """
        record = await self.untyped.get(id, for_update=for_update)
        return None if record is None else self._codec.decode(record)

    async def require(self, id: str, *, for_update: bool = False) -> M:
        """Return the model with this id; raises `NotFoundError` if there is none."""
        return self._codec.decode(await self.untyped.require(id, for_update=for_update))

    async def replace(self, id: str, model: M, *, if_version: str | None = None) -> str:
        """Replace a record by a model and return its new version.

        Raises `NotFoundError`, or `ConflictError` if the record is not at `if_version`, which is by
        default the version that the model carries.
        """
        record = self._to_record(model, id)
        version = self._codec.version_of(model) if if_version is None else if_version
        return await self.untyped.replace(id, record, if_version=version)

    async def update(self, id: str, /, *, if_version: str | None = None, **mutations: Any) -> M:
        """Change fields of a record and return the changed model.

        `mutations` are the new values by field name. The changed model is validated as a whole, and
        written only if the record has not changed since it was read; otherwise it is read and
        validated again, up to 20 times. So a stored record always matches the model. Costs one read
        and one write for each attempt.

        Raises `NotFoundError`, `ConflictError` if the record is not at `if_version`, and `UsageError`
        for a field that the model lacks.
        """
        unknown = mutations.keys() - (self.model.model_fields.keys() - {"id", self._codec.version_field})
        if unknown:
            raise UsageError(f"{self._codec.name} has no field {min(unknown)!r} to change")
        for attempt in range(UPDATE_ATTEMPTS):
            record = await self.untyped.require(id)
            merged, patch = self._codec.change(record, mutations)
            version = record.version if if_version is None else if_version
            try:
                if self._codec.upgrades.is_old(record):  # fields may have gone, and the number changes
                    whole = self._codec.rewrite(record)
                    new = Record({**whole.data, **patch}, metadata=whole.metadata)
                    version = await self.untyped.replace(id, new, if_version=version)
                else:
                    version = await self.untyped.update(id, patch, if_version=version)
            except ConflictError:
                if if_version is not None or attempt == UPDATE_ATTEMPTS - 1:
                    raise
            else:
                return self._codec.with_version(merged, version)
        raise AssertionError("the last attempt returns or raises")

    async def upsert(self, id: str, model: M, *, if_version: str | None = None) -> str:
        """Create or replace a record and return its new version; `if_version` as for `replace`."""
        record = self._to_record(model, id)
        version = self._codec.version_of(model) if if_version is None else if_version
        return await self.untyped.upsert(id, record, if_version=version)

    async def delete(self, id: str, *, if_version: str | None = None) -> bool:
        """Delete a record and return whether it existed."""
        return await self.untyped.delete(id, if_version=if_version)

    async def exists(self, what: str | Where[M]) -> bool:
        """Return whether a record with this id, or any record that matches a query, exists."""
        if isinstance(what, str):
            return await self.untyped.exists(what)
        return await self._query(what).exists()

    # Batches

    async def create_batch(
        self, models: Iterable[M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Create records from models and return their ids in order."""
        return await self._write_batch("create", [(None, model) for model in models], on_error, atomic)

    async def replace_batch(
        self, models: Mapping[str, M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Replace records by the models of their ids; return the new versions in order.

        A model that carries a version is written if the record is still at that version.
        """
        return await self._write_batch("replace", list(models.items()), on_error, atomic)

    async def upsert_batch(
        self, models: Mapping[str, M], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Create or replace records by the models of their ids; versions as for `replace_batch`."""
        return await self._write_batch("upsert", list(models.items()), on_error, atomic)

    async def delete_batch(
        self, ids: Iterable[str], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[bool]:
        """Delete records and return, for each id, whether the record existed."""
        return await self.untyped.delete_batch(ids, on_error=on_error, atomic=atomic)

    async def get_batch(self, ids: Iterable[str]) -> list[M | None]:
        """Return the models with these ids in order, None where there is no record."""
        records = await self.untyped.get_batch(ids)
        return [None if record is None else self._codec.decode(record) for record in records]

    async def require_batch(self, ids: Iterable[str]) -> list[M]:
        """Return the models with these ids in order; raises `NotFoundError` if one is missing."""
        return [self._codec.decode(record) for record in await self.untyped.require_batch(ids)]

    async def _write_batch(
        self, method: str, models: Sequence[tuple[str | None, M]], on_error: OnError, atomic: bool | None
    ) -> Outcomes[str]:
        """Write the valid models; the outcome of an invalid one is its error."""
        items: list[Item | InvalidRecordError] = []
        for key, model in models:
            try:
                record = self._to_record(model, key)
            except InvalidRecordError as error:
                items.append(error)
            else:
                version = None if key is None else self._codec.version_of(model)
                items.append(record if key is None or version is None else (key, record, version))
        return await write_valid(
            method,
            getattr(self.untyped, f"{method}_batch"),
            items,
            on_error,
            atomic=atomic,
            atomic_by_default=self.untyped.capabilities.atomic_batch,
        )

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
        With `upsert` a model that carries a version is written if the record is still at that version.
        """

        def to_mutation(model: M) -> Mutation:
            return mutation_for(self._to_record(model), self._codec.version_of(model) if upsert else None)

        return await self.untyped._write_stream(
            models, to_mutation, upsert=upsert, batch_size=batch_size, on_error=on_error
        )

    # Queries

    def _query(self, condition: Where[M] | None = None) -> TypedQuery[M, M]:
        return TypedQuery(
            self.untyped, self._paths, self._codec, self._codec.decode, resolve_where(condition, self._paths)
        )

    @overload
    def where(self, condition: Where[M]) -> TypedQuery[M, M]: ...
    @overload
    def where(self, condition: FieldName, op: str, value: Any = None) -> TypedQuery[M, M]: ...
    def where(self, condition: Any, op: str | None = None, value: Any = None) -> TypedQuery[M, M]:
        """Return a query over the models; `await` one of its methods to run it.

        `people.where(lambda p: (p.age >= 25) & (p.name == "Ann")).sort(lambda p: p.age).limit(10)`
        """
        return self._query().where(condition, cast("str", op), value)

    def sort(
        self,
        key: Key[M],
        direction: Literal["asc", "desc"] = "asc",
        *,
        nulls: Literal["first", "last"] = "last",
    ) -> TypedQuery[M, M]:
        """Return a query for all models in an order; as `TypedQuery.sort`."""
        return self._query().sort(key, direction, nulls=nulls)

    @overload
    def select(self, row: type[B]) -> TypedQuery[M, B]: ...
    @overload
    def select(self, row: Callable[[M], T]) -> TypedQuery[M, T]: ...
    def select(self, row: Any) -> TypedQuery[M, Any]:
        """Return a query for parts of all models: a smaller model, or a lambda; as `TypedQuery.select`."""
        return self._query().select(row)

    async def search(
        self, query: Where[M] | None = None, *, on_invalid: OnInvalid = "raise", for_update: bool = False
    ) -> list[M]:
        """Return the matching models in the query's order.

        `query` is a lambda over the model, or a Query or predicate with the names of its fields.
        `on_invalid` decides about stored records that do not match the model: "raise" ends with the
        first one's `InvalidRecordError`, "skip" leaves them out, and a function is called with each
        error before the record is left out.
        """
        return await self._query(query).search(on_invalid=on_invalid, for_update=for_update)

    async def find_one(self, query: Where[M] | None = None) -> M | None:
        """Return the first matching model, or None."""
        return await self._query(query).find_one()

    def stream(
        self,
        query: Where[M] | None = None,
        *,
        consistent: bool = False,
        page_size: int = STREAM_PAGE,
        on_invalid: OnInvalid = "raise",
    ) -> TypedStream[M]:
        """Return the matching models as a stream.

        Parameters are those of `Collection.stream`, and `on_invalid` as for `search`.
        """
        return self._query(query).stream(consistent=consistent, page_size=page_size, on_invalid=on_invalid)

    async def page(
        self,
        query: Where[M] | None = None,
        *,
        size: int | None = None,
        cursor: str | None = None,
        on_invalid: OnInvalid = "raise",
    ) -> TypedPage[M]:
        """Return one page of models, at most `size` of them, and the cursor of the next page."""
        return await self._query(query).page(size=size, cursor=cursor, on_invalid=on_invalid)

    async def hits(
        self,
        query: Where[M],
        *,
        highlights: Iterable[Key[M]] = (),
        on_invalid: OnInvalid = "raise",
    ) -> list[TypedHit[M]]:
        """Return models with their scores, best first unless the query has a sort."""
        return await self._query(query).hits(highlights=highlights, on_invalid=on_invalid)

    async def count(self, query: Where[M] | None = None) -> int:
        """Return how many records match."""
        return await self._query(query).count()

    async def explain(self, query: Where[M] | None = None) -> Explanation:
        """Return what runs where, the native query and the index used, without running the query."""
        return await self._query(query).explain()

    async def aggregate(
        self, query: Where[M] | None = None, *, by: TypedGroups[M] = (), **columns: TypedColumn[M]
    ) -> list[dict[str, Any]]:
        """Return one row for each group in stored form; parameters as for `Collection.aggregate`.

        `group` returns typed rows.
        """
        if not isinstance(query, Query):
            return await self._query(query).aggregate(by=by, **columns)
        # Its sort is by columns, not by fields of the model.
        conditions = self._query(replace(query, order=()))
        first = replace(conditions.query, order=query.order)
        return await conditions._aggregate_first(first, by, columns)

    async def group(self, row: Callable[[M], T], *, on_invalid: OnInvalid = "raise") -> list[T]:
        """Return a row for each group of all records, in the model's types; as `TypedQuery.group`."""
        return await self._query().group(row, on_invalid=on_invalid)

    async def delete_where(self, query: Where[M]) -> int:
        """Delete the matching records and return how many there were."""
        return await self._query(query).delete()

    async def clear(self) -> int:
        """Delete all records of this collection and return how many there were."""
        return await self.untyped.clear()

    async def refresh(self) -> None:
        """Make earlier writes visible to searches by other handles; a no-op where they are already."""
        await self.untyped.refresh()


__all__ = ["TypedCollection", "TypedHit", "TypedPage", "TypedQuery", "TypedStream"]
