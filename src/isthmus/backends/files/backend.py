"""The files backend: a catalog of files, scans of their rows in threads, pages and counts."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from isthmus._core.capabilities import Capabilities
from isthmus._core.executor import (
    MORE,
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
from isthmus._core.offload import run_in_thread
from isthmus._query.ast import Predicate
from isthmus._query.codec import text
from isthmus._record import Record
from isthmus.backends.files.bucket import BucketStorage
from isthmus.backends.files.catalog import MAX_FILES, Catalog, File, Storage
from isthmus.backends.files.config import FilesConfig
from isthmus.backends.files.formats.dialect import Dialect
from isthmus.backends.files.ids import check_keys
from isthmus.backends.files.local import LocalStorage
from isthmus.backends.files.plan import describe, summarize
from isthmus.backends.files.reader import FileReader
from isthmus.backends.files.records import RecordMaker
from isthmus.backends.files.scan import Invalid, Pager, Scanner
from isthmus.backends.files.split import split_rows, take_hint
from isthmus.backends.files.spool import Spool
from isthmus.backends.files.support import CAPABILITIES, FilesSupport
from isthmus.errors import ConfigError, UnavailableError, UnsupportedError, UsageError

R = TypeVar("R")
_PAUSED = 8
_CATALOGS = 8


class FilesBackend:
    """One read-only collection; every call but one that continues another lists the files again."""

    name = "files"

    def __init__(self, config: FilesConfig) -> None:
        self.config = config
        self.default_collection = config.table
        self._support = FilesSupport()
        self._storage: Storage = (
            BucketStorage(config) if config.location.startswith("s3://") else LocalStorage(config.location)
        )
        self._reader = FileReader(self._storage, Dialect.of(config), config.format)
        self._id = None if config.id is None else tuple(config.id.split("."))
        self._numbered = self._id is None and not config.records
        self._invalid = Invalid(skips=config.on_invalid == "skip")
        self._lock = threading.Lock()
        self._scanners: OrderedDict[str, Scanner] = OrderedDict()
        """The scanners of the last catalogs by digest: a stream continues on its own."""
        self._ends: OrderedDict[str, str] = OrderedDict()
        """The digest of the catalog on which a page ended, by its last id."""
        self._paused: OrderedDict[Any, Pager] = OrderedDict()
        self._spools: dict[str, Spool] = {}
        self._finding = threading.Lock()
        self._ignored = 0

    @property
    def capabilities(self) -> Capabilities:
        """Return the capabilities: reading."""
        return CAPABILITIES

    def support(self, collection: str) -> FilesSupport:
        """Return what is evaluated while the files are read."""
        return self._support

    # Listing

    def _check_name(self, collection: str) -> None:
        if collection != self.default_collection:
            raise UsageError(
                f"files: there is one collection, {self.default_collection!r};"
                f" open another folder for {collection!r}"
            )

    def _list(self) -> Catalog:
        """List the files; raises `ConfigError` for a missing folder and for names that cannot be ids."""
        files: list[File] = []
        unknown: list[File] = []
        for file in self._storage.list_files():
            (files if self._reader.format_of(file) is not None else unknown).append(file)
        self._ignored = len(unknown)
        if unknown and not files:
            raise ConfigError(
                f"files: the suffix of {unknown[0].key!r} tells no format; set format= to one of json, jsonl,"
                " csv, tsv, parquet, arrow"
            )
        catalog = Catalog(files)
        if self._numbered:
            check_keys([file.key for file in catalog.files])
        return catalog

    def _scanner(self, digest: str | None = None) -> Scanner:
        """Return a scanner of the files as they are now, or of an earlier catalog."""
        if digest is not None:
            with self._lock:
                scanner = self._scanners.get(digest)
            if scanner is not None:
                return scanner
        catalog = self._list()
        if digest is not None and catalog.digest != digest:
            raise UnavailableError(
                "files: files changed while they were read page by page; start the call again",
                transient=False,
            )
        with self._lock:
            scanner = self._scanners.get(catalog.digest)
        if scanner is None:
            with self._finding:  # one thread finds the types for all that wait
                kinds = self._reader.find_kinds(catalog)
            scanner = Scanner(
                self._reader,
                catalog,
                kinds,
                self._maker,
                self._invalid,
                numbered=self._numbered,
                id_column=None if self._id is None else self._id[0],
            )
            limit = max(1, min(_CATALOGS, MAX_FILES // max(len(catalog.files), 1)))
            self._keep(self._scanners, catalog.digest, scanner, limit)
        return scanner

    def _maker(self, file: File) -> RecordMaker:
        return RecordMaker(file, self._id, records=self.config.records)

    def _keep(self, kept: OrderedDict[Any, Any], key: Any, value: Any, limit: int) -> None:
        with self._lock:
            kept[key] = value
            kept.move_to_end(key)
            while len(kept) > limit:
                kept.popitem(last=False)

    def _spool(self, scanner: Scanner) -> Spool:
        """Return the records by id; made at the first call that needs them."""
        digest = scanner.catalog.digest
        with self._finding:
            spool = self._spools.get(digest)
            if spool is None:
                for old in list(self._spools):
                    self._spools.pop(old).close()
                spool = self._spools[digest] = Spool(scanner.catalog, scanner.records_with_places())
            return spool

    # Reading

    async def _run(self, collection: str, work: Callable[[], R]) -> R:
        self._check_name(collection)
        return await run_in_thread(self._storage.bind(work))

    async def read(
        self, collection: str, ids: Sequence[str], *, for_update: bool = False
    ) -> list[Record | None]:
        """Return the records of these ids in order, None where there is none."""

        def find() -> list[Record | None]:
            scanner = self._scanner()
            source = scanner if self._numbered else self._spool(scanner)
            found = source.read(list(dict.fromkeys(ids)))
            return [found.get(id) for id in ids]

        return await self._run(collection, find)

    async def fetch(self, collection: str, request: PageRequest) -> Page:
        """Return one page, by id or in the order of the files."""
        return await self._run(collection, functools.partial(self._page, request))

    def _page(self, request: PageRequest) -> Page:
        after, digest = self._position(request)
        scanner = self._scanner(digest)
        digest = scanner.catalog.digest
        ordered = request.order is not None
        # As text: a condition with True is equal to one with 1.
        kind = (digest, repr(request.where), request.select, ordered)
        key = (*kind, after)
        with self._lock:
            pager = self._paused.pop(key, None) if after is not None else None
        if pager is None:
            skipped = 0
            if not ordered and not self._numbered and after is not None:
                skipped, after = int(after), None
            if ordered and not self._numbered:
                pager = Pager(self._spool(scanner).records(request.where, after))
            else:
                pager = Pager(scanner.records(request.where, after, request.select))
            pager.take(skipped)
        if request.offset:
            pager.take(request.offset)
        records, more = pager.take(request.size)
        if not more or not records:
            return Page(records, None)
        end = self._end(request, records)
        self._keep(self._paused, (*kind, end), pager, _PAUSED)
        if not ordered:
            return Page(records, After((end, digest)))
        self._keep(self._ends, records[-1].id, digest, 1_000)
        return Page(records, MORE)

    def _position(self, request: PageRequest) -> tuple[str | None, str | None]:
        """Return the id after which a page begins, and the digest of the catalog that it belongs to."""
        if request.after is None or request.after.position is None:
            return None, None
        position = request.after.position
        if request.order is None and len(position) == 2:
            return str(position[0]), str(position[1])
        with self._lock:
            return str(position[-1]), self._ends.get(str(position[-1]))

    def _end(self, request: PageRequest, records: Sequence[Record]) -> str:
        """Return where a page ended: its last id, or how many records came if ids are not in order."""
        if request.order is not None or self._numbered:
            return records[-1].id or ""
        start = None if request.after is None else request.after.position
        return str((0 if start is None else int(start[0])) + len(records))

    async def count(self, collection: str, where: Predicate) -> CountResult:
        """Return the number of matching records."""
        return CountResult(await self._run(collection, lambda: self._scanner().count(where)))

    async def aggregate(self, collection: str, request: AggregateRequest) -> AggregateResult:
        """Return the states of the groups of matching records."""
        groups = await self._run(
            collection, lambda: self._scanner().aggregate(request.where, request.measures, request.by)
        )
        return AggregateResult(groups)

    async def split(self, collection: str, count: int) -> list[tuple[str, Any]] | None:
        """Return ids at which parts of the collection end; None if ids are not the numbers of rows."""
        if not self._numbered:
            return None

        return await self._run(
            collection, lambda: list[tuple[str, Any]](split_rows(self._reader, self._scanner(), count))
        )

    async def resume(self, collection: str, hint: Any) -> None:
        """Take over what `split` found in another process; raises `UnavailableError` for other files."""

        def take() -> None:
            catalog = self._list()
            take_hint(self._reader, catalog.files, catalog.digest, hint)

        await self._run(collection, take)

    async def explain(self, collection: str, request: PageRequest) -> NativePlan:
        """Return which files are read, and what was found about them."""

        def plan() -> NativePlan:
            scanner = self._scanner()
            refused = self._invalid.messages
            own = not self._numbered
            details = describe(self._reader, scanner, refused, self._ignored, by_own_ids=own)
            native = summarize(self._storage.name, text(request.where), details)
            return NativePlan(native, details=details)

        return await self._run(collection, plan)

    async def release(self, collection: str, after: After) -> None:
        """Do nothing: a page holds no resource that a token names."""

    # Life

    async def open(self, collection: str) -> None:
        """List the files; raises `ConfigError` if there is no such folder or file."""
        await self._run(collection, self._list)

    async def ping(self) -> None:
        """List the files."""
        await run_in_thread(self._storage.bind(self._storage.list_files))

    async def refresh(self, collection: str) -> None:
        """Do nothing: each call lists the files again."""

    async def close(self) -> None:
        """Close the files that pages were reading, and remove the temporary file."""

        def end() -> None:
            with self._lock:
                self._paused.clear()
                self._scanners.clear()
                self._ends.clear()
            with self._finding:
                for digest in list(self._spools):
                    self._spools.pop(digest).close()

        await asyncio.to_thread(end)
        await self._storage.close()

    async def collections(self) -> list[str]:
        """Return the one name."""
        return [self.default_collection]

    def stats(self) -> PoolStats:
        """Return zeros: there is no pool."""
        return PoolStats()

    async def native(self) -> Any:
        """Raise `UnsupportedError`: files have no client."""
        raise UnsupportedError("files have no native client", capability="native")

    # Writes, which the guard refuses before they come here

    async def write(
        self, collection: str, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
    ) -> list[ItemResult]:
        """Raise `UnsupportedError`."""
        raise UnsupportedError("files are read-only", capability="writes")

    async def remove(self, collection: str, where: Predicate) -> int:
        """Raise `UnsupportedError`."""
        raise UnsupportedError("files are read-only", capability="writes")

    def begin(self, options: TransactionOptions) -> AbstractAsyncContextManager[TransactionExecutor]:
        """Raise `UnsupportedError`."""
        raise UnsupportedError("files have no transactions", capability="transactions")
