"""The S3 backend: places, markers and pools; the rest is a layout's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import orjson

from isthmus._core.capabilities import Capabilities
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
from isthmus._path import Path
from isthmus._query.ast import FALSE, TRUE, Leaf, Measure, Predicate, SortKey, leaves
from isthmus._query.normalize import normalize
from isthmus._query.split import Pushdown
from isthmus._record import Record
from isthmus._value import replace
from isthmus.backends.s3.config import S3Config
from isthmus.backends.s3.errors import PreconditionError
from isthmus.backends.s3.id_filter import id_range
from isthmus.backends.s3.keys import MARKER, folder_name, name_before, unescape
from isthmus.backends.s3.layout import LOG, OBJECT, Layout
from isthmus.backends.s3.log.filter import is_exact
from isthmus.backends.s3.log.layout import LogLayout
from isthmus.backends.s3.object.byte_filter import pushdown
from isthmus.backends.s3.object.etag_cache import EtagCache
from isthmus.backends.s3.object.layout import ObjectLayout
from isthmus.backends.s3.transport.conditional_put_probe import ConditionalPutProbe
from isthmus.backends.s3.transport.protocol import Blob
from isthmus.backends.s3.transport.requests import Requests
from isthmus.backends.s3.transport.session import find_keys, pool_key
from isthmus.errors import AccessError, ConfigError, UnsupportedError

T = TypeVar("T")

DEFAULT = "records"
FORMAT = 1


class S3Support:
    """What is pushed down: the order by id, leaves about the id, a test of bytes for leaves about text."""

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return EXACT where the id decides, SUPERSET where the bytes tell something."""
        return pushdown(leaf)

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether this is the order by id, which keys have."""
        return not order

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[Path, ...]) -> bool:
        """Return False: S3 computes nothing."""
        return False


class LogSupport(S3Support):
    """What layout `log` judges in its view: all leaves but those on whole lists."""

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return EXACT where the values found decide."""
        return Pushdown.EXACT if is_exact(leaf) else Pushdown.NONE


