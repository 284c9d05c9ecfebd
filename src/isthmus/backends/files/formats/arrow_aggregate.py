"""Groups of the rows of a batch, computed on whole columns: exact, and merged as any other states are.

Sums are exact as `_query.aggregate` has them: numbers are cut into parts of few bits, whose sums floats hold
without rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from isthmus._core.registry import import_driver
from isthmus._path import Path, Root
from isthmus._query.aggregate import Groups, State
from isthmus._query.ast import Function, Measure
from isthmus._query.bucket import Bucket, GroupKey
from isthmus._query.order import NONE, sort_value, type_rank
from isthmus._values import JSON
from isthmus.backends.files.formats.arrow_columns import Columns, FlatColumn, NotCompiledError
from isthmus.backends.files.formats.arrow_library import arrow, compute, integer_array, make_number, to_numpy
from isthmus.backends.files.formats.arrow_values import Reading, column_values

_EXACT = 2.0**53
_MANTISSA, _LOW = 53, 27
_PART = 22
"""Bits of the parts of an integer."""
_MAX_ROWS = 1 << 20
_MAX_CODES = 1 << 40


def aggregate_batch(
    columns: Columns, numbers: Any, measures: Sequence[Measure], by: Sequence[GroupKey], groups: Groups
) -> None:
    """Add the rows of a batch with these numbers (None for all) to the groups.

    Raises `NotCompiledError`, before anything was added, for columns whose values have to be looked at one
    by one: lists and objects, and those with a value that has no canonical form.
    """
    total = columns.batch.num_rows if numbers is None else len(numbers)
    if total > _MAX_ROWS:
        raise NotCompiledError
    if total == 0:
        return
    try:
        codes, keys = _group_rows(columns, numbers, by, total)
        states = [_states(measure, columns, numbers, codes, len(keys)) for measure in measures]
    except arrow().ArrowNotImplementedError:
        raise NotCompiledError from None
    for key, *own in zip(keys, *states, strict=True):
        groups.add(key, own)


def _column(columns: Columns, path: Path, numbers: Any) -> FlatColumn | None:
    """Return a column with a value for each row; None if no row has one."""
    if path.root is not Root.DATA or len(path.keys) != 1:
        raise NotCompiledError
    column = columns.flat_column(path)
    if column is None:
        if columns.has_values(path.keys[0]):
            raise NotCompiledError
        return None
    if column.present is not None:
        raise NotCompiledError
    if column.codes is not None:
        codes = column.codes if numbers is None else column.codes.take(numbers)
        return column._replace(codes=codes)
    return column if numbers is None else column._replace(array=column.array.take(numbers))


def _values(column: FlatColumn, array: Any) -> list[JSON]:
    """Return the canonical values of some of a column's cells."""
    if column.scale is not None and column.scale.form != "decimal":
        scale = column.scale
        return [None if tick is None else scale.value(tick) for tick in array.to_pylist()]
    return list(column_values(array, Reading()))


# Groups


