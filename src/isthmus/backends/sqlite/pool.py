"""One loop's connections to one database: a writer and some readers, handed out in order of arrival."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from isthmus._core.closing import CLOSINGS
from isthmus._core.executor import PoolStats
from isthmus._core.pruner import Pruner
from isthmus.backends.sqlite import fork
from isthmus.backends.sqlite.config import SQLiteConfig
from isthmus.backends.sqlite.connection_thread import ConnectionThread
from isthmus.backends.sqlite.errors import translate
from isthmus.backends.sqlite.functions import Functions
from isthmus.backends.sqlite.native.functions import CellFunctions
from isthmus.backends.sqlite.read_snapshot import ReadSnapshot, begin_reading
from isthmus.backends.sqlite.schema import Table, check_format
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.errors import ClosedError, ConfigError, PoolTimeoutError

T = TypeVar("T")


@dataclass(slots=True)
class _Holder:
    """The task that holds a connection, and since when."""

    name: str
    since: float


class ThreadPool:
    """Connections of one kind, each on its thread, handed out first come first served.

    `timeout` is in seconds; None waits without limit.
    """

    def __init__(
        self, opener: Callable[[], SQLiteSession], kind: str, size: int, timeout: float | None
    ) -> None:
        self._opener = opener
        self._kind = kind
        self._size = size
        self._timeout = timeout
        self._all: list[ConnectionThread] = []
        self._idle: list[ConnectionThread] = []
        self._held: dict[ConnectionThread, _Holder] = {}
        self.reclaimable: dict[str, Callable[[], None]] = {}
        """Calls that give back a connection which is held but not needed, by token, the oldest first."""
        self._waiting: deque[asyncio.Future[ConnectionThread]] = deque()
        self._closed = False
        self._drained: asyncio.Future[None] | None = None
        """Of a pool that is closed while connections are held: done when the last one is released."""
        self.acquired = self.timeouts = 0
        self.wait_seconds = self.use_seconds = 0.0

    async def acquire(self) -> ConnectionThread:
        """Return a connection for exclusive use, until `release`.

        Raises `PoolTimeoutError`, which names the holders, and `ClosedError` after `close`.
        """
        if self._closed:
            raise ClosedError("the database is closed")
        if not self._waiting:
            if self._idle:
                return self._mark_held(self._idle.pop())
            if len(self._all) < self._size:
                thread = ConnectionThread(self._opener, f"isthmus-sqlite-{self._kind}-{len(self._all)}")
                self._all.append(thread)
                return self._mark_held(thread)
        return await self._wait()

    @property
    def is_stuck(self) -> bool:
        """Whether somebody waits for a connection."""
        return bool(self._waiting)

    async def _wait(self) -> ConnectionThread:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[ConnectionThread] = loop.create_future()
        self._waiting.append(waiter)
        if self.reclaimable:
            self.reclaimable.pop(next(iter(self.reclaimable)))()
        start = loop.time()
        timer = None if self._timeout is None else loop.call_later(self._timeout, self._expire, waiter)
        try:
            thread = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())
            else:
                self._waiting = deque(other for other in self._waiting if other is not waiter)
            raise
        finally:
            self.wait_seconds += loop.time() - start
            if timer is not None:
                timer.cancel()
        return self._mark_held(thread)

    def _expire(self, waiter: asyncio.Future[ConnectionThread]) -> None:
        if waiter.done():
            return
        self._waiting.remove(waiter)
        self.timeouts += 1
        now = time.monotonic()
        holders = ", ".join(f"{h.name} for {now - h.since:.1f} s" for h in self._held.values())
        waiter.set_exception(
            PoolTimeoutError(
                f"no {self._kind} became free within {self._timeout} s; held by {holders or 'nobody'}"
            )
        )

    def _mark_held(self, thread: ConnectionThread) -> ConnectionThread:
        task = asyncio.current_task()
        self._held[thread] = _Holder("a callback" if task is None else task.get_name(), time.monotonic())
        self.acquired += 1
        return thread

    def release(self, thread: ConnectionThread) -> None:
        """Return a connection to the pool; the first waiter gets it."""
        holder = self._held.pop(thread, None)
        if holder is not None:
            self.use_seconds += time.monotonic() - holder.since
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                # The waiter holds it from now on, though its task runs later.
                self._held[thread] = _Holder("a task that is about to run", time.monotonic())
                waiter.set_result(thread)
                return
        self._idle.append(thread)
        if self._drained is not None and not (self._held or self._drained.done()):
            self._drained.set_result(None)

    async def run(self, work: Callable[[SQLiteSession], T]) -> T:
        """Run one job on a free connection and return its result.

        When the caller is cancelled, the connection stays held until the job has ended.
        """
        thread = await self.acquire()
        return await thread.run(work, done=lambda: self.release(thread))

    def stats(self) -> PoolStats:
        """Return a snapshot of the counters."""
        return PoolStats(
            size=len(self._all),
            idle=len(self._idle),
            in_use=len(self._held),
            waiting=len(self._waiting),
            max_size=self._size,
            acquired=self.acquired,
            timeouts=self.timeouts,
            opened=len(self._all),
            wait_seconds=self.wait_seconds,
            use_seconds=self.use_seconds,
        )

    async def close(self) -> None:
        """Refuse the waiters, wait for jobs and transactions to end, and close the connections."""
        self._closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(ClosedError("the database is closed"))
        self._waiting.clear()
        for release in list(self.reclaimable.values()):
            release()
        self.reclaimable.clear()
        if self._held:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        for thread in self._all:
            await thread.close()

    def discard(self) -> None:
        """Close the connections without a loop."""
        self._closed = True
        if self._drained is not None and not self._drained.done():
            with contextlib.suppress(RuntimeError):  # its loop is closed
                self._drained.set_result(None)
        for thread in self._all:
            thread.discard()


class MemoryDatabase:
    """A database without a file, shared by the loops of one handle; it exists until `close`."""

    def __init__(self) -> None:
        # The memdb VFS shares a database by a name that starts with a slash.
        self.uri = f"file:/isthmus-{uuid.uuid4().hex}?vfs=memdb"
        self._keeper: sqlite3.Connection | None = None

    def keep(self) -> None:
        """Hold a connection, without which the database would vanish with its last one."""
        if self._keeper is None:
            self._keeper = sqlite3.connect(self.uri, uri=True, check_same_thread=False)
            self._keeper.execute("PRAGMA schema_version").fetchone()

    def close(self) -> None:
        """Let the database vanish with its last connection."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()


