"""Rows of an Arrow batch: conditions are masks where they can be; only matching rows become objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from isthmus._path import Root
from isthmus._query.aggregate import Groups, paths_read
from isthmus._query.ast import TRUE, And, Measure, Predicate, leaves
from isthmus._query.bucket import GroupKey
from isthmus._query.evaluate import matches
from isthmus._query.normalize import normalize
from isthmus._record import Record
from isthmus.backends.files.formats.arrow_aggregate import aggregate_batch
from isthmus.backends.files.formats.arrow_columns import Columns, NotCompiledError
from isthmus.backends.files.formats.arrow_filter import compile_mask
from isthmus.backends.files.formats.arrow_json import encode_batch
from isthmus.backends.files.formats.arrow_library import arrow, compute, integer_array
from isthmus.backends.files.formats.arrow_refused import describe_value
from isthmus.backends.files.formats.arrow_values import Reading, column_values
from isthmus.backends.files.formats.column_kinds import Unreadable
from isthmus.backends.files.formats.csv_json import EncodedRows
from isthmus.backends.files.rows import MakeRecord, Refusal, Refused, Row
from isthmus.errors import InvalidRecordError

_ROWS = 1_000


class Decoding(Protocol):
    """How the columns of a batch are read."""

    def columns(self, batch: Any, names: frozenset[str]) -> Columns:
        """Return the columns for masks."""
        ...

    def values(self, array: Any, name: str) -> Sequence[Any]:
        """Return the values of a column, `Unreadable` for those without a canonical form."""
        ...

    def describe(self, array: Any) -> Any:
        """Return the only value of an array as it was read, its text if JSON cannot hold it."""
        ...

    def encode(self, batch: Any, fields: frozenset[str] | None = None) -> EncodedRows | None:
        """Return the rows as JSON, cut to some fields; None if a value of one has to be looked at."""
        ...

    def needs_values(self, name: str) -> bool:
        """Return whether conditions on a column are evaluated on its values only."""
        ...


class TypedDecoding:
    """Columns of Arrow's types; those in `as_text` are read as text."""

    def __init__(self, reading: Reading, as_text: frozenset[str]) -> None:
        self._reading = reading
        self._as_text = as_text

    def columns(self, batch: Any, names: frozenset[str]) -> Columns:
        """Return the columns for masks."""
        return Columns(batch, names, self._reading)

    def values(self, array: Any, name: str) -> Sequence[Any]:
        """Return the values of a column."""
        return column_values(array, self._reading, as_text=name in self._as_text)

    def describe(self, array: Any) -> Any:
        """Return the only value of an array, its text if JSON cannot hold it."""
        return describe_value(array, self._reading)

    def encode(self, batch: Any, fields: frozenset[str] | None = None) -> EncodedRows | None:
        """Return the rows as JSON, cut to some fields; None if a value of one has to be looked at."""
        encoded = None if self._as_text else encode_batch(batch, self._reading)
        return encoded if encoded is None or fields is None else encoded.cut(fields)

    def needs_values(self, name: str) -> bool:
        """Return whether the column is read as text."""
        return name in self._as_text