def _group_rows(
    columns: Columns, numbers: Any, by: Sequence[GroupKey], total: int
) -> tuple[Any, list[tuple[Any, ...]]]:
    """Return the number of each row's group, and the key of each group; several may have one key."""
    numpy: Any = import_driver("numpy", extra="files")
    codes = numpy.zeros(total, dtype=numpy.int64)
    keys: list[tuple[Any, ...]] = [()]
    for key in by:
        path = key.path if isinstance(key, Bucket) else key
        column = _column(columns, path, numbers)
        if column is None:
            values: list[JSON] = []
            own = numpy.full(total, -1)
        else:
            if _find_integers(columns, path, column) is not None:
                raise NotCompiledError  # 1 and 1.0 are one group, named by its first value
            values, own = _encode(column)
        parts = [key.of(value) for value in values] if isinstance(key, Bucket) else values
        if len(keys) * (len(parts) + 1) > _MAX_CODES:
            raise NotCompiledError
        found, codes = numpy.unique(codes * (len(parts) + 1) + own + 1, return_inverse=True)
        keys = [
            (*keys[one // (len(parts) + 1)], [None, *parts][one % (len(parts) + 1)]) for one in found.tolist()
        ]
    return codes, keys


def _encode(column: FlatColumn) -> tuple[list[JSON], Any]:
    """Return the distinct values of a column, and for each row the index of its own, -1 for none."""
    pc = compute()
    array, codes = column.array, column.codes
    if codes is None:
        encoded = array.dictionary_encode()
        array, codes = encoded.dictionary, encoded.indices
    own = codes.cast(arrow().int64())
    own = pc.fill_null(own, make_number(-1)) if own.null_count else own
    return _values(column, array), to_numpy(own, "int64")


# Measures


def _states(measure: Measure, columns: Columns, numbers: Any, codes: Any, count: int) -> list[State]:
    """Return the state of a measure for each group."""
    numpy: Any = import_driver("numpy", extra="files")
    function = measure.function
    if measure.path is None:
        return numpy.bincount(codes, minlength=count).tolist()  # type: ignore[no-any-return]
    column = _column(columns, measure.path, numbers)
    if column is None:
        return [_empty(function) for _ in range(count)]
    if column.codes is not None:
        column = column._replace(array=column.array.take(column.codes), codes=None)
    array, whole = column.array, _find_integers(columns, measure.path, column)
    if whole is not None:
        if function not in (Function.COUNT, Function.SUM, Function.AVG):
            raise NotCompiledError
        whole = to_numpy(whole if numbers is None else whole.take(numbers), "int8").astype(bool)
    if array.null_count:
        there = to_numpy(array.is_valid(), "int8").astype(bool)
        array, codes = array.drop_null(), codes[there]
        whole = None if whole is None else whole[there]
    match function:
        case Function.COUNT:
            return numpy.bincount(codes, minlength=count).tolist()  # type: ignore[no-any-return]
        case Function.SUM | Function.AVG:
            if column.kind != "number":
                return [_empty(function) for _ in range(count)]
            many = numpy.bincount(codes, minlength=count).tolist()
            sums = _sums(column, array, codes, count)
            if whole is not None:
                floats = numpy.bincount(codes[~whole], minlength=count).tolist()
                sums = [one if some else int(one) for one, some in zip(sums, floats, strict=True)]
            return list(zip(sums, many, strict=True))
        case Function.MIN | Function.MAX:
            return _ends(column, array, codes, count, largest=function is Function.MAX)
        case _:
            return _collections(column, array, codes, count, function)


def _find_integers(columns: Columns, path: Path, column: FlatColumn) -> Any:
    """Return the mask of the integers of a column that has floats, too; None for any other column."""
    types = arrow().types
    return columns.find_integers(path.keys[0]) if types.is_floating(column.array.type) else None


def _empty(function: Function) -> State:
    match function:
        case Function.COUNT:
            return 0
        case Function.SUM | Function.AVG:
            return (0, 0)
        case Function.MIN | Function.MAX:
            return (NONE, None)
        case Function.COUNT_DISTINCT:
            return set()
        case Function.PERCENTILE:
            return {}


def _ends(column: FlatColumn, array: Any, codes: Any, count: int, *, largest: bool) -> list[State]:
    """Return the least or the greatest value of each group as a sort value."""
    pa = arrow()
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    table = pa.Table.from_arrays([integer_array(codes), array], names=["g", "v"])
    found = table.group_by("g", use_threads=False).aggregate([("v", "max" if largest else "min")])
    cells = found.column(f"v_{'max' if largest else 'min'}").combine_chunks()
    values = _values(column, cells)
    if column.kind == "bool":
        values = list(map(bool, values))
    states: list[State] = [_empty(Function.MIN) for _ in range(count)]
    for group, value in zip(found.column("g").to_pylist(), values, strict=True):
        states[group] = sort_value([value], largest=largest)
    return states


def _collections(column: FlatColumn, array: Any, codes: Any, count: int, function: Function) -> list[State]:
    """Return for each group its distinct values, or of numbers how often each is there."""
    pa = arrow()
    states: list[State] = [_empty(function) for _ in range(count)]
    if function is Function.PERCENTILE and column.kind != "number":
        return states
    table = pa.Table.from_arrays([integer_array(codes), array], names=["g", "v"])
    found = table.group_by(["g", "v"], use_threads=False).aggregate([([], "count_all")])
    values = _values(column, found.column("v").combine_chunks())
    owners, times = found.column("g").to_pylist(), found.column("count_all").to_pylist()
    for group, value, many in zip(owners, values, times, strict=True):
        if function is Function.COUNT_DISTINCT:
            states[group].add(type_rank(value))
        else:
            states[group][value] = states[group].get(value, 0) + many
    return states


def _sums(column: FlatColumn, array: Any, codes: Any, count: int) -> list[int | Fraction]:
    """Return the exact sum of each group: an int of integers, a fraction of floats."""
    numpy: Any = import_driver("numpy", extra="files")
    if column.scale is None and arrow().types.is_integer(array.type):
        return _integer_sums(numpy, to_numpy(array, "int64"), codes, count)
    if column.scale is None:
        numbers = to_numpy(array, "float64")
        if len(numbers) and float(abs(numbers).max()) >= _EXACT:
            raise NotCompiledError  # some are integers in canonical form
        return _float_sums(numpy, numbers, codes, count)
    raise NotCompiledError


def _integer_sums(numpy: Any, numbers: Any, codes: Any, count: int) -> list[int | Fraction]:
    mask = (1 << _PART) - 1
    sums: list[int | Fraction] = [0] * count
    for shift in (0, _PART, 2 * _PART):
        part = numbers >> shift
        if shift < 2 * _PART:
            part &= mask
        for group, value in enumerate(numpy.bincount(codes, part, minlength=count).tolist()):
            sums[group] += int(value) << shift
    return sums


def _float_sums(numpy: Any, numbers: Any, codes: Any, count: int) -> list[int | Fraction]:
    fractions, exponents = numpy.frexp(numbers)
    whole = numpy.ldexp(fractions, _MANTISSA).astype("int64")
    scales, own = numpy.unique(exponents, return_inverse=True)
    cells, inverse = numpy.unique(codes * max(len(scales), 1) + own, return_inverse=True)
    high = numpy.bincount(inverse, whole >> _LOW).tolist()
    low = numpy.bincount(inverse, whole & ((1 << _LOW) - 1)).tolist()
    base = int(scales[0]) if len(scales) else 0
    totals: dict[int, int] = {}
    for cell, upper, lower in zip(cells.tolist(), high, low, strict=True):
        group, scale = divmod(cell, len(scales))
        value = (int(upper) << _LOW) + int(lower)
        totals[group] = totals.get(group, 0) + (value << (int(scales[scale]) - base))
    shift = base - _MANTISSA
    return [_to_fraction(totals[group], shift) if group in totals else 0 for group in range(count)]


def _to_fraction(total: int, shift: int) -> Fraction:
    return Fraction(total << shift) if shift >= 0 else Fraction(total, 1 << -shift)
