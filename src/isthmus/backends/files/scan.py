"""Scans: the records of a catalog's files in order, from one place to another; runs in threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from isthmus._path import Path, Root
from isthmus._query.aggregate import Groups, paths_read
from isthmus._query.ast import TRUE, Measure, Predicate, leaves
from isthmus._query.bucket import GroupKey
from isthmus._query.evaluate import top_level_fields
from isthmus._record import Record
from isthmus.backends.files.catalog import Catalog, File
from isthmus.backends.files.formats.arrow_chunk import ArrowChunk
from isthmus.backends.files.formats.column_kinds import Found
from isthmus.backends.files.parallel import map_files
from isthmus.backends.files.reader import ALL, FileReader, Need
from isthmus.backends.files.records import RecordMaker
from isthmus.backends.files.row_range import RowRange, row_range
from isthmus.backends.files.rows import Chunk
from isthmus.errors import InvalidRecordError

R = TypeVar("R")
_MAX_NOTED = 100
EVERYTHING = RowRange((0, 0), None, TRUE)


class Invalid:
    """The refused rows that were left out: how many, and the first messages."""

    def __init__(self, *, skips: bool) -> None:
        self.skips = skips
        self._messages: dict[str, None] = {}
        self._more = False
        self._lock = threading.Lock()

    def __call__(self, error: InvalidRecordError) -> None:
        """Raise the error, or note it."""
        if not self.skips:
            raise error
        with self._lock:
            if len(self._messages) < _MAX_NOTED:
                self._messages[str(error)] = None
            else:
                self._more = self._more or str(error) not in self._messages

    @property
    def messages(self) -> list[str]:
        """The first messages, each once."""
        with self._lock:
            return [*self._messages, *(["…"] if self._more else [])]


class Scanner:
    """Reads the rows of one catalog, whose columns have these types."""

    def __init__(
        self,
        reader: FileReader,
        catalog: Catalog,
        kinds: Mapping[str, Found],
        make_maker: Callable[[File], RecordMaker],
        invalid: Invalid,
        *,
        numbered: bool,
        id_column: str | None,
    ) -> None:
        self.catalog = catalog
        self._reader = reader
        self.kinds = kinds
        self._maker = make_maker
        self._invalid = invalid
        self._numbered = numbered
        self._id_column = id_column
        """The top-level column that holds the id, if one does."""

    def _range(self, where: Predicate, after: str | None) -> RowRange:
        """Return the places between which rows can match; all where ids are not the numbers of rows."""
        if not self._numbered:
            return RowRange((0, 0), None, where)
        return row_range(self.catalog, where, after)

    def _chunks(self, places: RowRange, need: Need = ALL) -> Iterator[tuple[File, Chunk]]:
        """Yield the chunks between two places."""
        for index in self._indexes(places):
            for chunk in self._file_chunks(index, places, need):
                yield self.catalog.files[index], chunk

    def _indexes(self, places: RowRange) -> range:
        """Return the indexes of the files between two places."""
        end = len(self.catalog.files)
        if places.high is not None:
            end = min(end, places.high[0] + (places.high[1] > 0))
        return range(places.low[0], end)

    def _file_chunks(self, index: int, places: RowRange, need: Need) -> Iterator[Chunk]:
        """Yield the chunks of a file between two places."""
        end = places.high[1] if places.high is not None and index == places.high[0] else None
        start = places.low[1] if index == places.low[0] else 0
        for chunk in self._reader.chunks(self.catalog.files[index], self.kinds, start, need):
            cut = chunk.cut(start, end)
            if len(cut):
                yield cut
            if end is not None and chunk.first + len(chunk) >= end:
                break

    def _map(self, places: RowRange, work: Callable[[int], R]) -> Iterator[R]:
        """Yield the results of work on the index of each file between two places, in order."""
        indexes = self._indexes(places)
        files = self.catalog.files[indexes.start : indexes.stop]
        return map_files(files, lambda number: work(indexes[number]))

    def _need(self, where: Predicate, paths: Iterable[Path] | None) -> Need:
        """Return what a call needs of each row to evaluate a condition and give these paths, None for all.

        Which rows are left out as invalid must not depend on the columns that a call reads.
        """
        if paths is None or self._invalid.skips:
            return Need(None, where)
        names = {path.keys[0] for path in paths if path.root is Root.DATA}
        names.update(leaf.path.keys[0] for leaf in leaves(where) if leaf.path.root is Root.DATA)
        if self._id_column is not None:
            names.add(self._id_column)
        return Need(frozenset(names), where)

    def records(
        self, where: Predicate, after: str | None = None, paths: Iterable[Path] | None = None
    ) -> Iterator[Record]:
        """Yield the matching records in the order of their rows, those after an id.

        `paths` are those that the caller needs, None for all; records may have further ones.
        """
        places = self._range(where, after)
        paths = None if paths is None or self._invalid.skips else tuple(paths)
        for file, chunk in self._chunks(places, self._need(places.rest, paths)):
            make = self._maker(file)
            make.selected = None if paths is None else top_level_fields(paths)
            yield from chunk.select(places.rest, make, self._invalid)

    def records_with_places(self) -> Iterator[tuple[int, str, Record]]:
        """Yield all records with the index of their file and where in it they are."""
        indexes = {file.key: index for index, file in enumerate(self.catalog.files)}
        for file, chunk in self._chunks(EVERYTHING):
            maker = self._maker(file)
            for number in range(chunk.first, chunk.first + len(chunk)):
                for record in chunk.cut(number, number + 1).select(TRUE, maker, self._invalid):
                    yield indexes[file.key], maker.place(number), record

    def count(self, where: Predicate) -> int:
        """Return how many records match."""
        places = self._range(where, None)
        if places == EVERYTHING and self._id_column is None and not self._invalid.skips:
            counts = [self._reader.count_rows(file) for file in self.catalog.files]
            if None not in counts:
                return sum(count for count in counts if count is not None)
        need = self._need(places.rest, ())

        def count_file(index: int) -> int:
            make = self._maker(self.catalog.files[index])
            chunks = self._file_chunks(index, places, need)
            if self._invalid.skips:
                return sum(1 for chunk in chunks for _ in chunk.select(places.rest, make, self._invalid))
            return sum(chunk.count(places.rest, make, self._invalid) for chunk in chunks)

        return sum(self._map(places, count_file))

    def aggregate(self, where: Predicate, measures: Sequence[Measure], by: Sequence[GroupKey]) -> Groups:
        """Return the states of the groups of matching records."""
        paths = paths_read(by, measures)
        places = self._range(where, None)
        need = self._need(places.rest, paths)
        # A condition takes a value without a form as none, as when records are counted.
        columns = frozenset(path.keys[0] for path in paths if path.root is Root.DATA)
        needed = None if self._invalid.skips else columns

        def group_file(index: int) -> Groups:
            groups, make = Groups(measures), self._maker(self.catalog.files[index])
            for chunk in self._file_chunks(index, places, need):
                if (
                    isinstance(chunk, ArrowChunk)
                    and not self._invalid.skips
                    and chunk.aggregate(places.rest, make, measures, by, groups)
                ):
                    continue
                for record in chunk.select(places.rest, make, self._invalid, needed):
                    groups.add_record(record, by)
            return groups

        merged = Groups(measures)
        for groups in self._map(places, group_file):
            merged.merge(groups)
        return merged

    def read(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return the records with these ids; one pass over each file that has some."""
        wanted: dict[int, set[int]] = {}
        for id in ids:
            place = self.catalog.find(id)
            if place is not None:
                wanted.setdefault(place[0], set()).add(place[1])
        found: dict[str, Record] = {}
        for index, rows in sorted(wanted.items()):
            file = self.catalog.files[index]
            maker = self._maker(file)
            for run in _runs(sorted(rows)):
                for chunk in self._reader.chunks(file, self.kinds, run[0]):
                    for row in run:
                        if chunk.first <= row < chunk.first + len(chunk):
                            for record in chunk.cut(row, row + 1).select(TRUE, maker, self._invalid):
                                found[record.id or ""] = record
                    if chunk.first + len(chunk) > run[-1]:
                        break
        return found


_NEAR = 50_000


def _runs(rows: list[int]) -> Iterator[list[int]]:
    """Yield sorted rows in groups that are read in one pass: a far row is cheaper to seek."""
    run: list[int] = []
    for row in rows:
        if run and row - run[-1] > _NEAR:
            yield run
            run = []
        run.append(row)
    if run:
        yield run


class Pager:
    """A scan that is read page by page."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self._next: list[Record] = []

    def take(self, size: int | None) -> tuple[list[Record], bool]:
        """Return the next records, and whether there are more."""
        taken = self._next
        if size is None:
            taken.extend(self._records)
            self._next = []
            return taken, False
        taken.extend(itertools.islice(self._records, size + 1 - len(taken)))
        self._next = taken[size:]
        return taken[:size], bool(self._next)
