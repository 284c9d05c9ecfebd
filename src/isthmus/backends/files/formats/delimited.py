"""CSV and TSV: a bad quote, a bad byte or a wrong number of cells refuses its row, and no other."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from isthmus._values import check_text
from isthmus.backends.files.config import Kind
from isthmus.backends.files.formats import csv_blocks
from isthmus.backends.files.formats.arrow_chunk import ArrowChunk
from isthmus.backends.files.formats.blocks import BLOCK, MAX_ROW, line_blocks
from isthmus.backends.files.formats.column_kinds import (
    Found,
    KindFinder,
    Unreadable,
    convert_cells,
    convert_forced,
)
from isthmus.backends.files.formats.dialect import Checkpoint, Dialect
from isthmus.backends.files.formats.encoding import is_wide
from isthmus.backends.files.rows import Chunk, Refusal, Row, RowChunk
from isthmus.errors import InvalidRecordError

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 20
_CHUNK_ROWS, _CHUNK_BYTES = 20_000, 4 * BLOCK


class HeadingsError(Exception):
    """The headings of a file cannot name its columns."""


class CsvLayout(NamedTuple):
    """How one file is laid out, as found or set."""

    delimiter: str
    encoding: str
    newline: bytes
    headings: tuple[str, ...]
    start: Checkpoint
    """Where the first row begins."""

    @property
    def wide(self) -> bool:
        """Whether a character is several bytes in which that of a line break may occur."""
        return is_wide(self.encoding)


def find_layout(stream: BinaryIO, encoding: str, dialect: Dialect, *, tabs: bool) -> CsvLayout:
    """Return the layout of a file, from its first rows; `stream` is at its beginning, transcoded.

    Raises `HeadingsError` for equal headings.
    """
    head = stream.read(BLOCK)
    mark = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    newline = b"\r" if b"\r" in head and b"\n" not in head else b"\n"
    text = line_blocks(io.BytesIO(head[mark:]), newline)
    source = _Source(text, "utf-8" if is_wide(encoding) else encoding, 1)
    delimiter = dialect.delimiter or ("\t" if tabs else _find_delimiter(source))
    reader = csv.reader(source.lines(1), delimiter=delimiter, strict=True)
    try:
        first = next((cells for cells in reader if cells), [])
    except csv.Error as error:
        raise HeadingsError(f"the headings cannot be read: {error}") from None
    if dialect.header is True:
        headings = tuple(first)
        lines = [text for line, text in source.text_lines() if line <= reader.line_num]
        width = len("".join(lines).encode(source.encoding, "surrogateescape"))
        start = Checkpoint(0, mark + width, reader.line_num + 1)
    else:
        names = (f"column{index}" for index in range(1, len(first) + 1))
        headings = dialect.header if isinstance(dialect.header, tuple) else tuple(names)
        start = Checkpoint(0, mark, 1)
    _check_headings(headings)
    return CsvLayout(delimiter, encoding, newline, headings, start)


def _check_headings(headings: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(headings).items() if count > 1]
    if repeated:
        raise HeadingsError(
            f"several columns have the heading {', '.join(map(repr, repeated[:5]))};"
            " rename them, or set header="
        )
    for name in headings:
        try:
            check_text(name, "a heading")
        except InvalidRecordError as error:
            raise HeadingsError(str(error)) from None


def _find_delimiter(source: _Source) -> str:
    """Return the delimiter that gives the first rows most cells, the same number in each; else a comma."""
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        rows = csv.reader(source.lines(1), delimiter=delimiter)
        widths = []
        try:
            for cells in rows:
                if cells:
                    widths.append(len(cells))
                if len(widths) == _SAMPLE_ROWS:
                    break
        except csv.Error:
            continue
        agreeing = sum(width == widths[0] for width in widths) if widths else 0
        if widths and widths[0] > most and agreeing * 4 >= len(widths) * 3:
            best, most = delimiter, widths[0]
    return best


class _RowTooLongError(Exception):
    """A row goes on for more bytes than a row may have."""


class _Source:
    """Decoded lines of a file, kept while a row that began in them may have to be read again."""

    def __init__(self, blocks: Iterator[tuple[bytes | None, int]], encoding: str, line: int) -> None:
        self._blocks = blocks
        self.encoding = encoding
        self._kept: list[tuple[int, list[str], int]] = []
        self.next_line = line
        """The number of the line after those loaded."""
        self.size = 0
        """The bytes of the blocks loaded."""
        self.row_line = line
        """The line at which the row that is being read begins."""
        self.needs_care = False
        """Whether there was a bad byte or U+0000 since this was reset."""

    def _load(self) -> list[str] | None:
        self.forget(self.row_line)
        if sum(size for _, _, size in self._kept) > MAX_ROW:
            raise _RowTooLongError
        block, size = next(self._blocks, (b"", 0))
        if size == 0:
            return None
        self.size += size
        if block is None:  # one line above the limit: its row is refused for its number of cells
            lines = ['"']
            self.needs_care = True
        else:
            try:
                text = block.decode(self.encoding)
            except UnicodeDecodeError:
                text = block.decode(self.encoding, "surrogateescape")
                self.needs_care = True
            self.needs_care = self.needs_care or "\0" in text
            lines = list(io.StringIO(text, newline=""))
        self._kept.append((self.next_line, lines, size))
        self.next_line += len(lines)
        return lines

    def text_lines(self) -> Iterator[tuple[int, str]]:
        """Yield the kept lines with their numbers."""
        for first, lines, _ in self._kept:
            yield from enumerate(lines, first)

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines from a kept one on."""
        for first, lines, _ in list(self._kept):
            if first + len(lines) > start:
                yield from lines[max(start - first, 0) :]
        while (loaded := self._load()) is not None:
            yield from loaded

    def forget(self, before: int) -> None:
        """Let go of the blocks that end before a line."""
        self._kept = [kept for kept in self._kept if kept[0] + len(kept[1]) > before]


