"""Rows of files, the chunks in which they are read, and the records that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from isthmus._query.ast import TRUE, Predicate
from isthmus._query.evaluate import matches
from isthmus._record import Record
from isthmus.errors import InvalidRecordError


class Refusal(NamedTuple):
    """A row, or the rest of a file, that cannot be read."""

    message: str
    line: int | None = None
    """The line at which it begins, from 1; None where a format has no lines."""
    path: str = "data"
    row: Any = None
    """What was read: the text of a line, cells, or values by column; None for the rest of a file.

    A value that cannot be stored is its text, a byte that is not of the file's encoding a lone surrogate.
    """


Row: TypeAlias = "dict[str, Any] | Refusal"


class MakeRecord(Protocol):
    """Makes the records of one file's rows."""

    @property
    def id_column(self) -> str | None:
        """Return the top-level column that holds the id; None if rows are numbered."""
        ...

    selected: frozenset[str] | None
    """The top-level fields to which `over_text` is given the rows; None for all."""

    def __call__(self, number: int, row: Row, /) -> Record:
        """Return the record of a row with this number; raises `InvalidRecordError` for a refused one."""
        ...

    def over_text(self, number: int, text: bytes, *, canonical: bool) -> Record:
        """Return the record of a numbered row over its JSON, `canonical` if it is to the letter a store's."""
        ...


class Chunk(Protocol):
    """Some consecutive rows of one file."""

    first: int
    """The number of the first row in its file, from 0."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def select(
        self,
        where: Predicate,
        make: MakeRecord,
        refused: Refused,
        needed: frozenset[str] | None = None,
    ) -> Iterator[Record]:
        """Yield the records of the rows that match, in order; refused rows go to `refused`.

        `needed` are the columns whose values have to be readable, by default all.
        """
        ...

    def count(self, where: Predicate, make: MakeRecord, refused: Refused) -> int:
        """Return how many rows match."""
        ...

    def cut(self, start: int, end: int | None) -> Chunk:
        """Return the rows with numbers from `start` to before `end`."""
        ...


Refused: TypeAlias = Callable[[InvalidRecordError], None]
"""Raises or notes the error of a refused row."""


class RowChunk:
    """Rows as Python objects, evaluated one by one."""

    def __init__(self, first: int, rows: Sequence[Row], lines: Sequence[int] | None = None) -> None:
        self.first = first
        self._rows = rows
        self._lines = lines

    def __len__(self) -> int:
        return len(self._rows)

    def cut(self, start: int, end: int | None) -> RowChunk:
        """Return the rows with numbers from `start` to before `end`."""
        low = max(start - self.first, 0)
        high = len(self._rows) if end is None else max(end - self.first, low)
        if low == 0 and high >= len(self._rows):
            return self
        return RowChunk(
            self.first + low, self._rows[low:high], None if self._lines is None else self._lines[low:high]
        )

    def enumerate_rows(self) -> Iterator[tuple[int, Row]]:
        """Yield each row with the line at which it begins, or its number from 1 if a format has no lines."""
        numbers = self._lines or range(self.first + 1, self.first + len(self._rows) + 1)
        return zip(numbers, self._rows, strict=True)

    def map(self, convert: Callable[[dict[str, Any]], Row]) -> RowChunk:
        """Return the rows, each converted or refused for what is no canonical value."""
        return RowChunk(self.first, [_convert(row, convert) for row in self._rows], self._lines)

    def select(
        self,
        where: Predicate,
        make: MakeRecord,
        refused: Refused,
        needed: frozenset[str] | None = None,
    ) -> Iterator[Record]:
        """Yield the records of the rows that match, in order."""
        everything = where == TRUE
        for number, row in enumerate(self._rows, self.first):
            try:
                record = make(number, row)
            except InvalidRecordError as error:
                refused(error)
                continue
            if everything or matches(where, record):
                yield record

    def count(self, where: Predicate, make: MakeRecord, refused: Refused) -> int:
        """Return how many rows match."""
        return sum(1 for _ in self.select(where, make, refused))


def _convert(row: Row, convert: Callable[[dict[str, Any]], Row]) -> Row:
    if isinstance(row, Refusal):
        return row
    try:
        return convert(row)
    except InvalidRecordError as error:
        return Refusal(str(error), path=error.path, row=row)