class Pool:
    """The connections of one loop to one database, and the tables that its handles have opened."""

    def __init__(self, config: SQLiteConfig, memory: MemoryDatabase | None) -> None:
        self._config = config
        self._memory = memory
        self._is_native = config.layout == "native"
        self.label = config.path
        self.tables: dict[str, Table] = {}
        self.creating = asyncio.Lock()
        self.pruners: dict[float, Pruner] = {}
        """Of the collections that keep their changes, by how long the handles' configs keep them."""
        self._snapshots: dict[str, ReadSnapshot] = {}
        self._closed = False
        timeout = config.pool.timeout
        self.writer = ThreadPool(self._open_writer, "writer", 1, timeout)
        # A database in memory has one connection: readers would be locked out while it writes.
        self.readers = (
            self.writer
            if memory is not None
            else ThreadPool(self._open_reader, "reader", config.pool.readers, timeout)
        )

    @classmethod
    async def open(cls, config: SQLiteConfig, memory: MemoryDatabase | None) -> Pool:
        """Return a pool whose writer is connected, so that path, permissions and format are right."""
        pool = cls(config, memory)
        try:
            await pool.writer.run(lambda session: session.execute("PRAGMA schema_version").fetchone())
        except BaseException:
            await pool.close()
            raise
        return pool

    def _connect(self) -> sqlite3.Connection:
        uri = self._memory.uri if self._memory is not None else self._config.path
        if self._is_native:
            if not Path(uri).is_file():
                raise ConfigError(f"{uri}: there is no such file, and layout='native' never makes one")
            uri = f"file:{quote(str(Path(uri).resolve()))}?mode=rw"
        return sqlite3.connect(
            uri,
            uri=self._memory is not None or self._is_native,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )

    def _open_session(self, prepare: Callable[[SQLiteSession], None]) -> SQLiteSession:
        fork.check(self.label)
        connection = None
        try:
            connection = self._connect()
            functions = CellFunctions if self._is_native else Functions
            session = SQLiteSession(connection, self.label, self._config.busy_timeout, functions)
            # Each reads the file, which is locked while another connection commits, unless it has a WAL.
            settings = f"PRAGMA cache_size = -16000; PRAGMA synchronous = {self._config.synchronous}"
            session.retry_busy(lambda: session.connection.executescript(settings))
            session.retry_busy(lambda: prepare(session))
        except Exception as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise translate(error, self.label) from error
            raise
        return session

    def _open_writer(self) -> SQLiteSession:
        def prepare(session: SQLiteSession) -> None:
            check_format(session.connection, self.label)
            if self._is_native:
                # A setting of the connection, as all of a native layout: the file keeps its journal mode.
                session.execute("PRAGMA foreign_keys = ON")
            elif self._memory is None:
                (mode,) = session.retry_busy(lambda: session.execute("PRAGMA journal_mode = WAL").fetchone())
                if mode != "wal":
                    raise ConfigError(
                        f"{self.label}: no shared memory for the WAL here (journal mode {mode});"
                        " use a local disk"
                    )
                # A large batch must not leave a large WAL file behind.
                session.execute("PRAGMA journal_size_limit = 67108864")

        return self._open_session(prepare)

    def _open_reader(self) -> SQLiteSession:
        def prepare(session: SQLiteSession) -> None:
            session.execute("PRAGMA query_only = ON")

        return self._open_session(prepare)

    async def snapshot(self, owner: object = None) -> ReadSnapshot:
        """Return a connection that sees the database as it is now, until its `end`.

        `owner` is the backend of a stream, for `end_streams`.
        """
        if self._memory is None:
            thread = await self.readers.acquire()
            snapshot = ReadSnapshot(self, thread, owner)
        else:
            thread = ConnectionThread(await self.writer.run(self._copy), "isthmus-sqlite-snapshot")
            snapshot = ReadSnapshot(self, thread, owner, private=True)
        self._snapshots[snapshot.token] = snapshot
        try:
            await thread.run(begin_reading)
        except BaseException:
            await snapshot.end()
            raise
        return snapshot

    def _copy(self, session: SQLiteSession) -> Callable[[], SQLiteSession]:
        """Copy a database in memory, whose only connection cannot be held for the life of a stream."""
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        session.connection.backup(copy)

        def open_copy() -> SQLiteSession:
            session = SQLiteSession(copy, self.label, 0.0)
            session.reopens = False
            return session

        return open_copy

    def find_snapshot(self, token: str) -> ReadSnapshot | None:
        """Return the snapshot of a stream, None if it has ended."""
        return self._snapshots.get(token)

    def forget(self, snapshot: ReadSnapshot) -> None:
        """Remove a snapshot that has ended."""
        self._snapshots.pop(snapshot.token, None)

    def end_streams(self, owner: object) -> None:
        """End the snapshots of one backend's streams in the background; others may share the pool."""
        for snapshot in self._snapshots.values():
            if snapshot.owner is owner:
                CLOSINGS.finish(snapshot.end(), "isthmus-stream-end")

    async def release(self, token: str) -> None:
        """End a stream's snapshot, if it has not ended."""
        snapshot = self._snapshots.get(token)
        if snapshot is not None:
            await snapshot.end()

    def stats(self) -> PoolStats:
        """Return a snapshot of the counters of readers and writer together."""
        writer = self.writer.stats()
        if self.readers is self.writer:
            return writer
        readers = self.readers.stats()
        return PoolStats(
            size=writer.size + readers.size,
            idle=writer.idle + readers.idle,
            in_use=writer.in_use + readers.in_use,
            waiting=writer.waiting + readers.waiting,
            max_size=writer.max_size + readers.max_size,
            acquired=writer.acquired + readers.acquired,
            timeouts=writer.timeouts + readers.timeouts,
            opened=writer.opened + readers.opened,
            wait_seconds=writer.wait_seconds + readers.wait_seconds,
            use_seconds=writer.use_seconds + readers.use_seconds,
        )

    async def close(self) -> None:
        """Wait for running jobs and close all connections."""
        self._closed = True
        for pruner in self.pruners.values():
            await pruner.close()
        for snapshot in list(self._snapshots.values()):
            await snapshot.end()
        if self.readers is not self.writer:
            await self.readers.close()
        # The writer last: the last connection to close moves the WAL into the file.
        await self.writer.close()

    def discard(self) -> None:
        """Close all connections without a loop."""
        self._closed = True
        for snapshot in list(self._snapshots.values()):
            snapshot.thread.discard()
        if self.readers is not self.writer:
            self.readers.discard()
        self.writer.discard()

    def is_healthy(self) -> bool:
        """Return whether the pool is open; a failed connection is opened again by its thread."""
        return not self._closed
