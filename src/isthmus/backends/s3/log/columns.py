"""Columns of a log's state, so that a repeated search decodes nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from isthmus._path import Path
from isthmus.backends.s3.column_values import ColumnValue
from isthmus.backends.s3.envelope import RecordRow
from isthmus.backends.s3.log.filter import build_columns

# A value takes 8 bytes in its list, and its object mostly less than the rest.
_VALUE_BYTES = 64


class ColumnCache:
    """The columns of one state, by path.

    A column is aligned with the ids in order. It is built by the first search that needs its path,
    and only while all rows are in memory. Writes of a few records update it, larger ones clear it.
    The least recently used columns are dropped when there are too many values.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_values = max_bytes // _VALUE_BYTES
        self._columns: OrderedDict[Path, list[ColumnValue]] = OrderedDict()
        self._stale: set[str] = set()
        """Ids whose values have to be read again."""

    def clear(self) -> None:
        """Drop all columns."""
        self._columns.clear()
        self._stale.clear()

    def insert(self, index: int, id: str) -> None:
        """Note a new id at an index of the order."""
        for column in self._columns.values():
            column.insert(index, None)
        self.mark_stale(id)

    def delete(self, index: int, id: str) -> None:
        """Note that an id was deleted from an index of the order."""
        for column in self._columns.values():
            del column[index]
        self._stale.discard(id)

    def mark_stale(self, id: str) -> None:
        """Note that an id has another row."""
        if self._columns:
            self._stale.add(id)

    def get(
        self,
        paths: Sequence[Path],
        ids: Sequence[str],
        row_of: Callable[[str], RecordRow],
        index_of: Callable[[str], int],
    ) -> dict[Path, list[ColumnValue]]:
        """Return the columns of these paths, built or updated as needed."""
        if self._stale:
            self._update(row_of, index_of)
        missing = [path for path in paths if path not in self._columns]
        if missing:
            self._columns.update(build_columns([row_of(id) for id in ids], missing))
        for path in paths:
            self._columns.move_to_end(path)
        wanted = {path: self._columns[path] for path in paths}
        while self._columns and len(self._columns) * len(ids) > self._max_values:
            self._columns.popitem(last=False)
        return wanted

    def _update(self, row_of: Callable[[str], RecordRow], index_of: Callable[[str], int]) -> None:
        stale = list(self._stale)
        self._stale.clear()
        for path, fresh in build_columns([row_of(id) for id in stale], list(self._columns)).items():
            column = self._columns[path]
            for id, value in zip(stale, fresh, strict=True):
                column[index_of(id)] = value
