"""The methods that write: one record, a batch, a stream, or all records that match."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, overload

from isthmus._arguments import as_list, check_count, shorten
from isthmus._batch import OnError, Outcomes, check_on_error, resolve_outcomes
from isthmus._core.executor import Mutation, WriteKind, mutation_for
from isthmus._core.modify import Modification
from isthmus._core.mutation_batch import EncodedRecords, MutationBatch, batch_creates, batch_writes
from isthmus._core.op import Modify, ModifyWhere, Remove, Write
from isthmus._ids import check_id, check_ids, new_id
from isthmus._path import Root
from isthmus._query.ast import RANKED, TRUE, Predicate, leaves
from isthmus._query.changes import FieldChange, as_changes
from isthmus._query.query import Query, as_predicate
from isthmus._record import Record
from isthmus._session import SessionBound
from isthmus.errors import InvalidRecordError, IsthmusError, QueryError, UsageError

T = TypeVar("T")

Data: TypeAlias = "Record | Mapping[str, Any]"
Items: TypeAlias = "Mapping[str, Data] | Iterable[Record | tuple[str, Data] | tuple[str, Data, str | None]]"

Changes: TypeAlias = "FieldChange | Iterable[FieldChange]"
Modifications: TypeAlias = (
    "Mapping[str, Changes] | Iterable[tuple[str, Changes] | tuple[str, Changes, str | None]]"
)

MAX_ERRORS = 1_000


class StreamReceipt:
    """The result of `stream_write`: how many records were written and failed.

    `errors` maps the item's index in the stream to its error, for the first 1,000 that failed.
    """

    def __init__(self) -> None:
        self.written = 0
        self.failed = 0
        self.errors: dict[int, IsthmusError] = {}

    def __repr__(self) -> str:
        return f"StreamReceipt(written={self.written}, failed={self.failed})"


class WriteMethods(SessionBound):
    """The methods that write to one collection."""

    # One record

    async def _insert(self, record: Data) -> str:
        """Create a record and return its id, a new time-ordered one if the record has none.

        `record` is a Record or a mapping of data. Raises `InvalidRecordError` before any I/O for
        data that cannot be stored, and `AlreadyExistsError` if the id is taken. One round trip;
        creates of one loop iteration may share it.
        """
        return await self._write_one(WriteKind.CREATE, _mutation(record))

    async def replace(self, id: str, record: Data, *, if_version: str | None = None) -> str:
        """Replace the data and metadata of a record and return its new version.

        With `if_version` only if the record is still at that version. Raises `NotFoundError`,
        `ConflictError` if the version differs, and `InvalidRecordError` before any I/O.
        """
        return await self._write_one(WriteKind.REPLACE, _mutation(record, id, if_version))

    async def update(self, id: str, patch: Data, *, if_version: str | None = None) -> str:
        """Merge top-level keys into a record's data and return its new version.

        `patch` is a mapping, or a Record whose metadata is merged too; None stores null. No
        concurrent update is lost. Raises `NotFoundError`, `ConflictError` if the record is not at
        `if_version` or other writers kept changing it, and `InvalidRecordError` before any I/O.
        """
        return await self._write_one(WriteKind.UPDATE, _mutation(patch, id, if_version))

    @overload
    async def upsert(self, id: str, record: Data, /, *, if_version: str | None = None) -> str: ...
    @overload
    async def upsert(self, record: Record, /, *, if_version: str | None = None) -> str: ...
    async def upsert(
        self, id: str | Record, record: Data | None = None, /, *, if_version: str | None = None
    ) -> str:
        """Write a record whether its id exists or not, and return its new version.

        Takes an id and data, or a Record with an id. With `if_version` the record must exist at
        that version, else `ConflictError`. Raises `InvalidRecordError` before any I/O.
        """
        if isinstance(id, Record):
            if record is not None or id.id is None:
                raise UsageError("upsert() takes an id and a record, or a Record that has an id")
            mutation = _mutation(id, id.id, if_version)
        elif record is None:
            raise UsageError("upsert() takes an id and a record, or a Record that has an id")
        else:
            mutation = _mutation(record, id, if_version)
        return await self._write_one(WriteKind.UPSERT, mutation)

    async def delete(self, id: str, *, if_version: str | None = None) -> bool:
        """Delete a record and return whether there was one; one round trip.

        Raises `ConflictError` if `if_version` is given and the record is not at that version.
        """
        return bool(await self._write_one(WriteKind.DELETE, Mutation(check_id(id), None, None, if_version)))

    async def modify(
        self,
        id: str,
        *changes: FieldChange,
        where: Predicate | None = None,
        if_version: str | None = None,
    ) -> str:
        """Change part of a record atomically and return its new version.

        Changes are made by fields, such as `field("stock").inc(-1)` or `field("tags").push("new")`,
        and apply in order. With `where` only if the predicate holds for the record at that moment,
        with `if_version` only at that version.

        Raises `QueryError` without changes, `NotFoundError`, `ConflictError` if `if_version` or
        `where` does not hold, and `InvalidRecordError` if the record does not admit a change; then
        nothing of it is changed. One round trip where the store modifies natively
        (`capabilities.modify`), else a read and a write for each attempt, for as long as the
        deadline allows. Concurrent calls for one record may share a write and its version.
        """
        wanted = Modification(check_id(id), as_changes(changes), _condition(where), if_version)
        [result] = await self._run(Modify(self.collection_name, (wanted,), atomic=False))
        if isinstance(result, IsthmusError):
            raise result
        return str(result)

    async def _write_one(self, kind: WriteKind, mutation: Mutation) -> str:
        if kind is not WriteKind.DELETE:
            _encode_now(mutation)
        results = await self._run(Write(self.collection_name, kind, (mutation,), atomic=False))
        result = results[0]
        if isinstance(result, IsthmusError):
            raise result
        return result  # type: ignore[return-value]  # a bool for a delete only

    # Batches

    async def create_batch(
        self, records: Iterable[Data], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Create records and return their ids in order.

        All or nothing where the backend can (`capabilities.atomic_batch`), unless `atomic=False`.
        If an item fails, raises `BatchError` with an outcome for each item; `on_error="collect"`
        returns the outcomes instead. Uses the store's bulk path (COPY, bulk API, one S3 log entry);
        the batch is held in memory.
        """
        # A list of our own: the caller may use theirs for the next batch meanwhile.
        items = records if isinstance(records, EncodedRecords) else as_list(records)
        mutations = batch_creates(items) or list(map(_mutation, items))
        return await self._write_batch(WriteKind.CREATE, mutations, on_error, atomic)

    async def replace_batch(
        self, items: Items, *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Replace records and return their new versions in order.

        `items` are `{id: data}`, or any of `(id, data)`, `(id, data, version)` and Records with ids.
        Atomicity and errors are those of `create_batch`; an id that is missing is a `NotFoundError`.
        """
        return await self._write_batch(WriteKind.REPLACE, _mutations(items), on_error, atomic)

    async def update_batch(
        self, items: Items, *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Merge top-level keys into records and return their new versions in order.

        `items` are `{id: patch}`, or any of `(id, patch)`, `(id, patch, version)` and Records with
        ids. Atomicity and errors are those of `create_batch`; a missing id is a `NotFoundError`.
        """
        return await self._write_batch(WriteKind.UPDATE, _mutations(items), on_error, atomic)

    async def upsert_batch(
        self, items: Items, *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Write records whether their ids exist or not, and return their new versions in order.

        `items` are those of `replace_batch`; atomicity and errors are those of `create_batch`.
        """
        return await self._write_batch(WriteKind.UPSERT, _mutations(items), on_error, atomic)

    async def modify_batch(
        self, items: Modifications, *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Change parts of records and return their new versions in order.

        `items` are `{id: changes}`, or any of `(id, changes)` and `(id, changes, version)`; changes
        are one, or a list that applies in order. Atomicity and errors are those of `create_batch`;
        each item is refused as by `modify`. An id may be repeated: a later item finds what the earlier
        ones left. A read and a write where all ids differ, or for an atomic batch; otherwise for each
        part in which no id comes twice.
        """
        check_on_error(on_error)
        modifications = _modifications(items)
        if not modifications:
            return Outcomes()
        if atomic is None:
            atomic = self.capabilities.atomic_batch
        results = await self._run(Modify(self.collection_name, modifications, atomic))
        return resolve_outcomes("modify_batch", results, on_error)

    async def delete_batch(
        self, ids: Iterable[str], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[bool]:
        """Delete records and return for each id, in order, whether there was one.

        A missing id is False and no error. Atomicity and errors are those of `create_batch`.
        """
        mutations = MutationBatch(check_ids(as_list(ids)))
        return await self._write_batch(WriteKind.DELETE, mutations, on_error, atomic)

    async def _write_batch(
        self, kind: WriteKind, mutations: Sequence[Mutation], on_error: OnError, atomic: bool | None
    ) -> Outcomes[Any]:
        check_on_error(on_error)
        if not mutations:
            return Outcomes()
        if atomic is None:
            atomic = self.capabilities.atomic_batch
        results = await self._run(Write(self.collection_name, kind, mutations, atomic))
        return resolve_outcomes(f"{kind.value}_batch", results, on_error)

    async def stream_write(
        self,
        source: AsyncIterable[Data] | Iterable[Data],
        *,
        upsert: bool = False,
        batch_size: int = 1_000,
        on_error: OnError = "raise",
    ) -> StreamReceipt:
        """Write records from an iterator in batches, holding one batch in memory.

        `batch_size` is the number of records of a batch; `upsert=True` overwrites existing ids.
        With `on_error="raise"` each batch is atomic where the backend can do that, and the first
        that fails ends the stream with its `BatchError`. With "collect" the items of a batch are
        written one by one, the first 1,000 errors are in the receipt, and the stream goes on.
        """
        return await self._write_stream(
            source, _mutation, upsert=upsert, batch_size=batch_size, on_error=on_error
        )

    async def _write_stream(
        self,
        source: AsyncIterable[T] | Iterable[T],
        prepare: Callable[[T], Mutation],
        *,
        upsert: bool,
        batch_size: int,
        on_error: OnError,
    ) -> StreamReceipt:
        """Write what `prepare` makes of the items of an iterator."""
        check_on_error(on_error)
        check_count("batch_size", batch_size)
        receipt = StreamReceipt()
        kind = WriteKind.UPSERT if upsert else WriteKind.CREATE
        start = 0
        async for batch in _batches(source, batch_size):
            atomic = None if on_error == "raise" else False
            outcomes = await self._write_batch(kind, [prepare(item) for item in batch], on_error, atomic)
            errors = outcomes.errors
            receipt.written += len(outcomes) - len(errors)
            receipt.failed += len(errors)
            for index, error in errors.items():
                if len(receipt.errors) < MAX_ERRORS:
                    receipt.errors[start + index] = error
            start += len(batch)
        return receipt

    async def delete_where(self, query: Query | Predicate) -> int:
        """Delete the matching records and return how many there were.

        One native request where `capabilities.delete_where` is true, else a scan that deletes what
        matched by compare-and-set. Raises `UsageError` without a condition: `clear()` deletes all.
        """
        where = as_predicate(query)
        if where == TRUE:
            raise UsageError("delete_where() without a condition would delete everything; call clear()")
        return await self._run(Remove(self.collection_name, where))

    async def update_where(self, query: Query | Predicate, *changes: FieldChange) -> int:
        """Change parts of the matching records and return how many matched.

        Where the store has transactions, all are changed or none; elsewhere each is written under
        its version, one that no longer matches is passed over, and one that begins to match
        meanwhile may be missed. No record is changed twice.

        Raises `UsageError` without a condition, `QueryError` for a query with a sort or a limit, and
        `BatchError` if records do not admit a change: with transactions nothing is changed then,
        elsewhere the others are.
        """
        wanted = as_changes(changes)
        where = as_predicate(query)
        if where == TRUE:
            raise UsageError(
                "update_where() without a condition would change everything;"
                " field('_id').exists() holds for all records"
            )
        return await self._run(ModifyWhere(self.collection_name, _condition(where), wanted))

    async def clear(self) -> int:
        """Delete all records of this collection and return how many there were."""
        return await self._run(Remove(self.collection_name, TRUE))


def _condition(where: Predicate | None) -> Predicate:
    """Return the condition of a modification; raises `QueryError` for one that no single record has."""
    if where is None:
        return TRUE
    predicate = as_predicate(where)
    for leaf in leaves(predicate):
        if isinstance(leaf, RANKED) or leaf.path.root is Root.SCORE:
            raise QueryError("match(), nearest() and _score are of a search, not of one record's condition")
    return predicate


def _modifications(items: Modifications) -> list[Modification]:
    """Return the modifications of a batch; raises `QueryError` and `UsageError`."""
    made = []
    for item in as_list(items.items() if isinstance(items, Mapping) else items):
        if not isinstance(item, tuple) or len(item) not in (2, 3):
            raise UsageError(f"an item is (id, changes) or (id, changes, version); got {shorten(item)}")
        changes = item[1]
        if isinstance(changes, str | Mapping) or not isinstance(changes, Iterable):
            changes = (changes,)
        version = item[2] if len(item) == 3 else None
        made.append(Modification(check_id(item[0]), as_changes(changes), if_version=version))
    return made


def _mutation(record: Data, id: str | None = None, if_version: str | None = None) -> Mutation:
    if isinstance(record, Record):
        mutation = mutation_for(record, if_version)
        if id is not None:
            mutation.id = check_id(id)
            mutation.own_id = False
        return mutation
    if isinstance(record, dict | Mapping):
        if id is not None:
            return Mutation(check_id(id), record, None, if_version)
        mutation = Mutation(new_id(), record, None, if_version)
        mutation.own_id = True
        return mutation
    raise InvalidRecordError(f"data: expected a Record or a dict, got {type(record).__name__}", path="data")


def _mutations(items: Items) -> Sequence[Mutation]:
    pairs: list[Any] = as_list(items.items() if isinstance(items, Mapping) else items)
    columns = batch_writes(pairs)
    if columns is not None:
        return columns
    mutations = []
    for item in pairs:
        if isinstance(item, Record):
            if item.id is None:
                raise UsageError("each Record of this batch needs an id")
            mutations.append(_mutation(item))
        elif isinstance(item, tuple) and len(item) in (2, 3):
            mutations.append(_mutation(item[1], item[0], item[2] if len(item) == 3 else None))
        else:
            raise UsageError(
                f"an item is a Record with an id, (id, data) or (id, data, version); got {shorten(item)}"
            )
    return mutations


def _encode_now(mutation: Mutation) -> None:
    """Encode a single record before any I/O; the encoding is kept for the backend."""
    try:
        mutation.raw = mutation.encode()
        mutation.raw_metadata = mutation.encode_metadata()
    except InvalidRecordError as error:
        error.record_id = mutation.id
        raise


async def _batches(source: AsyncIterable[T] | Iterable[T], size: int) -> AsyncIterator[list[T]]:
    if isinstance(source, AsyncIterable):
        batch: list[T] = []
        async for record in source:
            batch.append(record)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
        return
    items = iter(source)
    while chunk := list(itertools.islice(items, size)):
        yield chunk
