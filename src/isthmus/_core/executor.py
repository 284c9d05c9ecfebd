"""The seam: the protocols that a backend implements. Few plural methods without default bodies.

A backend and a transaction are executors. A backend compiles, runs and decodes; planning, retries
and timing are the layers' business.

A response may carry *recheck candidates*: records that the store could not evaluate exactly, such as an
Elasticsearch record that disagrees with the mapping. The core evaluates and merges them in order.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from isthmus._arguments import check_version
from isthmus._core.capabilities import Capabilities
from isthmus._ids import new_id
from isthmus._path import Path
from isthmus._query.aggregate import Groups
from isthmus._query.ast import Leaf, Measure, Predicate, SortKey
from isthmus._query.bucket import GroupKey
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus._search_hit import Hit
from isthmus._value import Value
from isthmus._values import decode, encode
from isthmus.errors import IsthmusError

WriteResult: TypeAlias = "str | IsthmusError"
"""The result of one item: its id (create) or new version (replace, update, upsert), or its error."""
DeleteResult: TypeAlias = "bool | IsthmusError"
"""The result of one deletion: whether there was a record, or its error."""
ItemResult: TypeAlias = "WriteResult | DeleteResult"


class After(Value):
    """Where a page ended; given back in the request for the next page.

    An ordered page may leave both empty (`MORE`): the core derives the position from the last
    record. A `token` names something that the store holds for the stream, such as a snapshot or a
    cursor; the core gives it back by `release` when the stream is left early.
    """

    position: tuple[Any, ...] | None = None
    """The last record's position (`cursor_position`), the id last; without an order, JSON of your own."""
    token: Any = None


MORE = After()


class WriteKind(enum.Enum):
    """The five ways to write; one `write` has one kind."""

    CREATE = "create"
    REPLACE = "replace"
    UPDATE = "update"
    UPSERT = "upsert"
    DELETE = "delete"


class Mutation:
    """One item of a write.

    `data` and `metadata` are as given by the user, unchecked (None where only `raw` is set);
    `encode()` checks and encodes, and raises `InvalidRecordError`. A backend that writes all or
    nothing may encode while it sends. An update merges `data` and `metadata` key by key at the
    top level; a delete has neither.
    """

    __slots__ = (
        "data",
        "id",
        "if_version",
        "metadata",
        "own_id",
        "raw",
        "raw_metadata",
        "store_makes_id",
        "written_version",
    )

    def __init__(
        self, id: str, data: Any = None, metadata: Any = None, if_version: str | None = None
    ) -> None:
        self.id = id
        self.data = data
        self.metadata = metadata
        self.if_version = if_version if if_version is None else check_version(if_version)
        self.own_id = False
        """Whether the id was generated for this mutation, so that nobody else can have written it."""
        self.store_makes_id = False
        """Whether the store gives the record its id, so that nothing refuses a repeated create."""
        self.raw: bytes | None = None
        """The data as canonical JSON, once checked or as read from another store."""
        self.raw_metadata: bytes | None = None
        self.written_version: int | None = None  # what a backend gives the record, in each attempt the same

    def encode(self) -> bytes:
        """Return the canonical JSON of the data."""
        raw = self.raw
        return encode(self.data) if raw is None else raw

    def decode(self) -> dict[str, Any]:
        """Return a private canonical copy of the data."""
        return decode(self.encode())  # type: ignore[no-any-return]

    def encode_metadata(self) -> bytes:
        """Return the canonical JSON of the metadata; `{}` if there is none."""
        if self.raw_metadata is not None:
            return self.raw_metadata
        return encode(self.metadata, "metadata") if self.metadata else b"{}"


