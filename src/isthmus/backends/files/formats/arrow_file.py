"""Parquet and Arrow files: row groups and columns that a query does not need are not read."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from isthmus._core.registry import import_driver
from isthmus._path import Root
from isthmus._query.ast import And, Between, Equal, In, Leaf, Order, Ordered, Predicate
from isthmus._query.evaluate import leaf_test
from isthmus._values import JSON, check_text
from isthmus.backends.files.formats.arrow_chunk import ArrowChunk, TypedDecoding
from isthmus.backends.files.formats.arrow_library import arrow, compute, make_array, make_number
from isthmus.backends.files.formats.arrow_values import Reading, below_micros, column_values
from isthmus.backends.files.formats.column_kinds import Unreadable
from isthmus.backends.files.formats.delimited import HeadingsError
from isthmus.backends.files.formats.dialect import Dialect
from isthmus.backends.files.formats.parquet_footer import Footer, describe_footer
from isthmus.errors import InvalidRecordError

_BATCH_BYTES = 16 << 20
_MOST_ROWS, _FEWEST_ROWS = 131_072, 1_000
_BUFFER = 1 << 20
"""Bytes read at once of large parts of columns; others are read whole."""
_MAX_NANOS = (2**63 - 1) // 1_000
"""The most microseconds that 64 bits of nanoseconds hold."""
_FEW_COLUMNS = 3
"""So many columns are read faster without handing them to other threads."""


def describe_damage(error: Exception) -> str | None:
    """Return what is wrong with a file by an error of pyarrow, None if the error is about something else."""
    if isinstance(error, arrow().ArrowException | OSError | UnicodeError) and not isinstance(
        error, MemoryError
    ):
        return f"it cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return None


def read_footer(stream: BinaryIO) -> Footer:
    """Return the footer of a Parquet file, without reading rows."""
    return describe_footer(_open_parquet(stream, None))


def _open_parquet(stream: BinaryIO, metadata: Any, **options: Any) -> Any:
    parquet = import_driver("pyarrow.parquet", extra="files")
    return parquet.ParquetFile(
        stream, metadata=metadata, pre_buffer=False, page_checksum_verification=True, **options
    )


def marks_of(schema: Any) -> dict[str, dict[bytes, bytes]]:
    """Return the metadata of each column of a file that `isthmus dump` wrote."""
    return {field.name: field.metadata or {} for field in schema}


def read_parquet(
    stream: BinaryIO,
    known: Footer | None,
    dialect: Dialect,
    start: int,
    columns: frozenset[str] | None,
    where: Predicate,
) -> Iterator[tuple[ArrowChunk, Footer]]:
    """Yield the rows of the row groups that may match, from about a row on, with the file's footer.

    `columns` are the top-level ones to read, None for all.
    """
    plain = _open_parquet(stream, None if known is None else known.metadata)
    footer, schema = known or describe_footer(plain), plain.schema_arrow
    reading, names, as_text = _prepare(schema, dialect)
    decoding = TypedDecoding(reading, as_text)
    wanted = [name for name in schema.names if columns is None or name in columns]
    file = _open_parquet(
        stream,
        footer.metadata,
        read_dictionary=[name for name in wanted if name in footer.repetitive],
        buffer_size=_BUFFER if footer.has_large_parts else 0,
    )
    times = [name for name in wanted if name in footer.int96]
    coarser = times and _open_parquet(stream, footer.metadata, coerce_int96_timestamp_unit="us")
    threads = len(wanted) > _FEW_COLUMNS
    selected = None if columns is None else wanted
    for index, first in enumerate(footer.first_rows()):
        group = footer.metadata.row_group(index)
        if first + group.num_rows <= start or not _may_match(group, footer, schema, where, reading, as_text):
            continue
        size = _batch_rows(group)
        coarse = coarser.iter_batches(size, [index], columns=times) if coarser else None
        end = first + group.num_rows
        for batch in file.iter_batches(size, [index], columns=selected, use_threads=threads):
            _check_indices(batch)
            if coarse is not None:
                batch = _widen_times(batch, next(coarse), reading)
            yield ArrowChunk(first, batch, names, decoding), footer
            first += batch.num_rows
        if first != end:
            raise arrow().ArrowInvalid(f"row group {index} has {end - first} rows less than it should have")


def _check_indices(batch: Any) -> None:
    """Raise `ArrowInvalid` if a column's indices lead outside of its dictionary."""
    for column in batch.columns:
        if not arrow().types.is_dictionary(column.type):
            continue
        bounds = compute().min_max(column.indices).as_py()
        if bounds["min"] is not None and not 0 <= bounds["min"] <= bounds["max"] < len(column.dictionary):
            raise arrow().ArrowInvalid("an index leads outside of the dictionary of its column")


def _widen_times(batch: Any, coarse: Any, reading: Reading) -> Any:
    """Return a batch with times in microseconds where nanoseconds do not reach, and none has a fraction."""
    pa, pc = arrow(), compute()
    for name in coarse.schema.names:
        ticks, micros = batch.column(name).cast(pa.int64()), coarse.column(name).cast(pa.int64())
        within = pc.less_equal(pc.abs(micros), make_number(_MAX_NANOS))
        fractions = pc.and_(within, pc.not_equal(below_micros(ticks), make_number(0)))
        if pc.all(within).as_py() is not False or (pc.any(fractions).as_py() and not reading.round):
            continue
        index = batch.schema.get_field_index(name)
        batch = batch.set_column(index, name, coarse.column(name))
    return batch


