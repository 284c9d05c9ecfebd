"""Records as Parquet, with a column for each top-level key, typed if all its values have one type."""

from __future__ import annotations

import importlib
from itertools import islice
from typing import IO, Any

import orjson

from isthmus import MissingExtraError
from isthmus.cli._formats.column_type import ColumnType, with_times
from isthmus.cli._formats.spill import ID, METADATA, Spill

_BATCH_ROWS = 5_000
_JSON = {"isthmus": "json"}


def import_pyarrow() -> Any:
    """Return pyarrow; raises `MissingExtraError` that names the extra to install."""
    try:
        pyarrow: Any = importlib.import_module("pyarrow")
        importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise MissingExtraError(
            "Parquet needs pyarrow: pip install 'isthmus[frames]'", extra="frames"
        ) from None
    return pyarrow


def write_parquet(spill: Spill, file: IO[bytes]) -> None:
    """Write spilled records.

    `_id` and `_metadata` come first. Lists, objects that have the same keys, and times as isthmus writes
    them are columns of such types. A column of mixed types, of objects with different keys, or with
    both nulls and absent values is JSON text, which its field's metadata states. A data key named `_id` or
    `_metadata` becomes a column `_data.<key>`.
    """
    pa = import_pyarrow()
    fields = [pa.field(ID, pa.string(), nullable=False)]
    if spill.has_metadata:
        fields.append(pa.field(METADATA, pa.string(), metadata=_JSON))
    for key, column in spill.columns.items():
        type, marks = _choose_type(pa, column, complete=column.count == spill.count)
        name = f"_data.{key}" if key in (ID, METADATA) else key
        fields.append(pa.field(name, type, metadata={**marks, "isthmus.key": key}))
    schema = pa.schema(fields)
    with pa.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        rows = spill.rows()
        while batch := list(islice(rows, _BATCH_ROWS)):
            arrays = [_build_array(pa, field, batch) for field in schema]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _choose_type(pa: Any, column: ColumnType, *, complete: bool) -> tuple[Any, dict[str, str]]:
    """Return the Arrow type of a column and the metadata of its field."""
    marks = {"isthmus.null": "null"} if "null" in column.kinds else {}
    # Among absent values a null has no form of its own.
    type = column.to_arrow(pa) if not marks or complete else None
    return (pa.string(), _JSON) if type is None else (type, marks)


def _build_array(pa: Any, field: Any, batch: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> Any:
    marks = field.metadata or {}
    key = marks[b"isthmus.key"].decode() if b"isthmus.key" in marks else None
    values: list[Any]
    if key is None and field.name == ID:
        values = [id for id, _, _ in batch]
    elif key is None:
        values = [orjson.dumps(metadata).decode() if metadata else None for _, _, metadata in batch]
    elif marks.get(b"isthmus") == b"json":
        values = [orjson.dumps(data[key]).decode() if key in data else None for _, data, _ in batch]
    else:
        values = [with_times(data.get(key), field.type, pa.types) for _, data, _ in batch]
    return pa.array(values, field.type)
