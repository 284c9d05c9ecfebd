"""The S3 backend: prefixes of collections, their markers and the pools; the rest is a layout's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import orjson

from isthmus._core.capabilities import Capabilities
from isthmus._core.changes import no_changes
from isthmus._core.executor import (
    After,
    AggregateRequest,
    AggregateResult,
    CountResult,
    ItemResult,
    Mutation,
    NativePlan,
    Page,
    PageRequest,
    PoolStats,
    TransactionExecutor,
    TransactionOptions,
    WriteKind,
)
from isthmus._core.loop_pools import LoopBound
from isthmus._core.unique import Duplicate, Unique, unique_of
from isthmus._index_annotation import Declarations
from isthmus._query.ast import TRUE, Predicate, leaves
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus._value import replace
from isthmus.backends.s3.changes import LogChanges
from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.errors import PreconditionError
from isthmus.backends.s3.id_filter import id_range
from isthmus.backends.s3.keys import MARKER, folder_name, is_folder_of, name_before, unescape
from isthmus.backends.s3.layout import LOG, OBJECT, Layout
from isthmus.backends.s3.log.layout import LogLayout
from isthmus.backends.s3.object.etag_cache import EtagCache
from isthmus.backends.s3.object.layout import ObjectLayout
from isthmus.backends.s3.support import LogSupport, S3Support
from isthmus.backends.s3.transport.conditional_put_probe import ConditionalPutProbe
from isthmus.backends.s3.transport.protocol import Blob
from isthmus.backends.s3.transport.requests import Requests
from isthmus.backends.s3.transport.session import find_keys, pool_key
from isthmus.errors import AccessError, ConfigError, UnsupportedError

T = TypeVar("T")

DEFAULT = "records"
FORMAT = 2
"""The newest format of a marker that is read: 1, and 2 for one with unique fields or changes."""
PLAIN_FORMAT, DECLARED_FORMAT = 1, 2
_NO_UNIQUE = "s3: the layout 'object' has no unique fields; layout 'log' has"
# A writer looks for its collection's marker again after so many seconds: another process may have
# dropped the collection.
_MARKER_SECONDS = 10.0

# When this process last dropped a collection, by the endpoint and key of its marker.
_dropped: dict[tuple[str | None, str, str], float] = {}


class S3Backend(LogChanges):
    """Records in one bucket under one prefix; the default collection is the prefix itself."""

    name = "s3"
    default_collection = DEFAULT

    def __init__(self, config: S3Config) -> None:
        self.config = config
        keys = find_keys(config)
        self._pools: LoopBound[Requests] = LoopBound(
            pool_key(config, keys), lambda: Requests.open(config, keys)
        )
        self._support = LogSupport() if config.layout == "log" else S3Support()
        self._capabilities = LOG if config.layout == "log" else OBJECT
        self._checked: dict[str, float] = {}
        """When the marker of each collection was last seen."""
        self._prefixes = {DEFAULT: config.key_prefix}
        self._unique = {name: unique_of(fields) for name, fields in config.unique_fields(DEFAULT).items()}
        if any(self._unique.values()) and not self._capabilities.unique:
            raise UnsupportedError(_NO_UNIQUE, capability="unique")
        if config.changes and not self._capabilities.changes:
            raise no_changes(f"s3: layout {config.layout!r}")
        # Models are compared by content, and hashed by their text.
        self._layout_key = ("layout", config.layout, repr(config.cache), repr(config.log), config.key_prefix)

    @property
    def capabilities(self) -> Capabilities:
        """Return the capabilities; fewer once the probe showed that the server ignores conditions."""
        return self._capabilities

    def support(self, collection: str) -> S3Support:
        """Return the leaves and orders that are pushed down."""
        return self._support

    # Prefixes and markers

    def prefix_of(self, collection: str) -> str:
        """Return the prefix of a collection's keys; raises `UsageError` for an impossible name."""
        prefix = self._prefixes.get(collection)
        if prefix is None:
            prefix = self._prefixes[collection] = f"{self.config.key_prefix}{folder_name(collection)}/"
        return prefix

    async def _requests(self) -> Requests:
        return self._pools.current() or await self._pools.pool()

    async def _layout(self, collection: str, *, writes: bool = False) -> tuple[Layout, str]:
        """Return the layout and the prefix of a collection whose marker was checked."""
        requests = await self._requests()
        prefix = self.prefix_of(collection)
        checked = self._checked.get(collection)
        if (
            checked is None
            or checked <= _dropped.get(self._marker_id(prefix), 0.0)
            or (writes and time.monotonic() - checked > _MARKER_SECONDS)
        ):
            await self._check_marker(requests, collection, prefix, writes=writes)
        return self._layout_of(requests), prefix

    def _layout_of(self, requests: Requests) -> Layout:
        config = self.config

        def make() -> Layout:
            if config.layout == "log":
                return LogLayout(requests, self._probe(requests), config.log)
            cache = None
            if config.cache is not None:
                cache = EtagCache(config.cache, config.bucket, config.endpoint_url)
            return ObjectLayout(requests, self._probe(requests), cache)

        return _get_shared(requests, self._layout_key, make)

    def _probe(self, requests: Requests) -> ConditionalPutProbe:
        key = ("probe", self.config.key_prefix)
        return _get_shared(requests, key, lambda: ConditionalPutProbe(requests))

    def _marker_id(self, prefix: str) -> tuple[str | None, str, str]:
        return self.config.endpoint_url, self.config.bucket, prefix

    async def _check_marker(self, requests: Requests, collection: str, prefix: str, *, writes: bool) -> None:
        """Check the collection's marker; write it before the first write if there is none.

        A reader writes nothing; it looks for the marker at each read until there is one. Raises
        `ConfigError` if the collection has another layout.
        """
        start = time.monotonic()
        key = prefix + MARKER
        blob = await requests.get(key)
        if blob is None and writes:
            blob = await self._create_marker(requests, key)
        if blob is not None:
            self._check_format(blob.body, f"{self.config.bucket}/{key}")
            self._checked[collection] = start

    async def _create_marker(self, requests: Requests, key: str) -> Blob | None:
        """Write the marker and return it, or the one that another process wrote first."""
        body = self._marker(PLAIN_FORMAT)
        try:
            return Blob(body, await self._probe(requests).put(key, body, lambda found: True))
        except PreconditionError:
            return await requests.get(key)
        except AccessError:
            # These credentials may only read. The server will refuse the write itself.
            return None

    def _marker(self, format: int) -> bytes:
        return orjson.dumps({"isthmus": format, "layout": self.config.layout})

    async def _mark_declared(self, prefix: str) -> None:
        """Give a collection the format of one with declarations, which isthmus 0.1.0 refuses."""
        requests = await self._requests()
        key, body = prefix + MARKER, self._marker(DECLARED_FORMAT)
        blob = await requests.get(key)
        if blob is None or blob.body != body:
            await requests.put(key, body)

    def _check_format(self, body: bytes, key: str) -> None:
        try:
            marker = orjson.loads(body)
            format, layout = int(marker["isthmus"]), str(marker["layout"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"s3: {key} is not a marker that isthmus wrote") from None
        if format > FORMAT:
            raise ConfigError(f"s3: {key} has format {format}; this version of isthmus knows {FORMAT}")
        if layout != self.config.layout:
            raise ConfigError(f"s3: {key} has layout {layout!r}, but the config {self.config.layout!r}")

    # Lifecycle

    async def open(self, collection: str) -> None:
        """Connect, check access and the marker, and create the bucket if `create_bucket` is set."""
        requests = await self._requests()
        if self.config.create_bucket:
            await (await requests.boto()).create_bucket(self.config.signing_region)
        unique = self._unique.get(collection)
        if unique:
            log, prefix = await self._log(collection)
            await log.declare(prefix, collection, unique, lambda: self._mark_declared(prefix))
        else:
            await self._layout(collection)
        if self.config.changes:
            await self._open_changes(collection)

    async def close(self) -> None:
        """Release the pools."""
        await self._pools.close()

    async def ping(self) -> None:
        """Get the marker."""
        await (await self._requests()).get(self.config.key_prefix + MARKER)

    async def refresh(self, collection: str) -> None:
        """Do nothing: every write is visible at once."""

    def terminate(self) -> None:
        """Drop the connections of all loops without waiting."""
        self._pools.discard()

    async def collections(self) -> list[str]:
        """Return the collections that have a marker. Costs a listing, and a GET for each folder."""
        requests = await self._requests()
        boto = await requests.boto()
        folders = await requests.retry(lambda _: boto.folders(self.config.key_prefix))
        prefixes = {DEFAULT: self.config.key_prefix}
        for folder in folders:
            name = unescape(folder)
            # Whatever else lies there, such as `prefix//x` or `prefix/../x`, is not ours.
            if name and is_folder_of(name, folder):
                prefixes[name] = f"{self.config.key_prefix}{folder}/"
        return sorted(
            [name for name, prefix in prefixes.items() if await requests.get(prefix + MARKER) is not None]
        )

    async def drop(self, collection: str) -> None:
        """Delete the objects of a collection, its marker last; foreign objects stay.

        Can be interrupted and called again. Handles of this process create the collection again at
        their next write, others when they have not seen the marker for 10 seconds. With layout
        `log`, objects without data stay that open handles rely on: see `drop_log`. Costs a LIST and
        a bulk deletion for 1,000 objects.
        """
        layout, prefix = await self._layout(collection)
        requests = await self._requests()
        try:
            await layout.drop(prefix)
            for error in (await requests.delete_many([prefix + MARKER])).values():
                raise error
        finally:
            _dropped[self._marker_id(prefix)] = time.monotonic()

    def begin(self, options: TransactionOptions) -> AbstractAsyncContextManager[TransactionExecutor]:
        """Raise `UnsupportedError`."""
        raise UnsupportedError("S3 has no transactions", capability="transactions")

    def stats(self) -> PoolStats:
        """Return a snapshot of this loop's requests."""
        requests = self._pools.current()
        return PoolStats(max_size=self.config.pool.max_connections) if requests is None else requests.stats()

    async def native(self) -> Any:
        """Return this loop's aioboto3 client."""
        return await (await self._requests()).client()

    # Unique fields

    async def _log(self, collection: str) -> tuple[LogLayout, str]:
        """Return the layout and the prefix of a collection that is made if it is missing."""
        layout, prefix = await self._layout(collection, writes=True)
        if not isinstance(layout, LogLayout):
            raise UnsupportedError(_NO_UNIQUE, capability="unique")
        return layout, prefix

    def declare(self, collection: str, indexes: Declarations) -> bool:
        """Record a model's unique fields; there are no indexes. Return whether any is new."""
        before = self._unique.get(collection, frozenset())
        declared = before | unique_of((name,) for name in indexes.get("unique", ()))
        if declared:
            self._unique[collection] = declared
        return len(declared) > len(before)

    async def find_duplicates(self, collection: str, unique: Unique) -> list[Duplicate]:
        """Return values that several records have, each with some of their ids; 20 values at most."""
        log, prefix = await self._log(collection)
        return await log.find_duplicates(prefix, unique)

    async def make_unique(self, collection: str, unique: Unique) -> None:
        """Declare fields unique; raises `ConfigError` that names the duplicates."""
        log, prefix = await self._log(collection)
        await log.make_unique(prefix, collection, unique, lambda: self._mark_declared(prefix))

    async def end_unique(self, collection: str, unique: Unique) -> None:
        """End a declaration; a missing one is not an error."""
        log, prefix = await self._log(collection)
        await log.end_unique(prefix, unique)

    # Records

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none."""
        layout, prefix = await self._layout(collection)
        return await layout.read(prefix, ids)

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply mutations; see the layouts for the cost.

        Raises `UnsupportedError` for a conditional write to a server that ignores conditions.
        """
        layout, prefix = await self._layout(collection, writes=True)
        if collection in self._unique and isinstance(layout, LogLayout):
            layout.want_unique(prefix, self._unique[collection])
        try:
            return await layout.write(prefix, kind, mutations, atomic=atomic)
        except UnsupportedError:
            if not self._probe(await self._requests()).conditional_put:
                self._capabilities = replace(
                    self._capabilities, conditional_create=False, compare_and_set=False
                )
            raise

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return a page by id, or in any order."""
        layout, prefix = await self._layout(collection)
        return await layout.page(prefix, request)

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count the matching records of a predicate with EXACT leaves only."""
        layout, prefix = await self._layout(collection)
        if any(self._support.pushdown(leaf) is not Pushdown.EXACT for leaf in leaves(where)):
            raise UnsupportedError("S3 counts by ids only", capability="count")
        return CountResult(await layout.count(prefix, where))

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Raise `UnsupportedError`: `support` accepts no aggregate."""
        raise UnsupportedError("S3 computes no aggregates")

    async def remove(self, collection: str, where: Predicate) -> int:
        """Delete all records and return how many there were; raises `UnsupportedError` for a condition."""
        layout, prefix = await self._layout(collection, writes=True)
        if where != TRUE:
            raise UnsupportedError("S3 deletes by id, or all records", capability="delete_where")
        return await layout.clear(prefix)

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the requests that a page takes."""
        prefix = f"s3://{self.config.bucket}/{self.prefix_of(collection)}"
        pushed = [type(leaf).__name__ for leaf in leaves(request.where)]
        details: dict[str, Any] = {"layout": self.config.layout}
        if self.config.layout == "log":
            native = f"GET the new entries at {prefix}_log/; the other records are in memory"
            return NativePlan(native, details={**details, "evaluated in memory": pushed})
        ids = id_range(request.where)
        if ids.only is not None:
            native = f"GET each of {len(ids.only)} ids at {prefix}"
        else:
            native = f"LIST {prefix}" + (f" after {name_before(ids.low)!r}" if ids.low else "")
            native += (" in key order" if request.order is not None else "") + ", then GET each"
        return NativePlan(native, details={**details, "filtered by bytes": pushed})

    async def release(self, collection: str, after: After) -> None:
        """Do nothing: a page holds no resource at the store."""


def _get_shared(requests: Requests, key: Any, make: Callable[[], T]) -> T:
    shared: T | None = requests.shared.get(key)
    if shared is None:
        shared = requests.shared[key] = make()
    return shared
