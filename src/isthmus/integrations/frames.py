"""Arrow, pandas and Polars: records to tables and back, whole or in batches with bounded memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus._collection import CollectionMethods
from isthmus._core.registry import import_driver
from isthmus._partition import ID, row
from isthmus._reads import Find
from isthmus._record import Record
from isthmus._writes import StreamReceipt
from isthmus.errors import UsageError

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

BATCH_ROWS = 10_000


def _arrow() -> Any:
    return import_driver("pyarrow", extra="frames")


def table_of(rows: Sequence[Mapping[str, Any]], schema: pyarrow.Schema | None = None) -> pyarrow.Table:
    """Return rows as an Arrow table; columns are the union of the rows' keys, in order of appearance.

    Raises `UsageError` for a column that mixes types, which Arrow cannot hold: name a schema, or
    select other fields.
    """
    arrow = _arrow()
    if schema is not None:
        return arrow.Table.from_pylist(list(rows), schema=schema)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        try:
            columns.append(arrow.array([row.get(name) for row in rows]))
        except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
            raise UsageError(f"column {name!r} holds values that share no Arrow type: {error}") from None
    return arrow.table(columns, names=names)


async def to_arrow(
    verbs: CollectionMethods, query: Find = None, *, schema: pyarrow.Schema | None = None
) -> pyarrow.Table:
    """Return the matching records as an Arrow table, the id in the column `_id`; all in memory."""
    return table_of([row(record) for record in await verbs.search(query)], schema)


async def arrow_batches(
    verbs: CollectionMethods,
    query: Find = None,
    *,
    rows: int = BATCH_ROWS,
    schema: pyarrow.Schema | None = None,
) -> AsyncIterator[pyarrow.RecordBatch]:
    """Yield the matching records as Arrow batches of at most `rows`, one in memory.

    Without a schema the first batch's is kept; a later batch that does not fit it is a `UsageError`.
    """
    async with verbs.stream(query) as records:
        async for batch in batched(records, rows=rows, schema=schema):
            yield batch


async def batched(
    records: AsyncIterator[Record], *, rows: int = BATCH_ROWS, schema: pyarrow.Schema | None = None
) -> AsyncGenerator[pyarrow.RecordBatch, None]:
    """Yield records as Arrow batches of at most `rows`, as `arrow_batches` does."""
    named = schema is not None
    held: list[dict[str, Any]] = []
    async for record in records:
        held.append(row(record))
        if len(held) == rows:
            batch = _batch(held, schema, named=named)
            schema = batch.schema
            yield batch
            held = []
    if held:
        yield _batch(held, schema, named=named)


def _batch(rows: list[dict[str, Any]], schema: pyarrow.Schema | None, *, named: bool) -> pyarrow.RecordBatch:
    arrow = _arrow()
    if schema is not None and not named:
        # A named schema selects columns; one that was found must not drop any.
        new = next((name for row in rows for name in row if name not in schema.names), None)
        if new is not None:
            raise UsageError(f"column {new!r} is in no record of the first batch; name a schema")
    try:
        return table_of(rows, schema).combine_chunks().to_batches()[0]
    except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
        fault = "the schema" if named else "the schema of those before it; name a schema"
        raise UsageError(f"a record does not fit {fault}: {error}") from None


async def to_pandas(verbs: CollectionMethods, query: Find = None) -> pandas.DataFrame:
    """Return the matching records as a pandas frame, by way of Arrow; see `frame_of`."""
    return frame_of(await to_arrow(verbs, query))


def frame_of(table: pyarrow.Table) -> pandas.DataFrame:
    """Return a table as a pandas frame.

    Integers stay exact where others are missing: such a column is `Int64`, one of booleans
    `boolean`, and numbers within lists and objects are Python's. pandas itself makes floats of them.
    """
    library, arrow = import_driver("pandas", extra="frames"), _arrow()
    nullable = {arrow.int64(): library.Int64Dtype(), arrow.bool_(): library.BooleanDtype()}
    frame: pandas.DataFrame = table.to_pandas(integer_object_nulls=True)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count and column.type in nullable:
            frame[name] = column.to_pandas(types_mapper=nullable.get)
    return frame


async def to_polars(verbs: CollectionMethods, query: Find = None) -> polars.DataFrame:
    """Return the matching records as a Polars frame, by way of Arrow."""
    frame: polars.DataFrame = import_driver("polars", extra="frames").from_arrow(await to_arrow(verbs, query))
    return frame


async def from_arrow(
    verbs: CollectionMethods,
    table: pyarrow.Table | pyarrow.RecordBatchReader,
    *,
    upsert: bool = False,
    id: str = ID,
) -> StreamReceipt:
    """Write a table's rows, batch by batch; the column `id`, if there is one, names the records.

    Nulls are left out: an absent key and a null mean the same to every query.
    """

    def records() -> Iterable[Record]:
        for batch in table.to_batches() if hasattr(table, "to_batches") else table:
            for values in batch.to_pylist():
                yield _record(values, id)

    return await verbs.stream_write(records(), upsert=upsert)


async def from_pandas(
    verbs: CollectionMethods, frame: pandas.DataFrame, *, upsert: bool = False, id: str = ID
) -> StreamReceipt:
    """Write a pandas frame's rows, by way of Arrow; its index is not written."""
    return await from_arrow(
        verbs, _arrow().Table.from_pandas(frame, preserve_index=False), upsert=upsert, id=id
    )


async def from_polars(
    verbs: CollectionMethods, frame: polars.DataFrame, *, upsert: bool = False, id: str = ID
) -> StreamReceipt:
    """Write a Polars frame's rows, by way of Arrow."""
    return await from_arrow(verbs, frame.to_arrow(), upsert=upsert, id=id)


def _record(values: Mapping[str, Any], id: str) -> Record:
    data = {name: value for name, value in values.items() if value is not None and name != id}
    own = values.get(id)
    return Record(data, id=None if own is None else str(own))


__all__ = [
    "arrow_batches",
    "frame_of",
    "from_arrow",
    "from_pandas",
    "from_polars",
    "row",
    "table_of",
    "to_arrow",
    "to_pandas",
    "to_polars",
]