class ArrowChunk:
    """Consecutive rows of one file as a record batch; `names` are all columns of the file."""

    def __init__(
        self, first: int, batch: Any, names: frozenset[str], decoding: Decoding, line: int | None = None
    ) -> None:
        self.first = first
        self._line = line
        """The line of the first row where each has one; None where a format has no lines."""
        self._batch = batch
        self._names = names
        self._decoding = decoding

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def cut(self, start: int, end: int | None) -> ArrowChunk:
        """Return the rows with numbers from `start` to before `end`."""
        low = max(start - self.first, 0)
        high = len(self) if end is None else max(end - self.first, low)
        if low == 0 and high >= len(self):
            return self
        batch = self._batch.slice(low, high - low)
        line = None if self._line is None else self._line + low
        return ArrowChunk(self.first + low, batch, self._names, self._decoding, line)

    def rows(self) -> list[Row]:
        """Return the rows as objects, refused ones for a value without a canonical form."""
        return [
            self._refuse(index, row) if type(row) is _Partial else row
            for index, row in enumerate(_rows(self._batch, self._decoding))
        ]

    def _refuse(self, index: int, row: _Partial) -> Row:
        """Return the refusal of a row with all its values, those that cannot be stored as text."""
        read = {
            name: self._decoding.describe(self._batch.column(name).slice(index, 1))
            if type(value) is Unreadable
            else value
            for name, value in row.items()
        }
        refusal = _check_row(row)
        return refusal._replace(row=read) if isinstance(refusal, Refusal) else refusal

    def encode(self) -> EncodedRows | None:
        """Return the rows as canonical JSON, without making objects of them; None where that cannot be."""
        return self._decoding.encode(self._batch) if len(self) and self._batch.num_columns else None

    @property
    def line(self) -> int:
        """The line of the first row, or its number from 1 if a format has no lines."""
        return self.first + 1 if self._line is None else self._line

    def enumerate_rows(self) -> Iterator[tuple[int, Row]]:
        """Yield each row with its line, or its number from 1 if a format has no lines."""
        return enumerate(self.rows(), self.line)

    @property
    def schema(self) -> Any:
        """The schema of the batch."""
        return self._batch.schema

    def _split(self, where: Predicate) -> tuple[Any, Predicate]:
        """Return the mask of what Arrow decides, None for everything, and what is left for the evaluator."""
        mask: Any = None
        rest: list[Predicate] = []
        columns = self._decoding.columns(self._batch, self._names)
        for term in where.terms if isinstance(where, And) else (where,):
            if any(self._needs_values(leaf.path.keys) for leaf in leaves(term)):
                rest.append(term)
                continue
            try:
                one = compile_mask(term, columns)
            except NotCompiledError:
                rest.append(term)
                continue
            mask = one if mask is None else compute().and_(mask, one)
        return mask, normalize(And(tuple(rest)))

    def _needs_values(self, keys: Sequence[str]) -> bool:
        return bool(keys) and self._decoding.needs_values(keys[0])

    def find_rows(self, where: Predicate, make: MakeRecord, refused: Refused) -> Iterator[Sequence[int]]:
        """Yield the positions of rows that match in parts; a value without a canonical form is none."""
        mask, rest = self._split(where)
        numbers = None if mask is None else compute().indices_nonzero(mask)
        total = len(self) if numbers is None else len(numbers)
        for start in range(0, total, _ROWS):  # a reader that stops early has converted few
            positions: Sequence[int] = range(start, min(start + _ROWS, total))
            if numbers is not None:
                positions = numbers.slice(start, _ROWS).to_pylist()
            yield positions if rest == TRUE else self._evaluate(rest, positions, make, refused)

    def _evaluate(
        self, where: Predicate, positions: Sequence[int], make: MakeRecord, refused: Refused
    ) -> list[int]:
        """Return the positions of the rows that match; converts only the columns in the condition."""
        names = {leaf.path.keys[0] for leaf in leaves(where) if leaf.path.root is Root.DATA}
        if make.id_column is not None:
            names.add(make.id_column)
        columns = self._batch.select([name for name in self._batch.schema.names if name in names])
        kept = []
        for position, row in zip(positions, self._rows_at(positions, columns), strict=True):
            try:
                record = make(self.first + position, _readable_part(row))
            except InvalidRecordError as error:
                refused(error)
                continue
            if matches(where, record):
                kept.append(position)
        return kept

    def _take(self, positions: Sequence[int], batch: Any) -> Any:
        """Return the part of a batch with these sorted positions; None for types that Arrow cannot take."""
        first, count = positions[0], positions[-1] - positions[0] + 1
        part = batch.slice(first, count)
        if count == len(positions):
            return part
        try:
            return part.take(integer_array([position - first for position in positions]))
        except arrow().ArrowNotImplementedError:  # of types that few programs write, such as views
            return None

    def _rows_at(self, positions: Sequence[int], batch: Any) -> list[Any]:
        """Return the rows at sorted positions."""
        if not positions:
            return []
        if not batch.num_columns:
            return [{} for _ in positions]
        part = self._take(positions, batch)
        if part is not None:
            return _rows(part, self._decoding)
        first = positions[0]
        rows = _rows(batch.slice(first, positions[-1] - first + 1), self._decoding)
        return [rows[position - first] for position in positions]

    def _texts_at(self, positions: Sequence[int], fields: frozenset[str] | None) -> EncodedRows | None:
        """Return the rows at sorted positions as JSON of some fields; None where each has to be looked at."""
        if not positions or not self._batch.num_columns:
            return None
        part = self._take(positions, self._batch)
        return None if part is None else self._decoding.encode(part, fields)

    def select(
        self,
        where: Predicate,
        make: MakeRecord,
        refused: Refused,
        needed: frozenset[str] | None = None,
    ) -> Iterator[Record]:
        """Yield the records of the rows that match, in order."""
        for positions in self.find_rows(where, make, refused):
            encoded = self._texts_at(positions, make.selected) if make.id_column is None else None
            if encoded is not None:
                texts = zip(positions, encoded.objects(), strict=True)
                yield from (
                    make.over_text(self.first + position, text, canonical=encoded.canonical)
                    for position, text in texts
                )
                continue
            for position, row in zip(positions, self._rows_at(positions, self._batch), strict=True):
                try:
                    line = None if self._line is None else self._line + position
                    record = make(self.first + position, _check_row(row, line, needed))
                except InvalidRecordError as error:
                    refused(error)
                    continue
                yield record

    def count(self, where: Predicate, make: MakeRecord, refused: Refused) -> int:
        """Return how many rows match; one without an id is refused, a value without a form is none."""
        if make.id_column is not None:
            return sum(1 for _ in self._find_ids(where, make, make.id_column, refused))
        mask, rest = self._split(where)
        if rest == TRUE:
            return len(self) if mask is None else int(compute().sum(mask).as_py() or 0)
        return sum(map(len, self.find_rows(where, make, refused)))

    def _find_ids(
        self, where: Predicate, make: MakeRecord, id_column: str, refused: Refused
    ) -> Iterator[str | None]:
        """Yield the ids of the rows that match."""
        columns = self._batch.select([id_column] if id_column in self._batch.schema.names else [])
        for positions in self.find_rows(where, make, refused):
            for position, row in zip(positions, self._rows_at(positions, columns), strict=True):
                try:
                    yield make(self.first + position, _readable_part(row)).id
                except InvalidRecordError as error:
                    refused(error)

    def aggregate(
        self,
        where: Predicate,
        make: MakeRecord,
        measures: Sequence[Measure],
        by: Sequence[GroupKey],
        groups: Groups,
    ) -> bool:
        """Add the rows that match to the groups; return False if their records have to be looked at."""
        paths = paths_read(by, measures)
        if make.id_column is not None or any(self._needs_values(path.keys) for path in paths):
            return False
        mask, rest = self._split(where)
        if rest != TRUE:
            return False
        numbers = None if mask is None else compute().indices_nonzero(mask)
        columns = self._decoding.columns(self._batch, self._names)
        try:
            aggregate_batch(columns, numbers, measures, by, groups)
        except NotCompiledError:
            return False
        return True


