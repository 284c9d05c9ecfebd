"""Columns of Arrow as conditions see them: the type of the values, and which rows have one."""

from __future__ import annotations

from typing import Any, NamedTuple

from isthmus._path import Path, Root
from isthmus._values import INT_MAX
from isthmus.backends.files.formats import ticks
from isthmus.backends.files.formats.arrow_library import (
    all_true,
    arrow,
    compute,
    fill_false,
    make_array,
    make_number,
    make_scalar,
)
from isthmus.backends.files.formats.arrow_values import (
    UTC,
    Reading,
    below_micros,
    decode_dictionary,
    needs_care,
)


class NotCompiledError(Exception):
    """A condition that the evaluator has to decide."""


class FlatColumn(NamedTuple):
    """The values of a flat column, or its distinct values."""

    kind: str
    """The type of all values: `bool`, `number` or `text`."""
    array: Any
    """A row without a value is null, or not in `present`."""
    present: Any = None
    """The mask of the rows with a value; None if those are the valid ones."""
    codes: Any = None
    """For each row the index of its value in `array`; None if `array` has a value for each row."""
    scale: ticks.Scale | None = None
    """Which values the numbers in `array` stand for; None if they are values."""

    def mask_present(self) -> Any:
        """Return the mask of the rows with a value."""
        return self.array.is_valid() if self.present is None else self.present


class Columns:
    """The columns of a batch, as the masks take them."""

    def __init__(self, batch: Any, names: frozenset[str], reading: Reading | None = None) -> None:
        self.batch = batch
        self._names = names
        """The columns of the whole file: others have no value."""
        self._reading = reading or Reading()
        self._known: dict[str, FlatColumn | None] = {}

    def flat_column(self, path: Path) -> FlatColumn | None:
        """Return a column; None if it has no value.

        Raises `NotCompiledError` for a type that is not flat.
        """
        if path.root is not Root.DATA or not path.keys:
            raise NotCompiledError
        name = path.keys[0]
        if name not in self._names:
            return None
        if name not in self._known:
            self._known[name] = self._resolve(name)
        known = self._known[name]
        return None if len(path.keys) > 1 else known

    def has_values(self, name: str) -> bool:
        """Return whether a column has a value in some row, with or without a canonical form."""
        return name in self._names and not arrow().types.is_null(self.batch.column(name).type)

    def find_integers(self, name: str) -> Any:
        """Return the mask of the integers among floats; None if there are none."""
        return None

    def _resolve(self, name: str) -> FlatColumn | None:
        return read_column(self.batch.column(name), self._reading)


def read_column(array: Any, reading: Reading) -> FlatColumn | None:
    """Return a column of one of Arrow's types; None if no row has a value."""
    types, pc = arrow().types, compute()
    kind = array.type
    if types.is_dictionary(kind):
        return _dictionary(array, reading)
    if types.is_null(kind):
        return None
    if types.is_boolean(kind):
        return FlatColumn("bool", array)
    if types.is_uint64(kind):
        within = pc.less_equal(array, make_scalar(INT_MAX, kind))
        if all_true(within):
            return FlatColumn("number", array.cast(arrow().int64()))
        whole = pc.if_else(within, array, arrow().nulls(1, kind)[0])
        return FlatColumn("number", whole.cast(arrow().int64()), fill_false(within))
    if types.is_integer(kind):
        return FlatColumn("number", array)
    if types.is_float64(kind) or types.is_float32(kind):
        finite = pc.is_finite(array)
        return FlatColumn("number", array, None if all_true(finite) else fill_false(finite))
    if types.is_string_view(kind):
        array = array.cast(arrow().large_string())
        kind = array.type
    if (types.is_string(kind) or types.is_large_string(kind)) and not needs_care(array):
        return FlatColumn("text", array)
    return _to_ticks(array, reading)


def _dictionary(array: Any, reading: Reading) -> FlatColumn | None:
    """Return distinct values with the index of each row's; those of rows where they are not fewer."""
    if len(array.dictionary) > len(array):
        return read_column(decode_dictionary(array), reading)
    values = read_column(array.dictionary, reading)
    return None if values is None else values._replace(codes=array.indices)


def _to_ticks(array: Any, reading: Reading) -> FlatColumn | None:
    """Return times, dates and decimals as whole numbers; raises `NotCompiledError` for other types."""
    pa, kind = arrow(), array.type
    if pa.types.is_date32(kind):
        return _number_column(array.cast(pa.int32()), ticks.DATES)
    if pa.types.is_decimal128(kind) and 0 <= kind.scale <= kind.precision <= ticks.MAX_DIGITS:
        return FlatColumn("number", array, None, None, ticks.decimals(kind.precision, kind.scale))
    if not pa.types.is_timestamp(kind):
        raise NotCompiledError
    if kind.tz is None and reading.zone is None:
        return None
    if kind.tz is None and reading.zone not in UTC:
        raise NotCompiledError
    column = _number_column(array.cast(pa.int64()), ticks.instants(kind.unit))
    if kind.unit == "ns" and not reading.round:
        whole = compute().equal(below_micros(column.array), make_number(0))
        if not all_true(whole):
            whole = fill_false(whole)
            return column._replace(present=compute().and_(whole, column.mask_present()))
    return column


def _number_column(numbers: Any, scale: ticks.Scale) -> FlatColumn:
    pc = compute()
    found = pc.min_max(numbers).as_py()
    present = None
    if found["min"] is not None and (found["min"] < scale.low or found["max"] > scale.high):
        low, high = make_array([scale.low, scale.high], numbers.type)
        present = pc.and_(pc.greater_equal(numbers, low), pc.less_equal(numbers, high))
        present = fill_false(present)
    return FlatColumn(scale.kind, numbers, present, None, scale)
