"""The values of a refused row as they were read, so that the row can be corrected and loaded again."""

from __future__ import annotations

from typing import Any

from isthmus.backends.files.formats.arrow_library import arrow
from isthmus.backends.files.formats.arrow_values import Reading, column_values, decode_dictionary, has_year
from isthmus.backends.files.formats.column_kinds import Unreadable


def describe_value(array: Any, reading: Reading) -> Any:
    """Return the only value of an array for JSON: what has no canonical form as its text.

    Lists and structs keep their shape; a map, and a struct that repeats a name, is a list of pairs.
    """
    if not array.is_valid()[0].as_py():
        return None
    pa, kind = arrow(), array.type
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return describe_value(array.storage, reading)
    if types.is_dictionary(kind):
        return describe_value(decode_dictionary(array), reading)
    if types.is_struct(kind):
        names = [kind.field(index).name for index in range(kind.num_fields)]
        values = [describe_value(child, reading) for child in array.flatten()]
        pairs = list(zip(names, values, strict=True))
        return dict(pairs) if len(set(names)) == len(names) else pairs
    if types.is_map(kind):
        start, end = array.offsets.to_pylist()
        keys, items = (part.slice(start, end - start) for part in (array.keys, array.items))
        return list(zip(_describe_each(keys, reading), _describe_each(items, reading), strict=True))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _describe_each(array.flatten(), reading)
    value = column_values(array, reading)[0]
    return _find_text(array) if type(value) is Unreadable else value


def _describe_each(array: Any, reading: Reading) -> list[Any]:
    return [describe_value(array.slice(index, 1), reading) for index in range(len(array))]


def _find_text(array: Any) -> str:
    """Return the text of a value; a byte that is not UTF-8 is a lone surrogate, as in rows of CSV."""
    pa = arrow()
    types, kind = pa.types, array.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        raw: bytes = array[0].as_buffer().to_pybytes()
        return raw.decode("utf-8", "surrogateescape")
    if types.is_timestamp(kind) or types.is_duration(kind):
        ticks = array.cast(pa.int64())[0].as_py()
        # Arrow has no text of durations, and a wrong one of years far away.
        if types.is_duration(kind) or not has_year(ticks, kind.unit):
            return f"{ticks} {kind.unit}"
    try:
        return str(array.cast(pa.string())[0].as_py())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return str(array[0])
