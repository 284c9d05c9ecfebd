"""Columns of cells beside a log's view, so that a repeated search decodes nothing.

A column is aligned with the ids in order. It is made by the first search that asks for its path,
only while all rows are held; writes of a few records mend it, larger ones drop it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from isthmus._path import Path
from isthmus.backends.s3.column_values import ColumnValue
from isthmus.backends.s3.envelope import RecordRow
from isthmus.backends.s3.log.filter import build_columns

# A cell takes 8 bytes in its list, and its value mostly less than the rest.
_CELL_BYTES = 64


class ColumnCache:
    """Some columns of one view; the least used go when there are too many cells."""

    def __init__(self, max_bytes: int) -> None:
        self._max_cells = max_bytes // _CELL_BYTES
        self._held: OrderedDict[Path, list[ColumnValue]] = OrderedDict()
        self._changed: set[str] = set()
        """Ids whose cells are to be read again."""

    def drop(self) -> None:
        """Forget all columns."""
        self._held.clear()
        self._changed.clear()

    def inserted(self, at: int, id: str) -> None:
        """Note a new id at a place in the order."""
        for column in self._held.values():
            column.insert(at, None)
        self.replaced(id)

    def deleted(self, at: int, id: str) -> None:
        """Note that an id went from a place in the order."""
        for column in self._held.values():
            del column[at]
        self._changed.discard(id)

    def replaced(self, id: str) -> None:
        """Note that an id's row is another one."""
        if self._held:
            self._changed.add(id)

    def of(
        self,
        paths: Sequence[Path],
        ids: Sequence[str],
        row_of: Callable[[str], RecordRow],
        place_of: Callable[[str], int],
    ) -> dict[Path, list[ColumnValue]]:
        """Return the columns of these paths, made or mended as needed."""
        if self._changed:
            self._refresh(row_of, place_of)
        missing = [path for path in paths if path not in self._held]
        if missing:
            self._held.update(build_columns([row_of(id) for id in ids], missing))
        for path in paths:
            self._held.move_to_end(path)
        wanted = {path: self._held[path] for path in paths}
        while self._held and len(self._held) * len(ids) > self._max_cells:
            self._held.popitem(last=False)
        return wanted

    def _refresh(self, row_of: Callable[[str], RecordRow], place_of: Callable[[str], int]) -> None:
        changed = list(self._changed)
        self._changed.clear()
        for path, fresh in build_columns([row_of(id) for id in changed], list(self._held)).items():
            column = self._held[path]
            for id, cell in zip(changed, fresh, strict=True):
                column[place_of(id)] = cell
