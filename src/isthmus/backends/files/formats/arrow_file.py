"""Parquet and Arrow files: row groups and columns that a query does not need are not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from isthmus._core.registry import import_driver
from isthmus._path import Root
from isthmus._query.ast import And, Between, Equal, In, Leaf, Order, Ordered, Predicate
from isthmus._query.evaluate import leaf_test
from isthmus._values import JSON
from isthmus.backends.files.formats.arrow_chunk import ArrowChunk, TypedDecoding
from isthmus.backends.files.formats.arrow_values import Reading, arrow, column_values
from isthmus.backends.files.formats.column_kinds import Unreadable
from isthmus.backends.files.formats.delimited import HeadingsError
from isthmus.backends.files.formats.dialect import Dialect
from isthmus.backends.files.formats.parquet_footer import Footer, describe_footer

_BATCH_BYTES = 16 << 20
_MOST_ROWS, _FEWEST_ROWS = 131_072, 1_000
_BUFFER = 1 << 20
"""Bytes read at once of large parts of columns; others are read whole."""
_FEW_COLUMNS = 3
"""So many columns are read faster without handing them to other threads."""


def describe_damage(error: Exception) -> str | None:
    """Return what is wrong with a file by an error of pyarrow, None if the error is about something else."""
    if isinstance(error, arrow().ArrowException | OSError) and not isinstance(error, MemoryError):
        return f"it cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    return None


def read_footer(stream: BinaryIO) -> Footer:
    """Return the footer of a Parquet file, without reading rows."""
    return describe_footer(import_driver("pyarrow.parquet", extra="files").ParquetFile(stream))


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
    parquet = import_driver("pyarrow.parquet", extra="files")
    plain = parquet.ParquetFile(stream, metadata=None if known is None else known.metadata, pre_buffer=False)
    footer, schema = known or describe_footer(plain), plain.schema_arrow
    reading, names, as_text = _prepare(schema, dialect)
    decoding = TypedDecoding(reading, as_text)
    wanted = [name for name in schema.names if columns is None or name in columns]
    file = parquet.ParquetFile(
        stream,
        metadata=footer.metadata,
        read_dictionary=[name for name in wanted if name in footer.repetitive],
        buffer_size=_BUFFER if footer.has_large_parts else 0,
        pre_buffer=False,
    )
    threads = len(wanted) > _FEW_COLUMNS
    selected = None if columns is None else wanted
    for index, first in enumerate(footer.first_rows()):
        group = footer.metadata.row_group(index)
        if first + group.num_rows <= start or not _may_match(group, footer, schema, where, reading, as_text):
            continue
        for batch in file.iter_batches(
            batch_size=_batch_rows(group), row_groups=[index], columns=selected, use_threads=threads
        ):
            yield ArrowChunk(first, batch, names, decoding), footer
            first += batch.num_rows


def _batch_rows(group: Any) -> int:
    size = max(group.total_byte_size // max(group.num_rows, 1), 1)
    return int(max(_FEWEST_ROWS, min(_MOST_ROWS, _BATCH_BYTES // size)))


def _prepare(schema: Any, dialect: Dialect) -> tuple[Reading, frozenset[str], frozenset[str]]:
    """Return how values are read, the names of the columns, and those read as text.

    Raises `HeadingsError` for equal names.
    """
    repeated = [name for name, count in Counter(schema.names).items() if count > 1]
    if repeated:
        raise HeadingsError(f"several columns have the name {', '.join(map(repr, repeated[:5]))}")
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
        low, high = column_values(arrow().array([found.min, found.max], kind), reading)
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
        if columns is not None:
            batch = batch.select([name for name in batch.schema.names if name in columns])
        for start in range(0, batch.num_rows, _MOST_ROWS):
            part = batch.slice(start, _MOST_ROWS)
            yield ArrowChunk(first, part, names, decoding)
            first += part.num_rows
