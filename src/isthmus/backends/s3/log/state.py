"""The state of a log after its last known entry, held in bounded memory.

The index (ids, and which object holds each) is always in memory, about 300 bytes a record. The
records' texts are held up to a bound; beyond it, those of the least used objects are let go and
read again when they are asked for. Columns for searches take up to a quarter of the bound besides.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from isthmus._path import Path
from isthmus.backends.s3.column_values import ColumnValue
from isthmus.backends.s3.envelope import RecordRow
from isthmus.backends.s3.log.columns import ColumnCache
from isthmus.backends.s3.log.entry import Effect, Entry

_ROW_COST = 250  # of a Row and its texts, beside their bytes
_FEW = 64


class Segment:
    """An object that holds rows: an entry, or a part of a checkpoint."""

    __slots__ = ("cost", "held", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.held: set[str] = set()
        self.cost = 0


class RecordLocation:
    """Where a record is, and its row while that is held."""

    __slots__ = ("row", "segment")

    def __init__(self, segment: Segment, row: RecordRow | None) -> None:
        self.segment = segment
        self.row = row


class LogState:
    """Records by id, as of entry `seq`."""

    def __init__(self, seq: int, max_bytes: int) -> None:
        self.seq = seq
        self.confirmed = (0.0, 0.0)
        """When it was last known to be at the end of the log, by two clocks."""
        self.locations: dict[str, RecordLocation] = {}
        self.first = seq + 1
        """The first entry after the last checkpoint."""
        self.tokens: list[str] = []
        """Tokens of the entries since then."""
        self._max = max_bytes
        self._cost = 0
        self._segments: OrderedDict[Segment, None] = OrderedDict()
        self._sorted: list[str] | None = None
        self._columns = ColumnCache(max_bytes // 4)
        self.complete = True
        """Whether every row is held; False once some were let go."""

    def columns(self, paths: Sequence[Path]) -> dict[Path, list[ColumnValue]] | None:
        """Return cells in the order of `ids`, not to be changed; None if not every row is held."""
        if not self.complete:
            return None
        ids = self.ids()
        return self._columns.of(paths, ids, self.row, lambda one: bisect.bisect_left(ids, one))

    def row(self, id: str) -> RecordRow:
        """Return a row that is held."""
        row = self.locations[id].row
        assert row is not None
        return row

    @property
    def held_bytes(self) -> int:
        """How much the held rows take."""
        return self._cost

    def add(self, segment: Segment, rows: Iterable[RecordRow]) -> None:
        """Take in the rows of a checkpoint's part."""
        self._take(segment, [(row.id, row) for row in rows])
        self._shrink()

    def apply(self, entry: Entry, key: str) -> bool:
        """Take in the next entry; False if it was taken in already."""
        if entry.seq <= self.seq:
            return False
        assert entry.seq == self.seq + 1
        if entry.cleared:
            self.locations.clear()
            self._segments.clear()
            self._cost, self._sorted, self.complete = 0, [], True
            self._columns.drop()
        segment = Segment(key)
        if len(entry.effects) > _FEW:
            self._take(segment, entry.effects)
        else:
            self._take_few(segment, entry.effects)
        self.seq = entry.seq
        self.tokens.append(entry.token)
        self._shrink()
        return True

    def _take(self, segment: Segment, effects: Iterable[Effect]) -> None:
        """Take in many rows at once; the order is made anew when it is asked for."""
        self._sorted = None
        self._columns.drop()
        slots, held, cost = self.locations, segment.held, 0
        for id, row in effects:
            old = slots.pop(id, None)
            if old is not None:
                if old.segment is segment and old.row is not None:  # written twice: not counted yet
                    held.discard(id)
                    cost -= _cost(old.row)
                else:
                    self._release(old)
            if row is not None:
                slots[id] = RecordLocation(segment, row)
                held.add(id)
                cost += len(row.data) + len(row.metadata) + _ROW_COST
        segment.cost += cost
        self._cost += cost
        if held:
            self._segments[segment] = None

    def _take_few(self, segment: Segment, effects: Iterable[Effect]) -> None:
        for id, row in effects:
            there = self._drop(id)
            if row is not None:
                self.locations[id] = RecordLocation(segment, None)
                self._hold(segment, row)
            self._reorder(id, before=there, after=row is not None)

    def _reorder(self, id: str, *, before: bool, after: bool) -> None:
        if self._sorted is None or not (before or after):
            return
        at = bisect.bisect_left(self._sorted, id)
        if before and after:
            self._columns.replaced(id)
        elif after:
            self._sorted.insert(at, id)
            self._columns.inserted(at, id)
        else:
            del self._sorted[at]
            self._columns.deleted(at, id)

    def _drop(self, id: str) -> bool:
        slot = self.locations.pop(id, None)
        if slot is None:
            return False
        self._release(slot)
        return True

    def _release(self, slot: RecordLocation) -> None:
        if slot.row is not None:
            cost = _cost(slot.row)
            slot.segment.held.discard(slot.row.id)
            slot.segment.cost -= cost
            self._cost -= cost
            slot.row = None
            if not slot.segment.held:
                self._segments.pop(slot.segment, None)

    def _hold(self, segment: Segment, row: RecordRow) -> None:
        slot = self.locations[row.id]
        if slot.row is None:
            slot.row = row
            cost = _cost(row)
            segment.held.add(row.id)
            segment.cost += cost
            self._cost += cost
            self._segments[segment] = None

    def readmit(self, segment: Segment, rows: Iterable[RecordRow]) -> None:
        """Hold the rows of a segment again that are still where they were."""
        for row in rows:
            slot = self.locations.get(row.id)
            if slot is not None and slot.segment is segment:
                self._hold(segment, row)
        if segment in self._segments:
            self._segments.move_to_end(segment)
        self._shrink()

    def move(self, segment: Segment, moved: Iterable[tuple[RecordLocation, RecordRow]]) -> None:
        """Note that rows are in another object now; a slot that was written again is another slot."""
        for slot, row in moved:
            if self.locations.get(row.id) is slot:
                held = slot.row is not None
                self._release(slot)
                slot.segment = segment
                if held:
                    self._hold(segment, row)
        self._shrink()

    def advance_checkpoint(self, seq: int) -> None:
        """Note that a checkpoint holds everything up to an entry."""
        del self.tokens[: seq + 1 - self.first]
        self.first = seq + 1

    def _shrink(self) -> None:
        while self._cost > self._max and self._segments:
            segment, _ = self._segments.popitem(last=False)
            self.complete = False
            self._columns.drop()
            for id in list(segment.held):
                self._release(self.locations[id])

    def ids(self) -> list[str]:
        """Return all ids in order; not to be changed."""
        if self._sorted is None:
            self._sorted = sorted(self.locations)
        return self._sorted


def _cost(row: RecordRow) -> int:
    return len(row.data) + len(row.metadata) + _ROW_COST
