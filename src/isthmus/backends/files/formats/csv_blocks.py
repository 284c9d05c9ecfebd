"""Blocks of CSV parsed by Arrow: many times as fast, and to the letter the same cells.

A block that has a stray quote, a bad byte, a row of another width, a blank line or a cell of several lines is
left to `delimited`.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from isthmus._core.registry import import_driver
from isthmus.backends.files.config import Kind
from isthmus.backends.files.formats.arrow_columns import Columns, FlatColumn, NotCompiledError
from isthmus.backends.files.formats.arrow_library import (
    arrow,
    compute,
    make_number,
    null_scalar,
    text_array,
    text_scalar,
)
from isthmus.backends.files.formats.column_kinds import Found, convert_cells, convert_forced, find_kind
from isthmus.backends.files.formats.csv_json import EncodedRows, encode_cells
from isthmus.errors import MissingExtraError

_EXACT = 2**53
_QUOTE, _NEWLINE, _RETURN = b'"\n\r'
# Integers of up to 18 digits, and decimals of which the shortest form is the same digits.
_PLAIN = r"^(?:0|-?[1-9][0-9]{0,17}|-?(?:0|[1-9][0-9]*)\.(?:[0-9]*[1-9]|0))$"
_TINY = r"^(?:-?0\.0000|-0\.0$)"
_LONG = r"^.{17}"


def is_available() -> bool:
    """Return whether pyarrow is installed."""
    try:
        arrow()
    except MissingExtraError:
        return False
    return True


def parse_block(block: bytes, headings: Sequence[str], delimiter: str) -> Any:
    """Return the cells of a block as a batch of text columns; None if it is to be read row by row."""
    if b"\0" in block or block.count(b"\r") != block.count(b"\r\n"):
        return None
    if block.startswith(codecs.BOM_UTF8):  # Arrow drops it, and it is the first character of a cell
        return None
    if b'"' in block and not _is_well_quoted(block, delimiter):
        return None
    pa = arrow()
    reader = _csv()
    try:
        table = reader.read_csv(
            pa.BufferReader(block),
            reader.ReadOptions(column_names=list(headings), block_size=len(block) + 1, use_threads=False),
            reader.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            reader.ConvertOptions(
                column_types=dict.fromkeys(headings, pa.string()), strings_can_be_null=False, check_utf8=True
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != block.count(b"\n") + (not block.endswith(b"\n")):
        return None  # blank lines, or cells of several lines: each row's line has to be known
    return (
        table.combine_chunks().to_batches()[0]
        if table.num_rows
        else pa.record_batch([pa.nulls(0, pa.string()) for _ in headings], names=list(headings))
    )


def _is_well_quoted(block: bytes, delimiter: str) -> bool:
    """Return whether every quote begins a cell, ends it, or is one of two that stand for one."""
    if len(delimiter.encode()) > 1:
        return False
    numpy: Any = import_driver("numpy", extra="files")
    data = numpy.frombuffer(b"\n" + block + b"\n", dtype=numpy.uint8)
    quotes = numpy.flatnonzero(data == _QUOTE)
    if len(quotes) % 2:
        return False
    first, last = quotes[::2], quotes[1::2]
    before, after = data[first - 1], data[last + 1]
    doubled = numpy.zeros(len(first) + 1, dtype=bool)
    doubled[1:-1] = first[1:] == last[:-1] + 1
    mark = ord(delimiter)
    opens = (before == mark) | (before == _NEWLINE) | doubled[:-1]
    closes = (after == mark) | (after == _NEWLINE) | (after == _RETURN) | doubled[1:]
    return bool(opens.all() and closes.all())


def _csv() -> Any:
    return import_driver("pyarrow.csv", extra="files")


def find_column_kind(array: Any, null: frozenset[str]) -> Found:
    """Return the type of the filled cells of a column, as `find_kind` does."""
    pc = compute()
    empty = pc.equal(array, text_scalar(""))
    if null:
        empty = pc.or_(empty, pc.is_in(array, value_set=text_array(sorted(null))))
    filled = array.filter(pc.invert(empty))
    if len(filled) == 0:
        return "empty"
    first = find_kind([filled[0].as_py()])
    if first == "text":
        return "text"
    if first == "bool":
        bools = pc.is_in(filled, value_set=text_array(["true", "false"]))
        return "bool" if pc.all(bools).as_py() else "text"
    return "number" if _are_plain_numbers(filled) else find_kind(filled.to_pylist())


def _are_plain_numbers(filled: Any) -> bool:
    """Return whether all cells are numbers that are written as JSON writes them."""
    pa, pc = arrow(), compute()
    try:  # values that come back to the letter, at a part of the cost of the patterns
        if not pc.any(pc.match_substring(filled, ".")).as_py():
            if pc.all(pc.equal(filled.cast(pa.int64()).cast(pa.string()), filled)).as_py():
                return True
        else:
            filled = filled.filter(pc.invert(_is_shortest_decimal(filled)))
    except pa.ArrowInvalid:
        return False
    if len(filled) == 0:
        return True
    decimal = pc.match_substring(filled, ".")
    plain = pc.and_(
        pc.match_substring_regex(filled, _PLAIN),
        pc.or_(pc.invert(decimal), _is_short_decimal(filled)),
    )
    return bool(pc.all(plain).as_py())


def _is_shortest_decimal(filled: Any) -> Any:
    """Return which cells are written as Arrow writes their floats where it uses no exponent."""
    pa, pc = arrow(), compute()
    numbers = filled.cast(pa.float64())
    size = pc.abs(numbers)
    inside = pc.and_(pc.greater_equal(size, make_number(1e-4)), pc.less(size, make_number(1e15)))
    return pc.and_(inside, pc.equal(numbers.cast(pa.string()), filled))


def _is_short_decimal(filled: Any) -> Any:
    """Return which decimals are written as their digits: few of them, and none next to zero."""
    pc = compute()
    short = pc.invert(pc.match_substring_regex(filled, _LONG))
    return pc.and_(short, pc.invert(pc.match_substring_regex(filled, _TINY)))


class CellDecoding(NamedTuple):
    """Columns of cells as values of the types that were found or set."""

    kinds: Mapping[str, Found]
    forced: Mapping[str, Kind]
    null: frozenset[str]

    def columns(self, batch: Any, names: frozenset[str]) -> Columns:
        """Return the columns for masks."""
        return _CellColumns(batch, names, self)

    def values(self, array: Any, name: str) -> Sequence[Any]:
        """Return the values of a column."""
        cells = array.to_pylist()
        if name in self.forced:
            return convert_forced(cells, self.forced[name], self.null)
        return convert_cells(cells, self.kinds.get(name, "text"), self.null)

    def describe(self, array: Any) -> Any:
        """Return the only cell of an array."""
        return array[0].as_py()

    def encode(self, batch: Any, fields: frozenset[str] | None = None) -> EncodedRows | None:
        """Return the rows as JSON, cut to some fields; None if the cells of one need another look."""
        if not self.forced.keys().isdisjoint(batch.schema.names):
            return None
        if fields is not None:
            batch = batch.select([name for name in batch.schema.names if name in fields])
        names: list[str] = batch.schema.names
        columns = []
        for index, name in enumerate(names):
            kind = self.kinds.get(name, "text")
            encoded = encode_cells(batch.column(index), kind, self.null, _are_plain_numbers)
            if encoded is None:
                return None
            columns.append(encoded)
        if not columns:
            return None
        return EncodedRows(names, [cells for cells, _ in columns], [texts for _, texts in columns])

    def needs_values(self, name: str) -> bool:
        """Return whether a setting gives the column a type, whose cells may be refused."""
        return name in self.forced


class _CellColumns(Columns):
    def __init__(self, batch: Any, names: frozenset[str], decoding: CellDecoding) -> None:
        super().__init__(batch, names)
        self._decoding = decoding

    def find_integers(self, name: str) -> Any:
        """Return the mask of the cells that are not written as a decimal; None if all are."""
        whole = compute().invert(compute().match_substring(self.batch.column(name), "."))
        return whole if compute().any(whole).as_py() else None

    def _resolve(self, name: str) -> FlatColumn:
        pa, pc = arrow(), compute()
        array = self.batch.column(name)
        kind = self._decoding.kinds.get(name, "text")
        if self._decoding.null:
            unfilled = pc.is_in(array, value_set=text_array(sorted(self._decoding.null)))
            array = pc.if_else(unfilled, null_scalar(), array)
        if kind in ("text", "empty"):
            return FlatColumn("text", array)
        filled = pc.if_else(pc.equal(array, text_scalar("")), null_scalar(), array)
        if kind == "bool":
            return FlatColumn("bool", pc.equal(filled, text_scalar("true")))
        try:
            return FlatColumn("number", filled.cast(pa.int64()))
        except pa.ArrowInvalid:
            numbers = filled.cast(pa.float64())
            bounds = pc.min_max(pc.abs(numbers)).as_py()
            if bounds["max"] is not None and bounds["max"] >= _EXACT:
                raise NotCompiledError from None  # an integer among them may not be a float
            return FlatColumn("number", numbers)
