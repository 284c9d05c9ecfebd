"""The verbs that users call, on a database, a collection or a transaction alike."""

from __future__ import annotations

import copy
import itertools
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, overload

from isthmus._batch import OnError, Outcomes, check_on_error, resolve_outcomes
from isthmus._core.capabilities import Capabilities
from isthmus._core.executor import (
    After,
    AggregateRequest,
    Executor,
    Mutation,
    NativePlan,
    PageRequest,
    WriteKind,
    mutation_for,
)
from isthmus._core.mutation_batch import MutationBatch, batch_creates, batch_writes
from isthmus._core.op import Aggregate, Count, Explain, Fetch, Op, Read, Remove, Write
from isthmus._path import Path, Root
from isthmus._query.ast import FALSE, RANKED, TRUE, Predicate, SortKey, leaves
from isthmus._query.build import FieldName, Query, _path, as_predicate, as_query, measures
from isthmus._query.evaluate import select
from isthmus._query.split import split
from isthmus._record import Record, project
from isthmus._search_hit import Hit
from isthmus._stream import RecordStream
from isthmus._value import Value
from isthmus._values import check_id, check_ids, new_id
from isthmus.errors import InvalidRecordError, IsthmusError, NotFoundError, QueryError, UsageError

if TYPE_CHECKING:
    from isthmus._explain import Explanation

R = TypeVar("R")
Find: TypeAlias = "Query | Predicate | None"
Data: TypeAlias = "Record | Mapping[str, Any]"

PAGE_SIZE = 100
STREAM_PAGE = 2_000
_BY_SCORE = (SortKey(Path(Root.SCORE, ()), descending=True),)


class CursorPage(Value):
    """One page of a search, and the token that continues it (None: this was the last).

    The token may be kept: it survives restarts, and fits only the same conditions and order.
    """

    records: list[Record]
    cursor: str | None


class StreamReceipt:
    """What a streamed write came to; `errors` holds the first 1,000 by the item's place."""

    def __init__(self) -> None:
        self.written = 0
        self.failed = 0
        self.errors: dict[int, IsthmusError] = {}

    def __repr__(self) -> str:
        return f"StreamReceipt(written={self.written}, failed={self.failed})"


class Session(Protocol):
    """What the verbs run on: chosen anew for each call, so that a call joins its task's transaction."""

    @property
    def executor(self) -> Executor:
        """Return the executor at the bottom."""
        ...

    @property
    def backend_name(self) -> str:
        """Return the backend's name."""
        ...

    @property
    def cursor_secret(self) -> bytes:
        """Return what signs cursors."""
        ...

    @property
    def ahead(self) -> bool:
        """Return whether a stream may ask for its next page while this one is read."""
        ...

    async def run(self, op: Op[R]) -> R:
        """Run an operation through the layers, the collection made ready before."""
        ...

    async def refresh(self, collection: str) -> None:
        """Make earlier writes visible to searches by any handle."""
        ...


