"""Changes of a collection as an endless stream: `db.changes()` (meaning §10)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, Self, TypeVar

from isthmus._arguments import check_count, check_seconds, shorten
from isthmus._change_position import decode_position, encode_position
from isthmus._core.changes import ChangePage, Position, StoredChange, no_changes, supporting_changes
from isthmus._core.op import ReadChanges
from isthmus._query.ast import RANKED, TRUE, Predicate, leaves
from isthmus._query.query import Query, as_predicate
from isthmus._record import Record
from isthmus._session import Session, SessionBound
from isthmus._value import Value, replace
from isthmus.errors import InvalidRecordError, QueryError, UnsupportedError, UsageError

T = TypeVar("T")

PAGE = 1_000
"""Changes that are read at once; so many are in memory."""


class Change(Value, Generic[T]):
    """One change of a record."""

    id: str
    record: T | None
    """The record as it was when the change was read; None if it is gone, or does not match `where`."""
    version: str | None
    """The version of the record as it was read; None if it is gone."""
    order: int | None
    """Greater for each later write of this id, re-creation after a delete included.

    None for a record of a native table that was never changed since it has triggers.
    """
    position: str
    """Where to go on after this change: `db.changes(since=change.position)`, after a restart too."""


class ChangeStream(Generic[T]):
    """The changes of a collection, without an end.

    Iterate it with `async for`, which waits for the next change, or call `read()`. It holds at most a
    page of changes, reads the next page when it is asked for a change and has none, and holds
    nothing at the store. After an error, or the cancellation of the call that waited, the next call
    goes on where the stream was.
    """

    def __init__(
        self,
        session: Session,
        collection: str,
        where: Predicate,
        since: str,
        poll: float,
        convert: Callable[[Record], T],
        on_invalid: Callable[[InvalidRecordError], object] | None = None,
    ) -> None:
        self._session = session
        self._collection = collection
        self._where = where
        self._poll = poll
        self._convert = convert
        self._on_invalid = on_invalid
        self._changes: deque[tuple[Position, StoredChange]] = deque()
        self._caught_up = False
        self._held_by: str | None = None
        self._idle = False
        """Whether to wait before the next page."""
        self._from_start = since == "start"
        self._next: Position | None = None
        """Where the next page begins; None before "now" is known."""
        if since not in ("now", "start"):
            self._next = decode_position(since, session.backend_name, collection)
        self._given = self._next
        self._seen = None if self._next is None else self._next.seen
        """What the store must still have: a position from before everything was read may be older."""
        self._reading = False
        self._closed = False
        self._read_at = self._complete_at = time.monotonic()
        """When the last page was read, and the last one before it that had all changes."""

    @property
    def position(self) -> str | None:
        """Where to go on after the last change that was given; None before the stream has begun.

        It moves past changes that were read and left out, so it may be kept when nothing comes.
        """
        position = self._given if self._changes else self._next
        return None if position is None else encode_position(self._session.backend_name, position)

    @property
    def caught_up(self) -> bool:
        """Whether all changes of the last page were given, and it had all but those that are held back.

        `held_by` tells whether there are such.
        """
        return self._caught_up and not self._changes

    @property
    def lag(self) -> float:
        """How old a change that was not given can be, in seconds, by what this stream has read.

        At most about `poll` while it keeps up, is asked for changes, and nothing holds them back.
        """
        complete = self.caught_up and self._held_by is None
        return time.monotonic() - (self._read_at if complete else self._complete_at)

    @property
    def held_by(self) -> str | None:
        """Whose transaction keeps changes that were committed from being read; None if none was seen.

        On PostgreSQL any transaction that writes may, in any database of the server: the text names its
        process, database and user. As the last page that was read found it.
        """
        return self._held_by

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[T]:
        with self._only_reader():
            while True:
                while not self._changes:
                    if self._closed:
                        raise StopAsyncIteration
                    await self._load(wait=True)
                change = self._take()
                if change is not None:
                    return change

    async def read(self, limit: int | None = None, *, wait: bool = True) -> list[Change[T]]:
        """Return the next changes: 1 to `limit` or 1,000, and none only once the stream was closed.

        With `wait=False`, an empty list means that there is none now: for jobs that run now and then.
        Costs what the iteration does.
        """
        if limit is not None:
            check_count("read(): limit", limit)
        if not isinstance(wait, bool):
            raise UsageError(f"read(): wait is True or False, got {shorten(wait)}")
        with self._only_reader():
            found: list[Change[T]] = []
            while not found and not self._closed:
                while not self._changes and not self._closed:
                    await self._load(wait=wait)
                    if not wait and self.caught_up:
                        return []
                self._take_all(found, PAGE if limit is None else limit)
            return found

    def _take_all(self, found: list[Change[T]], limit: int) -> None:
        while self._changes and len(found) < limit:
            try:
                change = self._take()
            except InvalidRecordError:
                if not found:
                    raise
                return  # those before it first; the next call raises
            if change is not None:
                found.append(change)

    @contextmanager
    def _only_reader(self) -> Iterator[None]:
        if self._reading:
            raise UsageError("another task waits for the next change of this stream: each reads its own")
        self._reading = True
        try:
            yield
        finally:
            self._reading = False

    def _take(self) -> Change[T] | None:
        """Return the next change; None for one whose record `on_invalid` passed over."""
        position, change = self._changes[0]
        record = None
        try:
            if change.record is not None:
                record = self._convert(change.record)
        except InvalidRecordError as error:
            if self._on_invalid is None:
                # The next call reads it again: it may be repaired by then.
                self._changes.clear()
                self._next, self._caught_up, self._idle = self._given, False, False
                raise
            self._on_invalid(error)
        self._changes.popleft()
        self._given = position
        if record is None and change.record is not None:
            return None
        version = None if change.record is None else change.record.version
        text = encode_position(self._session.backend_name, position)
        return Change(change.id, record, version, change.order, text)

    async def begin(self) -> None:
        """Find where "now" is, so that writes from here on are given; the first iteration does it else.

        `async with` calls it.
        """
        if self._next is None:
            page = await self._page(None)
            # One assignment after the only wait: a call that is cancelled has changed nothing.
            self._next = replace(page.position, after="") if self._from_start else page.position
            self._given = self._next
        elif self._seen is not None:
            # Raises if the store was restored to a moment before the records that were given.
            await self._page(Position(self._next.source, self._seen), 1)
            self._seen = None

    async def _load(self, *, wait: bool) -> None:
        """Read the next page; first wait for a change if the last page had all of them."""
        if self._idle and wait:
            await self._wait()
        await self.begin()
        start, begun = self._next, time.monotonic()
        page = await self._page(start)
        assert start is not None
        if self.caught_up and self._held_by is None:
            self._complete_at = self._read_at
        self._read_at = begun
        following = page.position
        if start.after is None:
            places = [Position(start.source, change.place, None, start.seen) for change in page.changes]
            following = replace(following, seen=None if page.caught_up else start.seen)
        else:
            places = [replace(start, after=change.id, seen=following.seen) for change in page.changes]
        if not self._closed:
            self._changes.extend(zip(places, page.changes, strict=True))
        self._next, self._caught_up, self._held_by = following, page.caught_up, page.held_by
        self._idle = page.caught_up

    async def _page(self, position: Position | None, limit: int = PAGE) -> ChangePage:
        return await self._session.run(ReadChanges(self._collection, position, limit, self._where))

    async def _wait(self) -> None:
        try:
            if self._next is not None:
                store = supporting_changes(self._session.executor)
                await store.wait_for_changes(self._collection, self._next, self._poll)
        finally:
            # Also if the caller gave up: else calls with a shorter timeout would never read.
            self._idle = False

    async def aclose(self) -> None:
        """End the stream: what waits for a change ends within `poll` seconds."""
        self._closed = True
        self._changes.clear()

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _as_it_is(record: Record) -> Record:
    return record


class ChangesMethods(SessionBound):
    """The method that follows one collection."""

    def changes(
        self, where: Query | Predicate | None = None, since: str = "now", poll: float = 1.0
    ) -> ChangeStream[Record]:
        """Return every change that is committed to the collection, as a stream without an end (meaning §10).

        For one id the changes come in the order of its writes, across ids in any. None is skipped,
        whatever transactions overlap; several changes of an id may come as its last one, and one may
        come again after a crash. With `where`, a change whose record does not match comes with the
        record None, as if it were gone. `since` is "now" (when `async with` is entered, or the first
        change asked for), "start" (all records that are there, then what changes) or the position of
        a change. A change comes at the latest `poll` seconds after it can be read.

        Each page of up to 1,000 changes is one request; so is each poll. No I/O here.

        Raises `UnsupportedError` where the backend keeps no changes (`capabilities.changes`) and on a
        scope, `QueryError` for a text that is no position and for `match()` and `nearest()`, and
        `UsageError` inside a transaction; while it is read, `ConfigError` for a collection without
        `changes=True`, and `ChangesExpiredError` for a position of another store or time, or one
        whose next changes were pruned (`changes_keep`).
        """
        return self._follow(where, since, poll, _as_it_is)

    def _follow(
        self,
        where: Query | Predicate | None,
        since: str,
        poll: float,
        convert: Callable[[Record], T],
        on_invalid: Callable[[InvalidRecordError], object] | None = None,
    ) -> ChangeStream[T]:
        session = self._session
        if not session.executor.capabilities.changes:
            raise no_changes(session.backend_name)
        if session.scope != TRUE:
            raise UnsupportedError(
                "a scope has no changes: one that leaves the scope, or is gone, could not be told from"
                " another tenant's",
                capability="changes",
            )
        if session.in_transaction:
            raise UsageError("changes are read outside of transactions: they are what was committed")
        predicate = TRUE if where is None else as_predicate(where)
        if any(isinstance(leaf, RANKED) for leaf in leaves(predicate)):
            raise QueryError(
                "changes(): match() and nearest() compare records with each other, and a change is one record"
            )
        if not isinstance(since, str) or not since:
            raise UsageError(f'since is "now", "start" or the position of a change, got {shorten(since)}')
        return ChangeStream(
            session, self.collection_name, predicate, since, check_seconds("poll", poll), convert, on_invalid
        )
