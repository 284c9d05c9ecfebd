"""The state of a log after its last known entry, held in bounded memory.

The index (ids, and which object holds each) is always in memory, about 300 bytes a record. The
records' JSON is held up to a bound; beyond it, that of the least recently used objects is evicted
and read again on demand. Columns for searches take up to a quarter of the bound in addition.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from isthmus._core.unique import Unique
from isthmus._path import Path
from isthmus.backends.s3.column_values import ColumnValue
from isthmus.backends.s3.envelope import Effect, RecordRow
from isthmus.backends.s3.log.columns import ColumnCache
from isthmus.backends.s3.log.entry import Entry, KeptChanges
from isthmus.backends.s3.log.unique_values import UniqueValues

_ROW_COST = 250  # of a RecordRow and its texts, in addition to their bytes
_FEW = 64


class Segment:
    """An object that holds rows: an entry, or a part of a checkpoint."""

    __slots__ = ("cost", "held", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.held: set[str] = set()
        self.cost = 0


class RecordLocation:
    """The object that holds a record, and the record's row while that is in memory."""

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
        self._live_from = 0
        self.first = seq + 1
        """The first entry after the last checkpoint."""
        self.tokens: list[str] = []
        """Tokens of the entries since then."""
        self._max = max_bytes
        self._cost = 0
        self._segments: OrderedDict[Segment, None] = OrderedDict()
        self._sorted: list[str] | None = None
        self._columns = ColumnCache(max_bytes // 4)
        self.last_token = ""
        """The token of entry `seq`."""
        self.changes: KeptChanges | None = None
        """The declaration that changes are kept."""
        self.unique = UniqueValues()
        """The unique fields, and which records have which values."""
        self.next_unique: UniqueValues | None = None
        """Those of a declaration that is being prepared."""
        self.complete = True
        """Whether every row is in memory; False once some were evicted."""

    def ids(self) -> list[str]:
        """Return all ids in order; the list must not be changed."""
        if self._sorted is None:
            self._sorted = sorted(self.locations)
        return self._sorted

    def row(self, id: str) -> RecordRow:
        """Return a row that is in memory."""
        row = self.locations[id].row
        assert row is not None
        return row

    def columns(self, paths: Sequence[Path]) -> dict[Path, list[ColumnValue]] | None:
        """Return the values at each path in the order of `ids`; None if not every row is in memory.

        The lists must not be changed.
        """
        if not self.complete:
            return None
        ids = self.ids()
        return self._columns.get(paths, ids, self.row, lambda one: bisect.bisect_left(ids, one))

    @property
    def live_from(self) -> int:
        """The first entry that may hold records; those of earlier entries have been deleted."""
        return self._live_from if self.locations else self.seq + 1

    @property
    def held_bytes(self) -> int:
        """The memory that rows take, in bytes."""
        return self._cost

    def add(self, segment: Segment, rows: Iterable[RecordRow]) -> None:
        """Add the rows of a checkpoint's part."""
        effects: list[Effect] = [(row.id, row) for row in rows]
        self.unique.apply(effects)
        self._apply_many(segment, effects)
        self._evict()

    def apply(self, entry: Entry, key: str) -> None:
        """Apply the next entry, which is stored under `key`; earlier ones were applied already."""
        if entry.seq <= self.seq:
            return
        assert entry.seq == self.seq + 1
        if entry.cleared:
            self.locations.clear()
            self._segments.clear()
            self._cost, self._sorted, self.complete = 0, [], True
            self._columns.clear()
            self._live_from = entry.seq
        if entry.changes is not None:
            self.changes = entry.changes if entry.changes.making else None
        if entry.unique is not None:
            self.unique = self.values_of(entry.unique)
        for unique in (self.unique, self.next_unique):
            if unique is not None:
                if entry.cleared:
                    unique.clear()
                unique.apply(entry.effects)
        segment = Segment(key)
        if len(entry.effects) > _FEW:
            self._apply_many(segment, entry.effects)
        else:
            self._apply_few(segment, entry.effects)
        self.seq, self.last_token = entry.seq, entry.token
        self.tokens.append(entry.token)
        self._evict()

    def values_of(self, declared: Iterable[Unique]) -> UniqueValues:
        """Return the values of unique fields in the records, as far as their rows are in memory."""
        unique = UniqueValues(declared)
        if unique.index:
            held = ((id, location.row) for id, location in self.locations.items())
            unique.apply([(id, row) for id, row in held if row is not None])
            unique.unread.update(id for id, location in self.locations.items() if location.row is None)
        return unique

    def _apply_many(self, segment: Segment, effects: Iterable[Effect]) -> None:
        """Apply many effects at once; the ids are sorted again when their order is needed."""
        self._sorted = None
        self._columns.clear()
        locations, held, cost = self.locations, segment.held, 0
        for id, row in effects:
            old = locations.pop(id, None)
            if old is not None:
                if old.segment is segment and old.row is not None:  # written twice: not counted yet
                    held.discard(id)
                    cost -= _cost(old.row)
                else:
                    self._release(old)
            if row is not None:
                locations[id] = RecordLocation(segment, row)
                held.add(id)
                cost += len(row.data) + len(row.metadata) + _ROW_COST
        segment.cost += cost
        self._cost += cost
        if held:
            self._segments[segment] = None

    def _apply_few(self, segment: Segment, effects: Iterable[Effect]) -> None:
        """Apply effects one by one, which keeps the order of ids and the columns."""
        for id, row in effects:
            old = self.locations.pop(id, None)
            if old is not None:
                self._release(old)
            if row is not None:
                self.locations[id] = RecordLocation(segment, None)
                self._hold(segment, row)
            self._reorder(id, before=old is not None, after=row is not None)

    def _reorder(self, id: str, *, before: bool, after: bool) -> None:
        if self._sorted is None or not (before or after):
            return
        index = bisect.bisect_left(self._sorted, id)
        if before and after:
            self._columns.mark_stale(id)
        elif after:
            self._sorted.insert(index, id)
            self._columns.insert(index, id)
        else:
            del self._sorted[index]
            self._columns.delete(index, id)

    def _release(self, location: RecordLocation) -> None:
        if location.row is not None:
            cost = _cost(location.row)
            location.segment.held.discard(location.row.id)
            location.segment.cost -= cost
            self._cost -= cost
            location.row = None
            if not location.segment.held:
                self._segments.pop(location.segment, None)

    def _hold(self, segment: Segment, row: RecordRow) -> None:
        location = self.locations[row.id]
        if location.row is None:
            location.row = row
            cost = _cost(row)
            segment.held.add(row.id)
            segment.cost += cost
            self._cost += cost
            self._segments[segment] = None

    def readmit(self, segment: Segment, rows: Iterable[RecordRow]) -> None:
        """Hold the rows of a segment again, as far as the records are still there."""
        for row in rows:
            location = self.locations.get(row.id)
            if location is not None and location.segment is segment:
                self._hold(segment, row)
        if segment in self._segments:
            self._segments.move_to_end(segment)
        self._evict()

    def move(self, segment: Segment, moved: Iterable[tuple[RecordLocation, RecordRow]]) -> None:
        """Note that rows are in another object now; a record written since has another location."""
        for location, row in moved:
            if self.locations.get(row.id) is location:
                held = location.row is not None
                self._release(location)
                location.segment = segment
                if held:
                    self._hold(segment, row)
        self._evict()

    def advance_checkpoint(self, seq: int) -> None:
        """Note that a checkpoint holds everything up to an entry."""
        del self.tokens[: seq + 1 - self.first]
        self.first = seq + 1

    def _evict(self) -> None:
        while self._cost > self._max and self._segments:
            segment, _ = self._segments.popitem(last=False)
            self.complete = False
            self._columns.clear()
            for id in list(segment.held):
                self._release(self.locations[id])


def _cost(row: RecordRow) -> int:
    return len(row.data) + len(row.metadata) + _ROW_COST
