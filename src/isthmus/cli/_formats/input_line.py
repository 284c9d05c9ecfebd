"""Lines of the files of `load` and batches of them, apart from the reader, which takes time to import."""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, overload

from isthmus import Record
from isthmus._core.mutation_batch import EncodedRecords


class InputFormat(enum.StrEnum):
    """The formats of files that are loaded."""

    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    ARROW = "arrow"


class InputLine(NamedTuple):
    """A record of a file, or the reason why its line has none; without lines, the number of its row."""

    file: str
    number: int
    record: Record | None = None
    error: str | None = None
    row: Any = None
    """What was read of a line without a record: its text, its cells, or its values by column."""


class EncodedLines(Sequence[InputLine]):
    """Lines whose records are columns, each line's object made on access; `places` say where parts begin.

    A place is the index of a line, its file and its number there; the next ones follow it.
    """

    __slots__ = ("_places", "records")

    def __init__(self, records: EncodedRecords, places: list[tuple[int, str, int]]) -> None:
        self.records = records
        self._places = places

    @classmethod
    def join(cls, parts: Sequence[EncodedLines]) -> EncodedLines:
        """Return the lines of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        ids: list[str] = []
        texts: list[str] = []
        places = []
        for part in parts:
            places += [(len(ids) + start, file, number) for start, file, number in part._places]
            ids += part.records.ids
            texts += part.records.texts
        return cls(EncodedRecords(ids, texts), places)

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> InputLine: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[InputLine]: ...
    def __getitem__(self, index: int | slice) -> InputLine | Sequence[InputLine]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        start, file, number = self._places[bisect_right(self._places, index, key=itemgetter(0)) - 1]
        return InputLine(file, number + index - start, self.records[index])

    def split(self, size: int) -> tuple[EncodedLines, EncodedLines]:
        """Return the first lines and the rest; of lines that follow each other in one file."""
        [(_, file, number)] = self._places
        head, tail = self.records[:size], self.records[size:]
        return EncodedLines(head, [(0, file, number)]), EncodedLines(tail, [(0, file, number + size)])


class LineBatches:
    """Cuts lines into batches of `size`, whatever the parts in which they come."""

    def __init__(self, lines: Iterator[InputLine | EncodedLines], size: int) -> None:
        self._lines = lines
        self._size = size
        self._rest: EncodedLines | None = None

    def read(self) -> Sequence[InputLine]:
        """Return the next lines, as columns if all are; none at the end."""
        parts: list[InputLine | EncodedLines] = []
        room = self._size
        while room:
            part, self._rest = self._rest or next(self._lines, None), None
            if part is None:
                break
            if isinstance(part, InputLine):
                room -= 1
            else:
                if len(part) > room:
                    part, self._rest = part.split(room)
                room -= len(part)
            parts.append(part)
        encoded = [part for part in parts if isinstance(part, EncodedLines)]
        if encoded and len(encoded) == len(parts):
            return EncodedLines.join(encoded)
        lines: list[InputLine] = []
        for part in parts:
            lines += [part] if isinstance(part, InputLine) else part
        return lines
