"""The journal of a table in memory: which ids were written, in the order of their commits (meaning §10)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from isthmus._core.changes import (
    ChangePage,
    Position,
    StoredChange,
    other_source,
    parse_number,
    pruning_error,
)
from isthmus._ids import new_id
from isthmus._record import Record

_STEPS = 20
"""How many entries are looked at for each change of a page, before the reader is let go."""


class _WrittenId(NamedTuple):
    id: str
    time: float


class ChangeJournal:
    """Entries with consecutive numbers; a number is the order of the record that was written.

    Used by any thread, one call at a time: `Committed` sees to that.
    """

    def __init__(
        self,
        collection: str,
        keep: float,
        ids: Iterable[str] = (),
        *,
        last: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = new_id()
        self.last = last
        """The number of the last entry."""
        self._collection = collection
        self._keep = keep
        self._clock = clock
        self._entries: list[_WrittenId] = []
        self._base = last + 1  # the number of the first entry of the list
        self._pruned = last  # the number up to which entries are gone, though the list may still have them
        # Of each record, and of each deleted one whose entry is kept, the number of its last write.
        self._orders = dict.fromkeys(ids, last)
        self._waiters: set[asyncio.Future[None]] = set()

    def append(self, ids: Iterable[str], table: Mapping[str, Record]) -> None:
        """Note that a commit wrote or deleted these ids; `table` has the records after it."""
        now = self._clock()
        for id in ids:
            self._entries.append(_WrittenId(id, now))
            self.last += 1
            self._orders[id] = self.last
        self._prune(table)
        self.wake()

    def order(self, id: str) -> int | None:
        """Return the order of a record that is there."""
        return self._orders.get(id)

    @property
    def now(self) -> Position:
        """The position after the last entry."""
        return Position(self.source, str(self.last))

    def read(self, position: Position, limit: int, table: Mapping[str, Record]) -> ChangePage:
        """Return changes after a position; an id that was written again comes at its last entry only."""
        number = self.check(position, table)
        changes: list[StoredChange] = []
        end = min(self.last, number + limit * _STEPS)
        while number < end and len(changes) < limit:
            number += 1
            id = self._entries[number - self._base].id
            if self._orders[id] == number:
                changes.append(StoredChange(id, table.get(id), number, str(number)))
        return ChangePage(changes, Position(self.source, str(number)), caught_up=number == self.last)

    def check(self, position: Position, table: Mapping[str, Record]) -> int:
        """Return the number of a position; raises `ChangesExpiredError` if it cannot be continued."""
        number = parse_number(position.place)
        if position.source != self.source or number > self.last:
            raise other_source(self._collection)
        self._prune(table)
        if number < self._pruned:
            raise pruning_error(self._collection)
        return number

    def _prune(self, table: Mapping[str, Record]) -> None:
        limit = self._clock() - self._keep
        while self._pruned < self.last:
            id, when = self._entries[self._pruned + 1 - self._base]
            if when > limit:
                break
            self._pruned += 1
            if self._orders.get(id) == self._pruned and id not in table:
                del self._orders[id]
        gone = self._pruned + 1 - self._base
        if gone > len(self._entries) // 2:
            del self._entries[:gone]
            self._base += gone

    def wake(self) -> None:
        """Let those go on who wait for a change."""
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            try:
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)
            except RuntimeError:  # the waiter's loop is closed
                continue

    def waiter(self, position: Position) -> asyncio.Future[None]:
        """Return a future of this loop that is done once there are entries after a position."""
        waiter = asyncio.get_running_loop().create_future()
        if position != self.now:
            waiter.set_result(None)
        else:
            self._waiters.add(waiter)
        return waiter

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """Forget a future that nobody waits for any more."""
        self._waiters.discard(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