def _read_cells(
    blocks: Iterator[tuple[bytes | None, int]], layout: CsvLayout, start: Checkpoint
) -> Iterator[tuple[list[list[str] | Refusal], list[int], bool, Checkpoint | None]]:
    """Yield rows as cells in chunks, with their lines, whether texts need care, and where the next is."""
    if csv.field_size_limit() < MAX_ROW:
        csv.field_size_limit(MAX_ROW)  # a limit of the whole process; only ever raised
    encoding = "utf-8" if layout.wide else layout.encoding
    source = _Source(blocks, encoding, start.line)
    before = start.line - 1
    reader = csv.reader(source.lines(start.line), delimiter=layout.delimiter, strict=True)
    width, row, taken = len(layout.headings), start.row, 0
    items: list[list[str] | Refusal] = []
    numbers: list[int] = []
    while True:
        line = source.row_line = before + reader.line_num + 1
        try:
            cells = next(reader, None)
        except (csv.Error, _RowTooLongError) as error:
            reason = str(error) or f"the row is longer than {MAX_ROW >> 20} MB"
            items.append(Refusal(f"not CSV: {reason}", line, row=next(source.lines(line), None)))
            numbers.append(line)
            # A stray quote took lines that do not belong to its row: they are read again.
            before = line
            reader = csv.reader(source.lines(line + 1), delimiter=layout.delimiter, strict=True)
            continue
        if cells is None:
            break
        if len(cells) == width:
            items.append(cells)
            numbers.append(line)
        elif cells:
            items.append(Refusal(f"{len(cells)} cells under {width} headings", line, row=cells))
            numbers.append(line)
        end = before + reader.line_num + 1
        if end >= source.next_line or len(items) >= _CHUNK_ROWS or source.size - taken > _CHUNK_BYTES:
            row += len(items)
            whole = end == source.next_line
            yield (
                items,
                numbers,
                source.needs_care,
                Checkpoint(row, start.offset + source.size, end) if whole else None,
            )
            items, numbers = [], []
            taken = source.size
            if whole:
                source.needs_care = False
    if items:
        yield items, numbers, source.needs_care, None


class _Cells(NamedTuple):
    """Rows as cells: those of a block as Arrow parsed them, or one by one."""

    row: int
    batch: Any
    """A batch of text columns; None where rows were read one by one."""
    items: list[list[str] | Refusal]
    lines: list[int]
    """The line of each row; of a batch, which has a row on each line, the first."""
    needs_care: bool
    following: Checkpoint | None
    """Where the next rows begin, if that is known."""

    def __len__(self) -> int:
        return len(self.items) if self.batch is None else int(self.batch.num_rows)