def mutation_for(record: Record, if_version: str | None = None) -> Mutation:
    """Return the mutation that writes a record, with a new id if it has none."""
    if record._raw is None:  # made by the user: there is no JSON text to pass on
        mutation = Mutation(record.id or new_id(), record._data, record._metadata, if_version)
    else:
        raw, raw_metadata = record.raw
        data = record.data if raw is None else None
        metadata = record.metadata if raw_metadata is None else None
        mutation = Mutation(record.id or new_id(), data, metadata, if_version)
        mutation.raw, mutation.raw_metadata = raw, raw_metadata
    mutation.own_id = not record.id
    return mutation


class PageRequest(Value):
    """One page of a search.

    Below the plan layer, `where` has only leaves that `Support.pushdown` reported as EXACT or
    SUPERSET (a SUPERSET leaf stands for its superset form), and `order` only keys that
    `Support.orders` accepted. `where` is `And(())` when there is no condition; no other constant
    reaches a backend. `order` `()` is by id; None is any order, for streams.
    """

    where: Predicate
    order: tuple[SortKey, ...] | None
    size: int | None
    """The maximum number of records: 1 to 10,000 for pages of a stream, None for a search without a limit."""
    after: After | None = None
    offset: int = 0
    select: tuple[Path, ...] | None = None
    """The selected paths, as a hint; the core projects the records anyway."""
    consistent: bool = False
    """From one snapshot, held until the last page or `release`."""
    streamed: bool = False
    """More pages will be requested: a backend may keep a cursor whose token it returns with a full page.
    If it no longer has the cursor, it goes on after `after.position`. Only together with an order."""
    for_update: bool = False
    """Lock the rows until the transaction ends."""
    ranked: bool = False
    """Return the store's score of each record in the page's `hits`."""
    highlight: tuple[Path, ...] = ()
    """The fields for which each hit carries the matching snippets."""
    texts: bool = False
    """Only ids and data are read: a backend may return `Page.texts` in place of records. A hint, and only
    where the store evaluates all conditions exactly."""

    def size_up_to(self, limit: int) -> int:
        """Return the size, or `limit` where that is less or there is no size."""
        return limit if self.size is None else min(self.size, limit)


class StoredTexts(Value):
    """The ids of records and their data as JSON texts, in the same order."""

    ids: list[str]
    texts: Sequence[bytes | str]
    decode: Callable[[bytes | str], Any]

    def records(self) -> Iterator[Record]:
        """Yield the records, without what was not read."""
        for id, text in zip(self.ids, self.texts, strict=True):
            yield Record.stored(id, text, None, None, None, None, self.decode)


class Page(Value):
    """Records in order; `after` is None on the last page.

    `recheck` holds candidates that the store could not evaluate exactly; they match at least the
    pushed predicate's superset and are not part of `records`. With an order they come with every
    page, without one with the first page only.
    """

    records: list[Record]
    after: After | None
    recheck: Sequence[Record] = ()
    hits: Mapping[str, Hit] = MappingProxyType({})
    """For a ranked request, the score and highlights of each record by its id."""
    texts: StoredTexts | None = None
    """For a request of texts, and in place of records."""


class CountResult(Value):
    """How many records match for certain, and the candidates to evaluate client-side."""

    count: int
    recheck: Sequence[Record] = ()


class AggregateRequest(Value):
    """Measures over the matching records, by the distinct values of some paths."""

    where: Predicate
    measures: tuple[Measure, ...]
    by: tuple[GroupKey, ...] = ()


class AggregateResult(Value):
    """Partial states by group, and the candidates to evaluate and add client-side."""

    groups: Groups
    recheck: Sequence[Record] = ()


class NativePlan(Value):
    """The native form of a request: the text, the index used, and details from the store's planner."""

    native: str
    index: str | None = None
    details: Mapping[str, Any] = MappingProxyType({})


