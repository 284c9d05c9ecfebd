"""Arrow tables of a given schema; a value that Arrow would change to fit is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus._arguments import shorten
from isthmus._core.registry import import_driver
from isthmus.errors import UsageError

if TYPE_CHECKING:
    import pyarrow

# From these on, floats of 16 and 32 bits are infinite.
_ENDS = {16: 2.0**16 - 2.0**4, 32: 2.0**128 - 2.0**103}


def convert_rows(
    rows: Sequence[Mapping[str, Any]], schema: pyarrow.Schema, *, partial: bool = True
) -> pyarrow.Table:
    """Return rows as a table with the columns of `schema`; if `partial` it may lack keys of the rows.

    Raises `UsageError` for a value that does not fit its type. Of those that Arrow fits by itself these
    are fractions in a column of integers, booleans in one of floats, and texts in one of lists. Floats of
    less than 64 bits round.
    """
    arrow = import_driver("pyarrow", extra="frames")
    if not partial:
        _check_keys(rows, schema.names, "")
    columns = []
    for name, type in zip(schema.names, schema.types, strict=True):
        values = [row.get(name) for row in rows]
        try:
            columns.append(arrow.array(values, type))
        except (arrow.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise UsageError(f"column {name!r} has a value that does not fit {type}: {error}") from None
        _check_values(arrow.types, values, type, name, partial=partial)
    return arrow.Table.from_arrays(columns, schema=schema)


def _check_values(types: Any, values: Iterable[Any], type: Any, path: str, *, partial: bool) -> None:
    """Raise `UsageError` for a value that Arrow took for a type although it is another one."""
    if types.is_dictionary(type) or types.is_run_end_encoded(type):
        type = type.value_type
    present = [value for value in values if value is not None]
    if types.is_integer(type) or types.is_temporal(type):
        _refuse(present, type, path, lambda value: isinstance(value, float) and not value.is_integer())
    elif types.is_floating(type):
        end = _ENDS.get(type.bit_width)
        _refuse(present, type, path, lambda value: isinstance(value, bool) or (end and abs(value) >= end))
    elif types.is_struct(type):
        if not partial:
            _check_keys(present, [field.name for field in type], f"{path}.")
        for field in type:
            nested = (value.get(field.name) for value in present)
            _check_values(types, nested, field.type, f"{path}.{field.name}", partial=partial)
    elif types.is_map(type):
        pairs = [pair for value in present for pair in (value.items() if isinstance(value, dict) else value)]
        _check_values(types, (key for key, _ in pairs), type.key_type, path, partial=partial)
        _check_values(types, (item for _, item in pairs), type.item_type, path, partial=partial)
    elif types.is_nested(type) and not types.is_union(type):
        _refuse(present, type, path, lambda value: isinstance(value, str | bytes))
        items = (item for value in present for item in value)
        _check_values(types, items, type.value_type, path, partial=partial)


def _refuse(values: Sequence[Any], type: Any, path: str, differs: Callable[[Any], Any]) -> None:
    for value in values:
        if differs(value):
            raise UsageError(f"column {path!r} has a value that does not fit {type}: {shorten(value)}")


def _check_keys(rows: Iterable[Mapping[str, Any]], known: Collection[str], prefix: str) -> None:
    names = set(known)
    for row in rows:
        for name in row.keys() - names:
            raise UsageError(f"column {prefix + name!r} is not in the schema")