def _read_blocks(stream: BinaryIO, layout: CsvLayout, start: Checkpoint) -> Iterator[_Cells]:
    """Yield rows block by block: by Arrow where it reads the same, else one by one."""
    blocks = line_blocks(stream, layout.newline)
    encoding = codecs.lookup("utf-8" if layout.wide else layout.encoding).name
    if encoding not in ("utf-8", "ascii") or layout.newline != b"\n" or not csv_blocks.is_available():
        for items, lines, needs_care, following in _read_cells(blocks, layout, start):
            yield _Cells(start.row, None, items, lines, needs_care, following)
            start = start._replace(row=start.row + len(items))
        return
    place = start
    for block, size in blocks:
        batch = None if block is None else csv_blocks.parse_block(block, layout.headings, layout.delimiter)
        if block is not None and batch is not None:
            row, line = place.row, place.line
            place = Checkpoint(row + batch.num_rows, place.offset + size, line + batch.num_rows)
            yield _Cells(row, batch, [], [line], False, place)
            continue
        # One by one, until a row ends where a block does.
        row = place.row
        parts = _read_cells(itertools.chain([(block, size)], blocks), layout, place)
        for items, lines, needs_care, following in parts:
            yield _Cells(row, None, items, lines, needs_care, following)
            row += len(items)
            if following is not None:
                place = following
                break


def read_delimited(
    stream: BinaryIO,
    layout: CsvLayout,
    kinds: Mapping[str, Found],
    dialect: Dialect,
    start: Checkpoint,
) -> Iterator[tuple[Chunk, Checkpoint | None]]:
    """Yield rows chunk by chunk, with where the next chunk begins if that is known."""
    forced: Mapping[str, Kind] = {} if dialect.all_text else dialect.forced
    decoding = csv_blocks.CellDecoding(kinds, forced, dialect.null)
    names = frozenset(layout.headings)
    for part in _read_blocks(stream, layout, start):
        if part.batch is not None:
            yield ArrowChunk(part.row, part.batch, names, decoding, part.lines[0]), part.following
            continue
        rows = _convert(part.items, part.lines, layout.headings, kinds, dialect)
        if part.needs_care:
            rows = [_check_row(one, line) for one, line in zip(rows, part.lines, strict=True)]
        yield RowChunk(part.row, rows, part.lines), part.following


def find_kinds(
    stream: BinaryIO, layout: CsvLayout, dialect: Dialect
) -> Iterator[tuple[dict[str, Found], Checkpoint | None]]:
    """Read a file for the types of its columns; yield them so far, and where the next rows begin."""
    finder = KindFinder(layout.headings, dialect.null)
    for part in _read_blocks(stream, layout, layout.start):
        if part.batch is not None:
            finder.add_batch(part.batch, csv_blocks.find_column_kind)
        else:
            finder.add(zip(*(cells for cells in part.items if type(cells) is list), strict=True))
        yield finder.kinds, part.following


def _convert(
    items: Sequence[list[str] | Refusal],
    lines: Sequence[int],
    headings: Sequence[str],
    kinds: Mapping[str, Found],
    dialect: Dialect,
) -> list[Row]:
    good = [cells for cells in items if type(cells) is list]
    forced: Mapping[str, Kind] = {} if dialect.all_text else dialect.forced
    unreadable = False
    columns = []
    for name, cells in zip(headings, zip(*good, strict=True), strict=False):
        if name in forced:
            values: Sequence[object] = convert_forced(cells, forced[name], dialect.null)
            unreadable = unreadable or any(type(value) is Unreadable for value in values)
        else:
            values = convert_cells(cells, kinds.get(name, "text"), dialect.null)
        columns.append(values)
    made = [dict(zip(headings, values, strict=True)) for values in zip(*columns, strict=True)]
    if len(good) == len(items) and not unreadable:
        return list(made)
    pending = iter(made)
    rows: list[Row] = []
    for item, line in zip(items, lines, strict=True):
        if isinstance(item, Refusal):
            rows.append(item)
        else:
            row = next(pending)
            rows.append(_refuse_unreadable(row, line, item) if unreadable else row)
    return rows


def _refuse_unreadable(row: dict[str, Any], line: int, cells: list[str]) -> Row:
    for name, value in row.items():
        if type(value) is Unreadable:
            read = {
                name: cell if type(value) is Unreadable else value
                for (name, value), cell in zip(row.items(), cells, strict=True)
            }
            return Refusal(f"column {name!r}: {value}", line, f"data.{name}", read)
    return row


def _check_row(row: Row, line: int) -> Row:
    """Return the row, or its refusal for a bad byte or U+0000."""
    if isinstance(row, Refusal):
        return row
    for name, value in row.items():
        if isinstance(value, str):
            try:
                check_text(value, f"column {name!r}")
            except InvalidRecordError as error:
                bad = any("\udc80" <= character <= "\udcff" for character in value)
                why = (
                    f"column {name!r}: a byte that is not of the file's encoding; set encoding="
                    if bad
                    else str(error)
                )
                return Refusal(why, line, f"data.{name}", row)
    return row
