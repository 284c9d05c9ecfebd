"""Arrow tables from the JSON texts of records, without a Python object for each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from isthmus._core.registry import import_driver
from isthmus._partition import ID
from isthmus._record import Record, json_text_of

if TYPE_CHECKING:
    import pyarrow

# Arrow's reader takes a block as a whole or guesses the types of each again; its positions have 31 bits.
_MOST_BYTES = 1 << 30
# Above it a column of floats may hold an integer that the reader rounded.
_EXACT = float(2**53)


def read_texts(records: Sequence[Record]) -> pyarrow.Table | None:
    """Return records as a table with their ids in column `_id`, read from their texts.

    Returns None where this could differ from `table_of`, or records have no text: those are converted
    value by value. The columns and types are the same, except that nothing has to be refused here.
    """
    texts = [json_text_of(record) for record in records]
    if not texts or None in texts:
        return None
    known = [text.encode() if isinstance(text, str) else text for text in texts if text is not None]
    lines = b"\n".join(known)
    if len(lines) > _MOST_BYTES or lines.count(b"\n") != len(known) - 1:
        return None
    if b"[null" in lines:  # the reader loses nulls before the first value of any list (seen on 26.0)
        return None
    arrow = import_driver("pyarrow", extra="frames")
    try:
        table = _read(arrow, lines, None)
        types = [_plain_type(arrow, field.type) for field in table.schema]
        if types != table.schema.types:  # texts that look like times
            named = zip(table.schema.names, types, strict=True)
            table = _read(arrow, lines, arrow.schema(list(named)))
    except arrow.ArrowInvalid:  # mixed types, or what only the reader refuses
        return None
    if table.num_rows != len(records) or not table.num_columns or ID in table.column_names:
        return None
    # One block was read, so each column is one array.
    columns = [column.chunk(0) for column in table.columns]
    if not all(_is_exact(arrow, column) for column in columns):
        return None
    ids = arrow.array([record.id for record in records])
    return arrow.table([ids, *columns], names=[ID, *table.column_names])


def _read(arrow: Any, lines: bytes, schema: Any) -> Any:
    reader = import_driver("pyarrow.json", extra="frames")
    return reader.read_json(
        arrow.BufferReader(lines),
        read_options=reader.ReadOptions(block_size=len(lines) + 1),
        parse_options=reader.ParseOptions(explicit_schema=schema),
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