class Support(Protocol):
    """The operations that a backend pushes down for one collection; asked for each query, no I/O."""

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return how closely the native form of a leaf matches its meaning."""
        ...

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether pages can come in this order (`()` is by id), cursors included."""
        ...

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return whether the store computes these exactly, floats within 1e-12; no to what is unknown."""
        ...


class Executor(Protocol):
    """Runs operations: a backend or a transaction."""

    @property
    def capabilities(self) -> Capabilities:
        """Return the capabilities; plain data."""
        ...

    def support(self, collection: str) -> Support:
        """Return what can be pushed down for a collection; no I/O."""
        ...

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none.

        Ids may repeat, and there may be none.
        """
        ...

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations of one kind as if one after another; return one result for each, in order.

        With `atomic` (only where the capability `atomic_batch` is true) either all are applied or
        none, and then every result is an error: the item's own, or `not_written`. An item's error
        is a `RecordError`, or a `StoreError` with `applied`; a failure of the whole request is
        raised. A record that cannot be encoded is `InvalidRecordError`, whatever the store holds
        under its id; then the rules of `refusal` apply.
        """
        ...

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page."""
        ...

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count the matching records; `where` has EXACT leaves only."""
        ...

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Compute partial states; only for what `Support.aggregates` accepted, EXACT leaves only."""
        ...

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete the matching records and return how many; EXACT leaves only.

        `And(())` clears the collection and is supported by every backend; other predicates where
        the capability `delete_where` is true.
        """
        ...

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the native form of a page request, without running it for its records."""
        ...

    async def release(self, collection: str, after: After) -> None:
        """Release the resource that an unfinished stream's token names; called only with a token."""
        ...

    async def open(self, collection: str) -> None:
        """Connect in the running loop, check access, and make the collection ready.

        Called once for each handle and collection, and again after `close` and `drop`, perhaps by
        several tasks at once. In a transaction: make the collection ready inside it, where the store can.
        """
        ...

    async def ping(self) -> None:
        """Do the cheapest round trip that needs the store to work."""
        ...

    async def refresh(self, collection: str) -> None:
        """Make earlier writes visible to searches by any handle; a no-op on most stores."""
        ...


class TransactionOptions(Value):
    """Options of a transaction."""

    isolation: str | None = None
    """None for the store's default, or one of `Capabilities.isolation`; the core refuses others."""
    read_only: bool = False  # a hint: the core refuses the writes
    settings: tuple[tuple[str, str], ...] = ()  # of the server; where `row_security` is true


class TransactionExecutor(Executor, Protocol):
    """An executor inside one transaction; used by one task at a time."""

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Open a savepoint: leaving by an exception rolls back to it."""
        ...


class PoolStats(Value):
    """A snapshot of one pool; sizes in connections, times in seconds."""

    size: int = 0
    idle: int = 0
    in_use: int = 0
    waiting: int = 0
    max_size: int = 0
    min_size: int = 0
    acquired: int = 0
    """The number of checkouts."""
    timeouts: int = 0
    opened: int = 0
    closed: int = 0
    wait_seconds: float = 0.0
    """Total time spent waiting for a connection."""
    use_seconds: float = 0.0
    """Total time that connections were in use."""


class Backend(Executor, Protocol):
    """The executor that a database handle owns, with connections to open and close."""

    @property
    def name(self) -> str:
        """Return the backend's name, such as `postgres`."""
        ...

    @property
    def default_collection(self) -> str:
        """Return the collection that the config names."""
        ...

    async def close(self) -> None:
        """Release everything; the last lease closes the pool. May be called twice; `open` may follow."""
        ...

    async def collections(self) -> list[str]:
        """Return the names of the collections that isthmus created in this store, sorted.

        Those that hold no record may be left out.
        """
        ...

    def begin(self, options: TransactionOptions) -> AbstractAsyncContextManager[TransactionExecutor]:
        """Open a transaction: commit on leaving, roll back on an exception or a cancellation.

        If the store gave the transaction up after a failed call, leaving it raises
        `TransactionError`; a conflict with another transaction is `SerializationError`.
        """
        ...

    def stats(self) -> PoolStats:
        """Return a snapshot of this loop's pool."""
        ...

    async def native(self) -> Any:
        """Return this loop's native client or pool."""
        ...