class S3Backend:
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
        self._ready: set[str] = set()
        """Collections whose marker was checked."""
        self._prefixes = {DEFAULT: config.key_prefix}
        # Models are compared by content, and hashed by their text.
        self._layout_key = ("layout", config.layout, repr(config.cache), repr(config.log), config.key_prefix)

    @property
    def capabilities(self) -> Capabilities:
        """Return what can be done; less once a race showed that the server ignores conditions."""
        return self._capabilities

    def support(self, collection: str) -> S3Support:
        """Return what is pushed down."""
        return self._support

    # Where things are

    def prefix(self, collection: str) -> str:
        """Return the prefix of a collection's keys."""
        prefix = self._prefixes.get(collection)
        if prefix is None:
            prefix = self._prefixes[collection] = f"{self.config.key_prefix}{folder_name(collection)}/"
        return prefix

    async def _requests(self) -> Requests:
        return self._pools.current() or await self._pools.pool()

    async def _layout(self, collection: str, *, writes: bool = False) -> tuple[Layout, str]:
        requests = await self._requests()
        prefix = self.prefix(collection)
        layout = self._layout_of(requests)
        if collection not in self._ready:
            await self._prepare(requests, collection, prefix, writes=writes)
        return layout, prefix

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
        return _get_shared(
            requests, ("conditions", self.config.key_prefix), lambda: ConditionalPutProbe(requests)
        )

    async def _prepare(self, requests: Requests, collection: str, prefix: str, *, writes: bool) -> None:
        """Check the collection's marker; make it before the first write if there is none.

        Who only reads writes nothing, and looks for the marker again each time until it is there.
        """
        key = prefix + MARKER
        found = await requests.get(key)
        if found is None and writes:
            found = await self._create_marker(requests, key)
        if found is not None:
            self._check(found.body, f"{self.config.bucket}/{key}")
            self._ready.add(collection)

    async def _create_marker(self, requests: Requests, key: str) -> Blob | None:
        """Make the marker and return it, or the one that another process made first."""
        body = orjson.dumps({"isthmus": FORMAT, "layout": self.config.layout})
        try:
            if self._probe(requests).conditional_put:
                return Blob(body, await requests.put_if(key, body, lambda found: True))
            return Blob(body, await requests.put(key, body))
        except PreconditionError:
            return await requests.get(key)
        except AccessError:
            # These credentials may only read. The write will be refused by the server itself.
            return None

    def _check(self, body: bytes, key: str) -> None:
        try:
            marker = orjson.loads(body)
            format, layout = int(marker["isthmus"]), str(marker["layout"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"s3: {key} is not a marker that isthmus wrote") from None
        if format > FORMAT:
            raise ConfigError(f"s3: {key} has format {format}; this version of isthmus knows {FORMAT}")
        if layout != self.config.layout:
            raise ConfigError(f"s3: {key} says layout {layout!r}, the config says {self.config.layout!r}")

    # Life

    async def open(self, collection: str) -> None:
        """Connect, check access and the marker, and make the bucket if the config says so."""
        requests = await self._requests()
        if self.config.create_bucket:
            await (await requests.boto()).create_bucket(await requests.sessions.region())
        await self._layout(collection)

    async def close(self) -> None:
        """Give back the pools."""
        await self._pools.close()

    async def ping(self) -> None:
        """Get the marker."""
        await (await self._requests()).get(self.config.key_prefix + MARKER)

    async def refresh(self, collection: str) -> None:
        """Do nothing: S3 shows each write at once."""

    async def collections(self) -> list[str]:
        """Return the collections that have a marker."""
        requests = await self._requests()
        boto = await requests.boto()
        folders = await requests.retry(lambda _: boto.folders(self.config.key_prefix))
        names = [(DEFAULT, "")]
        names += [(name, f"{folder}/") for folder in folders if (name := unescape(folder)) is not None]
        return sorted(
            [
                name
                for name, folder in names
                if await requests.get(self.config.key_prefix + folder + MARKER) is not None
            ]
        )

    def begin(self, options: TransactionOptions) -> AbstractAsyncContextManager[TransactionExecutor]:
        """Refuse."""
        raise UnsupportedError("S3 has no transactions", capability="transactions")

    def stats(self) -> PoolStats:
        """Return a snapshot of this loop's requests."""
        requests = self._pools.current()
        return PoolStats(max_size=self.config.pool.max_connections) if requests is None else requests.stats()

    async def native(self) -> Any:
        """Return this loop's aioboto3 client."""
        return await (await self._requests()).client()

    # Records

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids."""
        layout, prefix = await self._layout(collection)
        return await layout.read(prefix, ids)

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Apply changes."""
        layout, prefix = await self._layout(collection, writes=True)
        try:
            return await layout.write(prefix, kind, mutations, atomic=atomic)
        except UnsupportedError:
            self._lower(await self._requests())
            raise

    def _lower(self, requests: Requests) -> None:
        if not self._probe(requests).conditional_put:
            self._capabilities = replace(self._capabilities, conditional_create=False, compare_and_set=False)

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return a page by id, or in any order."""
        layout, prefix = await self._layout(collection)
        where = normalize(request.where)
        if where == FALSE:
            return Page([], None)
        return await layout.page(prefix, replace(request, where=where))

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Count what is exact: by ids alone, or in the view of a log."""
        layout, prefix = await self._layout(collection)
        where = normalize(where)
        if any(self._support.pushdown(leaf) is not Pushdown.EXACT for leaf in leaves(where)):
            raise UnsupportedError("S3 counts by ids alone", capability="count")
        return CountResult(0 if where == FALSE else await layout.count(prefix, where))

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Refuse: `support` accepts none."""
        raise UnsupportedError("S3 computes no aggregates")

    async def remove(self, collection: str, where: Predicate) -> int:
        """Clear the collection."""
        layout, prefix = await self._layout(collection, writes=True)
        return await layout.clear(prefix) if _all(where) else 0

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return the requests that a page takes."""
        prefix = f"s3://{self.config.bucket}/{self.prefix(collection)}"
        where = normalize(request.where)
        asked = [type(leaf).__name__ for leaf in leaves(where)]
        details: dict[str, Any] = {"layout": self.config.layout}
        if self.config.layout == "log":
            native = f"GET the entries at {prefix}_log/ that came since the last look; the view is here"
            return NativePlan(native, details={**details, "judged in the view": asked})
        span = id_range(where)
        if span.only is not None:
            native = f"GET each of {len(span.only)} ids at {prefix}"
        else:
            native = f"LIST {prefix}" + (f" after {name_before(span.low)!r}" if span.low else "")
            native += (" in key order" if request.order is not None else "") + ", then GET each"
        return NativePlan(native, details={**details, "bytes tested for": asked})

    async def release(self, collection: str, after: After) -> None:
        """Do nothing: pages hold nothing at the store."""


def _all(where: Predicate) -> bool:
    """Return whether the predicate holds for all records, False if for none; refuses the others."""
    where = normalize(where)
    if where == TRUE:
        return True
    if where == FALSE:
        return False
    raise UnsupportedError("S3 judges no predicate", capability="delete_where")


def _get_shared(requests: Requests, key: Any, make: Callable[[], T]) -> T:
    found: T | None = requests.shared.get(key)
    if found is None:
        found = requests.shared[key] = make()
    return found
