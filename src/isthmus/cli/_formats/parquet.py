"""Records as Parquet: a column for each top-level key, typed where all values are of one type."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

import orjson

from isthmus import MissingExtraError
from isthmus.cli._formats.spill import Column, Spill

ID, METADATA = "_id", "_metadata"
_ROWS = 5_000


def arrow() -> Any:
    """Import pyarrow; raises `MissingExtraError` that says what to install."""
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

    A column of mixed types, lists or objects, or with nulls beside absent values, is JSON text and
    says so in its field's metadata. `_id` and `_metadata` come first; a data key of such a name is
    a JSON column named `_data.<key>`.
    """
    pa = arrow()
    fields = [pa.field(ID, pa.string(), nullable=False)]
    if spill.has_metadata:
        fields.append(pa.field(METADATA, pa.string(), metadata={"isthmus": "json"}))
    for key, column in spill.columns.items():
        kind, marks = _type(pa, column, complete=column.count == spill.count)
        fields.append(pa.field(key, kind, metadata={**marks, "isthmus.key": key}))
    schema = pa.schema(_renamed(pa, fields))
    with pa.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        rows = spill.rows()
        while chunk := list(islice(rows, _ROWS)):
            arrays = [_array(pa, field, chunk) for field in schema]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _renamed(pa: Any, fields: list[Any]) -> list[Any]:
    own = {ID, METADATA}
    return [
        f
        if f.metadata is None or b"isthmus.key" not in f.metadata or f.name not in own
        else f.with_name(f"_data.{f.name}")
        for f in fields
    ]


def _type(pa: Any, column: Column, *, complete: bool) -> tuple[Any, dict[str, str]]:
    kinds = column.kinds - {"null"}
    nulls = "null" in column.kinds
    if nulls and not complete:
        return pa.string(), {"isthmus": "json"}
    marks = {"isthmus.null": "null"} if nulls else {}
    if kinds == {"bool"}:
        return pa.bool_(), marks
    if kinds == {"int"}:
        return pa.int64(), marks
    if kinds == {"float"} or (kinds == {"int", "float"} and not column.wide):
        return pa.float64(), marks
    if kinds == {"text"}:
        return pa.string(), marks
    return pa.string(), {"isthmus": "json"}


def _array(pa: Any, field: Any, chunk: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> Any:
    marks = field.metadata or {}
    if field.name == ID and b"isthmus.key" not in marks:
        return pa.array([id for id, _, _ in chunk], field.type)
    if field.name == METADATA and b"isthmus.key" not in marks:
        return pa.array([orjson.dumps(m).decode() if m else None for _, _, m in chunk], field.type)
    key = marks[b"isthmus.key"].decode()
    if marks.get(b"isthmus") == b"json":
        values = [orjson.dumps(d[key]).decode() if key in d else None for _, d, _ in chunk]
    else:
        values = [d.get(key) for _, d, _ in chunk]
    return pa.array(values, field.type)


def read_parquet(file: IO[bytes]) -> Iterator[tuple[str | None, dict[str, Any], dict[str, Any]]]:
    """Yield id, data and metadata of each row; a file that others made gives its columns as data."""
    pa = arrow()
    source = pa.parquet.ParquetFile(file)
    marks = {f.name: f.metadata or {} for f in source.schema_arrow}
    for batch in source.iter_batches(batch_size=_ROWS):
        for row in batch.to_pylist():
            id: str | None = None
            data: dict[str, Any] = {}
            metadata: dict[str, Any] = {}
            for name, value in row.items():
                own = b"isthmus.key" not in marks[name]
                if name == ID and own:
                    id = value
                elif name == METADATA and own:
                    metadata = orjson.loads(value) if value else {}
                elif value is not None:
                    key = marks[name].get(b"isthmus.key", name.encode()).decode()
                    data[key] = orjson.loads(value) if marks[name].get(b"isthmus") == b"json" else value
                elif b"isthmus.null" in marks[name]:
                    data[marks[name][b"isthmus.key"].decode()] = None
            yield id, data, metadata