class _Partial(dict[str, Any]):
    """A row some of whose values have no canonical form."""


def _rows(batch: Any, decoding: Decoding) -> list[Any]:
    names = batch.schema.names
    if not names:
        return [{} for _ in range(batch.num_rows)]
    columns = [decoding.values(batch.column(index), name) for index, name in enumerate(names)]
    rows: list[Any] = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    for cells in columns:
        for index, value in enumerate(cells):
            if type(value) is Unreadable and type(rows[index]) is dict:
                rows[index] = _Partial(rows[index])
    return rows


def _readable_part(row: Any) -> dict[str, Any]:
    """Return a row without the values that have no canonical form: conditions take them as no value."""
    if type(row) is _Partial:
        return {name: value for name, value in row.items() if type(value) is not Unreadable}
    return row  # type: ignore[no-any-return]


def _check_row(row: Any, line: int | None = None, needed: frozenset[str] | None = None) -> Row:
    """Return a row, or its refusal if one of the needed columns, by default of all, is unreadable."""
    if type(row) is not _Partial:
        return row  # type: ignore[no-any-return]
    unreadable = [name for name, value in row.items() if type(value) is Unreadable]
    name = next((name for name in unreadable if needed is None or name in needed), None)
    if name is None:
        return _readable_part(row)
    problem = row[name]
    return Refusal(f"column {name!r}: {problem}", line, f"data.{name}")