def _batch_rows(group: Any) -> int:
    size = max(group.total_byte_size // max(group.num_rows, 1), 1)
    return int(max(_FEWEST_ROWS, min(_MOST_ROWS, _BATCH_BYTES // size)))


def _prepare(schema: Any, dialect: Dialect) -> tuple[Reading, frozenset[str], frozenset[str]]:
    """Return how values are read, the names of the columns, and those read as text.

    Raises `HeadingsError` for equal names, and for one that no record has.
    """
    repeated = [name for name, count in Counter(schema.names).items() if count > 1]
    if repeated:
        raise HeadingsError(f"several columns have the name {', '.join(map(repr, repeated[:5]))}")
    try:
        for name in schema.names:
            check_text(name, "the name of a column")
    except InvalidRecordError as error:
        raise HeadingsError(str(error)) from None
    if dialect.types == "text":
        as_text = frozenset(schema.names)
    else:
        as_text = frozenset(name for name, kind in dialect.forced.items() if kind == "text")
    return Reading(dialect.zone, dialect.round), frozenset(schema.names), as_text


def _may_match(
    group: Any,
    footer: Footer,
    schema: Any,
    where: Predicate,
    reading: Reading,
    as_text: frozenset[str],
) -> bool:
    """Return False if the statistics of a row group rule out every row."""
    if group.num_rows == 0:
        return False
    for term in where.terms if isinstance(where, And) else (where,):
        if isinstance(term, Ordered | Between | Equal | In):
            bounds = _bounds(group, footer, schema, term, reading, as_text)
            if bounds is not None and not _reaches(term, *bounds):
                return False
    return True


def _bounds(
    group: Any, footer: Footer, schema: Any, leaf: Leaf, reading: Reading, as_text: frozenset[str]
) -> tuple[JSON, JSON] | None:
    """Return the least and the greatest value of a leaf's column in a row group, None if unknown."""
    path = leaf.path
    if path.root is not Root.DATA or len(path.keys) != 1 or path.keys[0] in as_text:
        return None
    index = footer.indexes.get(path.keys[0])
    if index is None:
        return None
    types, kind = arrow().types, schema.field(path.keys[0]).type
    if not (
        (types.is_integer(kind) and not types.is_uint64(kind))
        or types.is_floating(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_date32(kind)
        or (types.is_timestamp(kind) and kind.unit in ("ms", "us"))
    ):
        return None
    found = group.column(index).statistics
    if found is None or not found.has_min_max:
        return None
    try:
        ends = [end.isoformat() if isinstance(end, dt.date) else end for end in (found.min, found.max)]
        if not all(isinstance(end, int | float | str) for end in ends):
            return None
        # Python writes microseconds, which Arrow does not read as milliseconds.
        written = arrow().timestamp("us", kind.tz) if types.is_timestamp(kind) else kind
        low, high = column_values(make_array(ends, written).cast(kind), reading)
    except (ValueError, TypeError, OverflowError, arrow().ArrowException):
        return None
    return None if Unreadable in (type(low), type(high)) or low is None or high is None else (low, high)


def _reaches(leaf: Ordered | Between | Equal | In, low: Any, high: Any) -> bool:
    """Return whether a value from `low` to `high` may satisfy a leaf."""
    match leaf:
        case Equal(path, operand):
            return leaf_test(Between(path, low, high))(operand)
        case In(path, operands):
            return any(map(leaf_test(Between(path, low, high)), operands))
        case Ordered(_, op, _):
            return leaf_test(leaf)(high if op in (Order.GT, Order.GE) else low)
        case Between(path, first, last):
            return leaf_test(Ordered(path, Order.GE, first))(high) and leaf_test(
                Ordered(path, Order.LE, last)
            )(low)


def read_arrow(stream: BinaryIO, dialect: Dialect, columns: frozenset[str] | None) -> Iterator[ArrowChunk]:
    """Yield the batches of an Arrow file or stream."""
    pa = arrow()
    import_driver("pyarrow.ipc", extra="files")
    if stream.read(6) == b"ARROW1":
        stream.seek(0)
        file = pa.ipc.open_file(stream)
        batches: Iterator[Any] = (file.get_batch(index) for index in range(file.num_record_batches))
    else:
        stream.seek(0)
        file = pa.ipc.open_stream(stream)
        batches = iter(file)
    reading, names, as_text = _prepare(file.schema, dialect)
    decoding = TypedDecoding(reading, as_text)
    first = 0
    for batch in batches:
        _check_buffers(batch)
        if columns is not None:
            batch = batch.select([name for name in batch.schema.names if name in columns])
        for start in range(0, batch.num_rows, _MOST_ROWS):
            part = batch.slice(start, _MOST_ROWS)
            yield ArrowChunk(first, part, names, decoding)
            first += part.num_rows


def _check_buffers(batch: Any) -> None:
    """Raise `ArrowInvalid` if positions in a batch lead outside it: to read there may end the process."""
    pa = arrow()
    for column in batch.columns:
        if pa.types.is_string(column.type):  # texts that are not UTF-8 refuse their own rows
            column = column.view(pa.binary())
        column.validate(full=True)
