"""AsyncDatabase: the handle that users hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from isthmus._arguments import check_function, check_seconds, shorten
from isthmus._change_stream import ChangesMethods
from isthmus._collection import Collection, CollectionMethods, check_collection_name, check_encodable
from isthmus._core.clock import REPEAT_SECONDS, SYSTEM_CLOCK, Clock
from isthmus._core.closing import CLOSE_SECONDS, CLOSINGS, close_within
from isthmus._core.columns import refuse_declarations
from isthmus._core.executor import Backend, TransactionOptions
from isthmus._core.op import Drop, Ping
from isthmus._core.registry import plugin, select_config
from isthmus._core.stack import Layer, Stack
from isthmus._core.supports import SupportsDrop, SupportsIndexes, SupportsTerminate
from isthmus._core.uncancelled import Ends
from isthmus._create import Create
from isthmus._query.query import as_query
from isthmus._reads import Find
from isthmus._run import RepeatQueue, run_joined, run_repeatedly
from isthmus._scoping import Scoping
from isthmus._session import DatabaseSession, Session, Stats
from isthmus._transaction import AmbientTransaction, Transaction, TransactionContext, TransactionSession
from isthmus.errors import UnsupportedError, UsageError
from isthmus.layers import from_config
from isthmus.layers._policy import Policy
from isthmus.layers.context import Context
from isthmus.layers.deadline import Deadline
from isthmus.layers.guard import Guard
from isthmus.layers.merge import Merge
from isthmus.layers.plan import Plan

if TYPE_CHECKING:
    from pydantic import BaseModel

    from isthmus._core.config import BackendConfig
    from isthmus._partition import Partition
    from isthmus._portability import Portability
    from isthmus._typed import TypedCollection

R = TypeVar("R")
M = TypeVar("M", bound="BaseModel")


class AsyncDatabase(Scoping, ChangesMethods, CollectionMethods):
    """A database handle: record methods on its default collection, and access to the others.

    `await AsyncDatabase.create("postgres", {...})` connects; `AsyncDatabase("postgres", {...})`
    does no I/O until `connect()` or `async with`. A handle may be used from any event loop; each
    loop has its own native pool.
    """

    create = Create()
    _clock: Clock = SYSTEM_CLOCK
    _shared: dict[str, Layer]
    _namespace = ""
    """A prefix of the names of all collections but the default one: tests have collections of their own."""

    def __init__(self, backend: str, config: Mapping[str, Any] | BackendConfig | None = None) -> None:
        chosen = plugin(backend)
        settings = chosen.config().load(select_config(chosen, config))
        setting = settings.collection_setting()
        if setting is not None:
            check_encodable(getattr(settings, setting))
        self._shared = {}
        self._ends = Ends()
        self._set_up(chosen.build(settings), settings, Policy())
        self._ambient = AmbientTransaction()
        self._repeats = RepeatQueue()

    def _set_up(self, backend: Backend, config: BackendConfig, policy: Policy) -> None:
        self._backend = backend
        self._config = config
        self._policy = policy
        secret = config.cursor_secret.get_secret_value().encode() if config.cursor_secret else b""
        self._optional_layers: list[Layer] = []
        if config.resilience or config.layers or config.deadline is not None:
            self._optional_layers = from_config(config, self._clock, self._shared)
        layers = [
            *self._optional_layers,
            Guard(backend.name, backend),
            *([Merge()] if getattr(config, "coalesce", True) else []),
            Plan(backend, policy=policy, sort_cap=config.sort_cap, ends=self._ends, clock=self._clock),
            Context(backend.name),
        ]
        self._core = DatabaseSession(backend, layers, secret, self._ends)

    # Opening and closing

    @classmethod
    async def _create_handle(
        cls, backend: str, config: Mapping[str, Any] | BackendConfig | None = None, *, lazy: bool = False
    ) -> Self:
        """Return a connected handle; fails at once when the store is down or refuses the credentials.

        `config` may be a mapping keyed by backend names. With `lazy=True` the first call connects.
        """
        db = cls(backend, config)
        db._core.lazy = lazy
        return db if lazy else await db.connect()

    @classmethod
    async def open(cls, url: str, config: Mapping[str, Any] | None = None, *, lazy: bool = False) -> Self:
        """Return a connected handle for a URL such as `postgres://user@host/app?pool.max_size=20`.

        libpq's text `host=h dbname=app` is a URL of PostgreSQL.
        """
        from isthmus._core.url import scheme_of, to_url  # urllib takes 3 ms to import

        url = to_url(url)
        return await cls._create_handle(scheme_of(url), {**(config or {}), "url": url}, lazy=lazy)

    async def connect(self) -> Self:
        """Connect, and make the default collection with its indexes ready, within the deadline."""
        self._core.refuse_without_parent()
        try:
            # Without the other layers: connecting should fail at once, with the store's own error.
            layers = [layer for layer in self._optional_layers if isinstance(layer, Deadline)]
            await self._core.connect(self.collection_name, Stack(layers, self._backend))
        except BaseException:
            self._core.lazy = False
            if self._core.parent is None:
                await CLOSINGS.run(self._backend.close(), "isthmus-close")
            raise
        return self

    async def close(self, *, timeout: float | None = None) -> None:
        """Release the pool; the last handle on it closes it. Idempotent.

        Refuses new calls. Waits at most `timeout` seconds (None: the config's deadline, else 60) for those
        under way and connections in use; then drops them, with a warning that names known holders.
        Raises `UsageError` in a transaction of the same task.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, zero=True)
        if self._core.parent is None:
            self._ambient.refuse_current("close() waits for")
        self._core.closed = "it was closed; connect() opens it again"
        self._core.lazy = False
        if self._core.parent is not None:
            return
        self._core.end_calls()
        seconds = (self._config.deadline or CLOSE_SECONDS) if timeout is None else timeout
        await close_within(seconds, self._close(), self._backend)

    async def _close(self) -> None:
        await self._core.calls.drain()
        await self._ends.drain()  # streams and transactions whose callers were cancelled are still ending
        try:
            await self._close_layers()
        finally:
            await self._backend.close()

    async def _close_layers(self) -> None:
        for layer in self._core.stack.layers:
            await layer.close()

    def terminate(self) -> None:
        """Drop all connections at once, those in use too; what is under way fails. Idempotent.

        Called on a running loop, on which the layers are closed in the background.
        """
        self._core.closed = "it was terminated; connect() opens it again"
        self._core.lazy = False
        if self._core.parent is not None:
            return
        self._core.end_calls()
        if isinstance(self._backend, SupportsTerminate):
            self._backend.terminate()
            CLOSINGS.start(self._close_layers(), "isthmus-terminate")
        else:
            CLOSINGS.start(self._close(), "isthmus-terminate")

    async def __aenter__(self) -> Self:
        if self._core.closed is not None:
            await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Where the methods run

    @property
    def _session(self) -> Session:
        joined = self._ambient.current()
        return self._confine(self._core if joined is None else joined._own)

    @property
    def collection_name(self) -> str:
        """The default collection: `table`, `index` or `prefix` of the config."""
        return self._backend.default_collection

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self._backend.name

    @property
    def config(self) -> BackendConfig:
        """The config in force; `config.explain()` says where each setting came from."""
        return self._config

    @property
    def closed(self) -> bool:
        """Whether a call would be refused."""
        return self._core.is_closed

    @overload
    def collection(self, name: str) -> Collection: ...
    @overload
    def collection(self, name: str, model: type[M], *, schema_key: str = ...) -> TypedCollection[M]: ...
    def collection(
        self, name: str, model: type[M] | None = None, *, schema_key: str = "schema"
    ) -> Collection | TypedCollection[M]:
        """Return another table, index or prefix over the same pool; typed if a pydantic model is given.

        `schema_key` is the metadata key of a model's schema number. No I/O. Raises `UnsupportedError`
        for a model with unique fields or columns where the backend has none.
        """
        check_collection_name(name)
        collection = Collection(lambda: self._session, name := self._namespace + name)
        if model is None:
            return collection
        from isthmus._typed import TypedCollection

        typed = TypedCollection(collection, model, schema_key=schema_key, config=self._config)
        backend = self._backend
        refuse_declarations(self.backend, backend.capabilities, typed.indexes)
        if isinstance(backend, SupportsIndexes) and typed.indexes and backend.declare(name, typed.indexes):
            self._core.ready.discard(name)  # its next operation builds the missing indexes
        return typed

    async def collections(self) -> list[str]:
        """Return the names of the collections that isthmus created in this store, sorted."""
        await self._ensure_open()
        start, default = self._namespace, self.collection_name
        names = await self._core.count(self._backend.collections())
        return sorted(name.removeprefix(start) for name in names if name.startswith((start, default)))

    async def drop_collection(self, name: str) -> None:
        """Delete a table, index or prefix with all records in it; a missing one is not an error.

        The next write to the collection, by any open handle, creates it again. Raises
        `UnsupportedError` where the backend cannot drop (`capabilities.drop`), and `UsageError`
        inside a transaction of this handle.
        """
        check_collection_name(name)
        self._refuse_drop()
        await self._drop(name if name == self.collection_name else self._namespace + name)

    async def _drop(self, name: str) -> None:
        backend = self._backend
        if not isinstance(backend, SupportsDrop):
            raise UnsupportedError(f"{self.backend} cannot drop a collection", capability="drop")
        if self._ambient.current() is not None:
            raise UsageError("a collection cannot be dropped inside a transaction: leave it first")
        await self._ensure_open()
        self._core.ready.discard(name)
        await self._core.count(self._core.stack.run(Drop(name)))

    async def ping(self) -> None:
        """Do the cheapest round trip that needs the store to work; raises `StoreError` if it does not."""
        await self._ensure_open()
        await self._core.count(self._core.stack.run(Ping(self.collection_name)))

    async def _ensure_open(self) -> None:
        if self._core.closed is not None or self._core.is_closed:
            await self._core.ensure_open(self.collection_name)

    def stats(self) -> Stats:
        """Return a snapshot of this loop's pool and of the layers' metrics; no I/O."""
        layers = self._core.stack.layers
        counted = {layer.label(): metrics for layer in layers if (metrics := layer.metrics())}
        return Stats(self.backend, self._backend.stats(), counted)

    def options(
        self, *, policy: Policy | None = None, deadline: float | None = None, resilience: str | None = None
    ) -> Self:
        """Return another handle on the same pool, with other options; closing it closes nothing.

        `deadline` bounds each call, in seconds, retries included; `resilience` is "service", "batch" or
        "none"; None leaves an option as it is. No I/O. Raises `ConfigError` for an unknown preset.
        """
        if policy is not None and not isinstance(policy, Policy):
            raise UsageError(f"policy must be a Policy, got {shorten(policy)}")
        changed: dict[str, Any] = {}
        if deadline is not None:
            changed["deadline"] = deadline
        if resilience is not None:
            changed["resilience"] = resilience
        derived = object.__new__(type(self))
        derived._ambient, derived._repeats = self._ambient, self._repeats
        derived._shared, derived._ends = self._shared, self._ends
        derived._namespace, derived._scope = self._namespace, self._scope
        derived._set_up(self._backend, self._config.model_copy(update=changed), policy or self._policy)
        derived._core.derive_from(self._core)
        return derived

    # Transactions

    def transaction(self, *, isolation: str | None = None, read_only: bool = False) -> TransactionContext:
        """Open a transaction with `async with`: commits on leaving, rolls back on an exception.

        Methods of this handle called by the same task join it. Opened again inside, it is a
        savepoint. `isolation` is one of `capabilities.isolation`; None is the store's default.
        Raises `UnsupportedError` where the backend has no transactions.
        """
        can = self._backend.capabilities
        if not can.transactions:
            raise UnsupportedError(
                f"{self.backend} has no transactions; a batch, or if_version, may do",
                capability="transactions",
            )
        if isolation is not None and not (isinstance(isolation, str) and isolation in can.isolation):
            raise UnsupportedError(
                f"{self.backend} has no isolation level {shorten(isolation)}, only {sorted(can.isolation)}",
                capability="isolation",
            )
        settings = () if self._scope is None else self._scope.settings
        options = TransactionOptions(isolation, read_only, settings)
        return TransactionContext(self._begin, options, self._ambient, self._scope)

    async def _begin(self, options: TransactionOptions) -> Transaction:
        await self._ensure_open()
        begun = self._backend.begin(options)
        for layer in self._optional_layers:
            begun = layer.wrap_transaction(begun)
        executor = await self._core.begin(begun)
        session = TransactionSession(begun, executor, self._core, options)
        return Transaction(session, self.collection_name, self._namespace, self._scope)

    async def run(
        self,
        work: Callable[[Transaction], Awaitable[R]],
        *,
        attempts: int | None = None,
        isolation: str | None = None,
    ) -> R:
        """Run a function in a serializable transaction, and again from the start on a conflict.

        The effect of all `run`s is that of running them one after another (meaning §5), so a record
        that is read, changed and written loses no update. The function may run several times: it
        should have no effects outside its transaction. It is repeated on `SerializationError` only,
        for as long as the deadline allows (30 s without one), at most `attempts` times. With
        `isolation` the promise is that level's. Inside another `run` it is a savepoint: the outer one
        repeats. Raises `UsageError` inside a transaction of another level.
        """
        check_function("run()", work)
        if isolation is None and "serializable" in self._backend.capabilities.isolation:
            isolation = "serializable"
        if (outer := self._ambient.current()) is not None:
            return await run_joined(outer, work, isolation)
        return await run_repeatedly(
            lambda: self.transaction(isolation=isolation),
            work,
            self._repeats,
            attempts=attempts,
            seconds=self._config.deadline or REPEAT_SECONDS,
            clock=self._clock,
        )

    async def partitions(
        self,
        query: Find = None,
        count: int = 8,
        *,
        collection: str | None = None,
        url_from: str | None = None,
    ) -> list[Partition]:
        """Return disjoint, complete, picklable parts of a query, for Dask, Ray and the like.

        Secrets do not travel: workers take them from their environment, or the whole URL from the
        variable `url_from`. Costs one count, and one search by id for each bound.
        """
        from isthmus._partition import plan_partitions

        verbs: CollectionMethods = self if collection is None else self.collection(collection)
        config, scope = self._config, self._scope
        return await plan_partitions(verbs, AsyncDatabase, config, as_query(query), count, url_from, scope)

    def portability(self, query: Find = None) -> dict[str, Portability]:
        """Return for each backend whether it serves a query natively, partly client-side or not, and why."""
        from isthmus._portability import portability

        return portability(query)

    def __repr__(self) -> str:
        state = "lazy" if self._core.lazy else "closed" if self.closed else "open"
        asked = sorted(self._optional_layers, key=lambda layer: layer.order)
        extra = [layer.label() for layer in asked]
        return f"<{type(self).__name__} {self.backend} {self.collection_name!r} {state}" + (
            f" with {', '.join(extra)}>" if extra else ">"
        )