class Verbs:
    """All record verbs over one collection."""

    @property
    @abstractmethod
    def _session(self) -> Session: ...

    @property
    @abstractmethod
    def collection_name(self) -> str:
        """The table, index or prefix that these verbs act on."""

    @property
    def capabilities(self) -> Capabilities:
        """What can be done here; plain data."""
        return self._session.executor.capabilities

    def _run(self, op: Op[R]) -> Awaitable[R]:
        return self._session.run(op)

    # One record

    async def _insert(self, record: Data) -> str:
        """Create a record; return its id (a new time-ordered one if it has none).

        Raises `AlreadyExistsError`, or `InvalidRecordError` before any I/O.
        """
        return await self._write_one(WriteKind.CREATE, _mutation(record))

    async def get(self, id: str, *, for_update: bool = False) -> Record | None:
        """Return the record of an id, or None; an outage is never a None.

        `for_update` locks it until the transaction ends.
        """
        records = await self._run(Read(self.collection_name, (check_id(id),), for_update))
        return records[0]

    async def require(self, id: str, *, for_update: bool = False) -> Record:
        """Return the record of an id; raises `NotFoundError` if there is none."""
        record = await self.get(id, for_update=for_update)
        if record is None:
            raise NotFoundError(f"no record has the id {id!r}", record_id=id)
        return record

    async def exists(self, what: str | Query | Predicate) -> bool:
        """Return whether an id, or any record of a query, is there."""
        if isinstance(what, str):
            return await self.get(what) is not None
        return await self.find_one(what) is not None

    async def replace(self, id: str, record: Data, *, if_version: str | None = None) -> str:
        """Replace data and metadata of a record; return its new version.

        Raises `NotFoundError`, or `ConflictError` if it is not at `if_version`.
        """
        return await self._write_one(WriteKind.REPLACE, _mutation(record, id, if_version))

    async def update(self, id: str, patch: Data, *, if_version: str | None = None) -> str:
        """Merge top-level keys into a record's data (and a Record's metadata); return its new version.

        A None stores null. No concurrent update is lost. Raises `NotFoundError`, or
        `ConflictError` if it is not at `if_version`.
        """
        return await self._write_one(WriteKind.UPDATE, _mutation(patch, id, if_version))

    @overload
    async def upsert(self, id: str, record: Data, /, *, if_version: str | None = None) -> str: ...
    @overload
    async def upsert(self, record: Record, /, *, if_version: str | None = None) -> str: ...
    async def upsert(
        self, id: str | Record, record: Data | None = None, /, *, if_version: str | None = None
    ) -> str:
        """Write a record whether its id exists or not; return its new version."""
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
        """Delete a record; return whether there was one. `ConflictError` if it is not at `if_version`."""
        return bool(await self._write_one(WriteKind.DELETE, Mutation(check_id(id), None, None, if_version)))

    async def _write_one(self, kind: WriteKind, mutation: Mutation) -> str:
        if kind is not WriteKind.DELETE:
            _checked(mutation)
        results = await self._run(Write(self.collection_name, kind, (mutation,), atomic=False))
        result = results[0]
        if isinstance(result, IsthmusError):
            raise result
        return result  # type: ignore[return-value]  # a bool for a delete only

    # Batches

    async def create_batch(
        self, records: Iterable[Data], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Create records; return their ids in order.

        All or nothing where the backend can (`capabilities.atomic_batch`), unless `atomic=False`.
        Raises `BatchError` with an outcome for each item, or returns them (`on_error="collect"`).
        """
        items = list(records)  # of our own: the caller may use theirs for the next batch meanwhile
        mutations = batch_creates(items) or list(map(_mutation, items))
        return await self._write_batch(WriteKind.CREATE, mutations, on_error, atomic)

    async def get_batch(self, ids: Iterable[str]) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none."""
        wanted = check_ids(list(ids))
        records = await self._run(Read(self.collection_name, wanted))
        return records if len(set(wanted)) == len(wanted) else _separate(records)

    async def require_batch(self, ids: Iterable[str]) -> list[Record]:
        """Return the records of these ids in order; raises `NotFoundError` if one is missing."""
        wanted = list(ids)
        records = await self.get_batch(wanted)
        missing = [id for id, record in zip(wanted, records, strict=True) if record is None]
        if missing:
            raise NotFoundError(
                f"{len(missing)} ids have no record, {missing[0]!r} first", record_id=missing[0]
            )
        return records  # type: ignore[return-value]

    async def exists_batch(self, ids: Iterable[str]) -> list[bool]:
        """Return for each id whether there is a record."""
        return [record is not None for record in await self.get_batch(ids)]

    async def replace_batch(
        self, items: Items, *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Replace records given as `{id: data}`, `(id, data)` or `(id, data, version)`.

        Returns their new versions in order.
        """
        return await self._write_batch(WriteKind.REPLACE, _mutations(items), on_error, atomic)

    async def update_batch(
        self, items: Items, *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Merge into records given as `{id: patch}`, `(id, patch)` or `(id, patch, version)`.

        Returns their new versions in order.
        """
        return await self._write_batch(WriteKind.UPDATE, _mutations(items), on_error, atomic)

    async def upsert_batch(
        self, items: Items, *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[str]:
        """Write records, given with their ids, whether they exist or not; return their versions."""
        return await self._write_batch(WriteKind.UPSERT, _mutations(items), on_error, atomic)

    async def delete_batch(
        self, ids: Iterable[str], *, on_error: OnError = "raise", atomic: bool | None = None
    ) -> Outcomes[bool]:
        """Delete records; return for each id whether there was one."""
        mutations = MutationBatch(check_ids(list(ids)))
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

        Each batch is atomic where the backend can do that. With `on_error="raise"` the first batch
        that fails ends the stream with its `BatchError`; with "collect" its errors are in the
        receipt and the rest goes on.
        """
        check_on_error(on_error)
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}")
        receipt = StreamReceipt()
        kind = WriteKind.UPSERT if upsert else WriteKind.CREATE
        start = 0
        async for batch in _batches(source, batch_size):
            atomic = None if on_error == "raise" else False
            outcomes = await self._write_batch(kind, [_mutation(r) for r in batch], on_error, atomic)
            errors = outcomes.errors
            receipt.written += len(outcomes) - len(errors)
            receipt.failed += len(errors)
            for index, error in errors.items():
                if len(receipt.errors) < 1_000:
                    receipt.errors[start + index] = error
            start += len(batch)
        return receipt

    # Finding

    async def search(self, query: Find = None, *, for_update: bool = False) -> list[Record]:
        """Return the matching records in the query's order, by id without one.

        All of them are held in memory; `stream` does not.
        """
        found = as_query(query)
        if found.count == 0:
            return []
        request = PageRequest(
            found.where,
            found.order,
            found.count,
            offset=found.skip,
            select=found.fields,
            for_update=for_update,
        )
        return (await self._run(Fetch(self.collection_name, request))).records

    async def hits(self, query: Query | Predicate, *, passages: Iterable[FieldName] = ()) -> list[Hit]:
        """Return what a ranked search finds, best first unless the query has a sort: records with scores.

        The query has a `match()` or a `nearest()`. Of the fields in `passages` each hit has the
        pieces of text that matched, with the places of the words.
        """
        found = as_query(query)
        if not any(isinstance(leaf, RANKED) for leaf in leaves(found.where)):
            raise QueryError("hits() ranks by match() or nearest(), and the query has neither")
        if found.count == 0:
            return []
        request = PageRequest(
            found.where,
            found.order or _BY_SCORE,
            found.count,
            offset=found.skip,
            select=found.fields,
            ranked=True,
            highlight=tuple(map(_path, passages)),
        )
        page = await self._run(Fetch(self.collection_name, request))
        said = page.hits
        return [
            Hit(record, hit.score, hit.passages) if (hit := said.get(record.id or "")) else Hit(record)
            for record in page.records
        ]

    async def find_one(self, query: Find = None) -> Record | None:
        """Return the first matching record, or None."""
        records = await self.search(as_query(query).limit(1))
        return records[0] if records else None

    async def count(self, query: Find = None) -> int:
        """Return how many records match; a limit or offset in the query is refused."""
        return (await self._run(Count(self.collection_name, _conditions(query)))).count

    def stream(
        self, query: Find = None, *, consistent: bool = False, page_size: int = STREAM_PAGE
    ) -> RecordStream:
        """Return the matching records as a stream with bounded memory, the next page one ahead.

        Without a sort the order is the store's. `consistent=True` reads one snapshot, where the
        backend can (`capabilities.consistent_stream`); leave it by `async with`.
        """
        found = as_query(query)
        if not 1 <= page_size <= 10_000:
            raise UsageError(f"page_size must be 1 to 10,000, got {page_size}")
        session = self._session
        # Without an order, a limit or offset still has to mean what it means to search.
        ordered = bool(found.order or found.count is not None or found.skip)
        size: int | None = page_size
        if ordered and not session.executor.support(self.collection_name).orders(found.order):
            size = None  # sorted client-side: one scan, not one for each page
        request = PageRequest(
            found.where,
            found.order if ordered else None,
            size,
            offset=found.skip,
            select=found.fields,
            consistent=consistent,
        )
        return RecordStream(
            session.run, self.collection_name, request, limit=found.count, ahead=session.ahead
        )

    async def page(
        self, query: Find = None, *, size: int | None = None, cursor: str | None = None
    ) -> CursorPage:
        """Return one page and the cursor of the next; pages never overlap and can be resumed.

        `size` is the query's limit or 100 if not given. Raises `QueryError` for a cursor that was
        changed or belongs to another query.
        """
        found = as_query(query)
        wanted = size if size is not None else found.count if found.count is not None else PAGE_SIZE
        if wanted < 1:
            raise QueryError(f"a page has at least 1 record, got size {wanted}")
        if found.skip:
            raise QueryError("page() goes on by cursor; use search() for an offset")
        from isthmus._query.cursor import decode_cursor, encode_cursor, fits  # loads hashing

        secret = self._session.cursor_secret
        after = None if cursor is None else decode_cursor(cursor, found, self.collection_name, secret)
        if after is not None and not fits(after, found.order):
            raise QueryError("cursor: it belongs to another order")
        start = None if after is None else After(after)
        request = PageRequest(found.where, found.order, wanted, after=start, select=None)
        page = await self._run(Fetch(self.collection_name, request))
        token = None
        if page.after is not None and page.after.position is not None:
            token = encode_cursor(page.after.position, found, self.collection_name, secret)
        records = page.records if found.fields is None else _selected(page.records, found)
        return CursorPage(records, token)

    async def aggregate(
        self,
        query: Find = None,
        *,
        by: FieldName | Iterable[FieldName] = (),
        **columns: str | tuple[str, FieldName],
    ) -> list[dict[str, Any]]:
        """Return one row for each group, groups in order.

        `aggregate(by="city", n="count", oldest=("max", "age"))`

        Without `by` there is one row. `sum` and `avg` take numbers only, and are None of nothing; a
        record without a value is in the None group, a record with a list in each value's group.
        """
        names = _group_names(by)
        paths = tuple(_path(name) for name in names)
        computed = measures(columns)
        if not computed:
            raise QueryError("aggregate() needs at least one column such as n='count'")
        labels = [str(path) for path in paths]
        clash = set(labels) & {m.name for m in computed} or {n for n in labels if labels.count(n) > 1}
        if clash:
            raise QueryError(f"aggregate(): two columns are named {min(clash)!r}")
        request = AggregateRequest(_conditions(query), computed, paths)
        answer = await self._run(Aggregate(self.collection_name, request))
        return [
            {
                **dict(zip(labels, key, strict=True)),
                **{m.name: v for m, v in zip(computed, values, strict=True)},
            }
            for key, values in answer.groups.rows(paths)
        ]

    async def explain(self, query: Find = None) -> Explanation:
        """Return what runs where, the native query and the index used; finds nothing."""
        from isthmus._explain import build_explanation

        found = as_query(query)
        session = self._session
        support = session.executor.support(self.collection_name)
        parts = split(found.where, support.pushdown)
        exact = parts.residual == TRUE and support.orders(found.order)
        request = PageRequest(
            parts.pushed,
            found.order if support.orders(found.order) else None,
            found.count if found.count is not None and exact else PAGE_SIZE,
            offset=found.skip if exact else 0,
        )
        if parts.pushed == FALSE:
            native = NativePlan("none: no record can match")
        else:
            native = await session.run(Explain(self.collection_name, request))
        return build_explanation(session.backend_name, support, found.where, found.order, parts, native)

    async def delete_where(self, query: Query | Predicate) -> int:
        """Delete the matching records; return how many. `clear()` deletes all."""
        where = as_predicate(query)
        if where == TRUE:
            raise UsageError("delete_where() without a condition would delete everything; call clear()")
        return await self._run(Remove(self.collection_name, where))

    async def clear(self) -> int:
        """Delete all records of this collection, and nothing else; return how many."""
        return await self._run(Remove(self.collection_name, TRUE))

    async def refresh(self) -> None:
        """Make earlier writes visible to searches by other handles; a no-op where they are."""
        await self._session.refresh(self.collection_name)


Items: TypeAlias = "Mapping[str, Data] | Iterable[Record | tuple[str, Data] | tuple[str, Data, str | None]]"


class Collection(Verbs):
    """Another table, index or prefix over the same pool."""

    def __init__(self, resolve: Callable[[], Session], name: str) -> None:
        self._resolve = resolve
        self._name = name

    @property
    def _session(self) -> Session:
        return self._resolve()

    create = Verbs._insert

    @property
    def collection_name(self) -> str:
        """The table, index or prefix."""
        return self._name

    def __repr__(self) -> str:
        return f"<Collection {self._name!r}>"


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
    pairs: list[Any] = list(items.items() if isinstance(items, Mapping) else items)
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
                f"an item is a Record with an id, (id, data) or (id, data, version); got {item!r:.80}"
            )
    return mutations


def _checked(mutation: Mutation) -> None:
    """Check a single record before any I/O; its encoding is kept for the backend."""
    try:
        mutation.raw = mutation.encoded()
        mutation.raw_metadata = mutation.encoded_metadata()
    except InvalidRecordError as error:
        error.record_id = mutation.id
        raise


def _separate(records: list[Record | None]) -> list[Record | None]:
    """Return records such that none is there twice: who changes one does not change another."""
    seen: set[int] = set()
    separate: list[Record | None] = []
    for record in records:
        separate.append(copy.deepcopy(record) if id(record) in seen else record)
        seen.add(id(record))
    return separate


def _conditions(query: Find) -> Predicate:
    return TRUE if query is None else as_predicate(query)


def _group_names(by: Any) -> list[Any]:
    if isinstance(by, str) or not isinstance(by, Iterable):
        return [by]
    return list(by)


def _selected(records: list[Record], query: Query) -> list[Record]:
    return [project(record, select(record.data, query.fields or ())) for record in records]


async def _batches(source: AsyncIterable[Data] | Iterable[Data], size: int) -> AsyncIterator[list[Data]]:
    if isinstance(source, AsyncIterable):
        batch: list[Data] = []
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
