"""Arrow tables from the JSON texts of records, without a Python object for each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from isthmus._core.registry import import_driver
from isthmus._partition import ID
from isthmus._record import Record, json_text_of

if TYPE_CHECKING:
    import pyarrow

# Arrow's positions in a block have 31 bits.
_MOST_BYTES = 1 << 30
SAMPLE = 1 << 19
"""Bytes of the first texts whose types are tried for all of a larger table."""
# Above it a column of floats may hold an integer that the reader rounded.
_EXACT = float(2**53)


def read_records(records: Sequence[Record]) -> pyarrow.Table | None:
    """Return records as a table, read from their texts; None as for `read_texts`."""
    texts = [json_text_of(record) for record in records]
    if None in texts:
        return None
    return read_texts([record.id or "" for record in records], [text for text in texts if text is not None])


def read_texts(ids: Sequence[str], texts: Sequence[bytes | str]) -> pyarrow.Table | None:
    """Return records as a table with their ids in column `_id`, read from the JSON texts of their data.

    Returns None where this could differ from `table_of`: those are converted value by value. The columns
    and types are the same, except that nothing has to be refused here.
    """
    if not texts:
        return None
    lines = b"\n".join([text.encode() if isinstance(text, str) else text for text in texts])
    if len(lines) > _MOST_BYTES or lines.count(b"\n") != len(texts) - 1:
        return None
    if b"[null" in lines:  # the reader loses nulls before the first value of any list (seen on 26.0)
        return None
    arrow = import_driver("pyarrow", extra="frames")
    try:
        table = _read_by_sample(arrow, lines) or _read_whole(arrow, lines)
    except arrow.ArrowInvalid:  # mixed types, or what only the reader refuses
        return None
    if table.num_rows != len(texts) or not table.num_columns or ID in table.column_names:
        return None
    chunks = (chunk for column in table.columns for chunk in column.chunks)
    if not all(_is_exact(arrow, chunk) for chunk in chunks):
        return None
    return table.add_column(0, ID, arrow.array(ids, arrow.string()))


def _read_by_sample(arrow: Any, lines: bytes) -> Any:
    """Return the table if all of it has the types of its first lines, read by several threads.

    Returns None for a small one, and where a later line has another type or another key.
    """
    end = lines.rfind(b"\n", 0, SAMPLE)
    if len(lines) <= SAMPLE or end < 0:
        return None
    try:
        return _read(arrow, lines, _schema_of(arrow, _read(arrow, lines[:end])), in_blocks=True)
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError):
        return None


def _read_whole(arrow: Any, lines: bytes) -> Any:
    """Return the table with types that hold all of the lines."""
    table = _read(arrow, lines)
    schema = _schema_of(arrow, table)
    return table if schema == table.schema else _read(arrow, lines, schema)


def _schema_of(arrow: Any, table: Any) -> Any:
    """Return a table's schema, with texts where it has times."""
    return arrow.schema([(field.name, _plain_type(arrow, field.type)) for field in table.schema])


def _read(arrow: Any, lines: bytes, schema: Any = None, *, in_blocks: bool = False) -> Any:
    """Return the table of JSON lines; unless `in_blocks` as one block, since types are found for each."""
    reader = import_driver("pyarrow.json", extra="frames")
    return reader.read_json(
        arrow.BufferReader(lines),
        read_options=reader.ReadOptions(block_size=None if in_blocks else len(lines) + 1),
        parse_options=reader.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="error" if in_blocks else "infer"
        ),
    )


def _plain_type(arrow: Any, type: Any) -> Any:
    """Return a type with texts in place of times, which the reader guesses from texts."""
    if arrow.types.is_timestamp(type):
        return arrow.string()
    if arrow.types.is_list(type):
        return arrow.list_(_plain_type(arrow, type.value_type))
    if arrow.types.is_struct(type):
        return arrow.struct([(field.name, _plain_type(arrow, field.type)) for field in type])
    return type


def _is_exact(arrow: Any, column: Any) -> bool:
    """Return whether no integer among the floats of a column can have been rounded."""
    if arrow.types.is_list(column.type):
        return _is_exact(arrow, column.flatten())
    if arrow.types.is_struct(column.type):
        return all(_is_exact(arrow, column.field(n)) for n in range(column.type.num_fields))
    if not arrow.types.is_floating(column.type):
        return True
    compute = import_driver("pyarrow.compute", extra="frames")
    ends = compute.min_max(column).as_py()
    return ends["min"] is None or max(-ends["min"], ends["max"]) < _EXACT
