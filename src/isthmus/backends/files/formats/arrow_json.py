"""Rows of Arrow's types as JSON, made a column at a time: a record holds its text until it is read."""

from __future__ import annotations

from typing import Any

from isthmus.backends.files.formats.arrow_columns import FlatColumn, NotCompiledError, read_column
from isthmus.backends.files.formats.arrow_library import arrow, compute, make_number, text_array, text_scalar
from isthmus.backends.files.formats.arrow_values import Reading, column_values
from isthmus.backends.files.formats.csv_json import EncodedRows, has_escaped

_EXACT = 2.0**53
_WHOLE = "^-?[0-9]+$"


def encode_batch(batch: Any, reading: Reading) -> EncodedRows | None:
    """Return the rows as JSON; None if a value of one has to be looked at."""
    names: list[str] = batch.schema.names
    try:
        cells = [_encode(array, reading) for array in batch.columns]
    except (NotCompiledError, arrow().ArrowNotImplementedError):
        return None
    plain = not any(arrow().types.is_floating(field.type) for field in batch.schema)
    return EncodedRows(names, cells, [_id_texts(array) for array in batch.columns], canonical=plain)


def _id_texts(array: Any) -> Any:
    """Return the ids that text or integers are, with nulls; None for other types."""
    types = arrow().types
    if types.is_dictionary(array.type):
        texts = _id_texts(array.dictionary)
        return None if texts is None else texts.take(array.indices)
    is_id = types.is_string(array.type) or types.is_large_string(array.type) or types.is_integer(array.type)
    return array.cast(arrow().string()) if is_id else None


def _encode(array: Any, reading: Reading) -> Any:
    """Return the JSON of each cell; raises `NotCompiledError`."""
    pa, pc = arrow(), compute()
    if pa.types.is_dictionary(array.type):
        cells = _encode(array.dictionary, reading).take(array.indices)
        return _fill(cells)
    column = read_column(array, reading)
    if column is None:
        if not pa.types.is_null(array.type):
            raise NotCompiledError
        return text_array(["null"] * len(array))
    if column.present is not None:
        raise NotCompiledError
    if column.scale is not None:
        return _encode_ticks(array, column, reading)
    if column.kind == "text":
        return _quote(column.array.cast(pa.string()))
    if column.kind == "bool" or pa.types.is_integer(column.array.type):
        return _fill(column.array.cast(pa.string()))
    numbers = pc.add(column.array.cast(pa.float64()), make_number(0.0))  # -0.0 becomes 0.0
    bounds = pc.max(pc.abs(numbers)).as_py()
    if bounds is not None and bounds >= _EXACT:
        raise NotCompiledError
    texts = numbers.cast(pa.string())
    whole = pc.match_substring_regex(texts, _WHOLE)
    return _fill(
        pc.if_else(whole, pc.binary_join_element_wise(texts, text_scalar(".0"), text_scalar("")), texts)
    )


def _encode_ticks(array: Any, column: FlatColumn, reading: Reading) -> Any:
    assert column.scale is not None
    pa = arrow()
    if column.scale.form == "decimal":
        raise NotCompiledError
    if column.scale.form == "date":
        return _quote(array.cast(pa.string()))
    return _quote(pa.array(column_values(array, reading), pa.string()))


def _quote(texts: Any) -> Any:
    pc = compute()
    if has_escaped(texts):
        raise NotCompiledError
    quote = text_scalar('"')
    return _fill(pc.binary_join_element_wise(quote, texts, quote, text_scalar("")))


def _fill(cells: Any) -> Any:
    return compute().fill_null(cells, text_scalar("null")) if cells.null_count else cells
