"""Arrow, pandas and Polars: converts records to tables and back, as a whole or in batches."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus._collection import CollectionMethods
from isthmus._core.executor import PageRequest
from isthmus._core.op import Fetch
from isthmus._core.registry import import_driver
from isthmus._partition import ID, row
from isthmus._path import Root
from isthmus._query.ast import SortKey
from isthmus._query.normalize import flatten
from isthmus._query.query import as_query
from isthmus._reads import Find
from isthmus._record import Record
from isthmus._writes import StreamReceipt
from isthmus.errors import UsageError
from isthmus.integrations._arrow_schema import convert_rows
from isthmus.integrations._json_table import read_records, read_texts

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

BATCH_ROWS = 10_000


def _arrow() -> Any:
    return import_driver("pyarrow", extra="frames")


def table_of(rows: Sequence[Mapping[str, Any]], schema: pyarrow.Schema | None = None) -> pyarrow.Table:
    """Return rows as an Arrow table with the columns of `schema`.

    Without a schema the columns are the union of the rows' keys in order of appearance. Raises
    `UsageError` for a column of mixed types, which Arrow cannot hold (pass a schema, or select other
    fields), and for a value that does not fit its type in the schema: none is cut, converted from text
    or rounded, except by floats of less than 64 bits.
    """
    arrow = _arrow()
    if schema is not None:
        return convert_rows(rows, schema)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        try:
            columns.append(arrow.array([row.get(name) for row in rows]))
        except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
            raise UsageError(f"column {name!r} holds values that share no Arrow type: {error}") from None
    return arrow.table(columns, names=names)


def table_of_records(records: Sequence[Record], schema: pyarrow.Schema | None = None) -> pyarrow.Table:
    """Return records as an Arrow table with ids in column `_id`; `schema` and errors as for `table_of`.

    Without a schema, records that were not decoded yet are converted from their JSON text as a whole;
    the table is the same.
    """
    table = read_records(records) if schema is None else None
    return table_of([row(record) for record in records], schema) if table is None else table


async def to_arrow(
    collection: CollectionMethods, query: Find = None, *, schema: pyarrow.Schema | None = None
) -> pyarrow.Table:
    """Return the matching records as an Arrow table in memory, with ids in column `_id`.

    `schema` and errors are those of `table_of`.
    """
    found = as_query(query)
    if schema is None and found.fields is None and found.count != 0 and all(map(_is_read, found.order)):
        request = PageRequest(flatten(found.where), found.order, found.count, offset=found.skip, texts=True)
        page = await collection._run(Fetch(collection.collection_name, request))
        if page.texts is None:
            return table_of_records(page.records)
        table = read_texts(page.texts.ids, page.texts.texts)
        return table_of([row(record) for record in page.texts.records()]) if table is None else table
    return table_of_records(await collection.search(query), schema)


def _is_read(key: SortKey) -> bool:
    """Return whether a key is in a record's id or data, which pages of texts hold."""
    return key.path.root in (Root.ID, Root.DATA)


async def arrow_batches(
    collection: CollectionMethods,
    query: Find = None,
    *,
    rows: int = BATCH_ROWS,
    schema: pyarrow.Schema | None = None,
) -> AsyncIterator[pyarrow.RecordBatch]:
    """Yield the matching records as Arrow batches of at most `rows` rows, one in memory.

    Without a schema, that of the first batch is used for all. Raises `UsageError` for a batch that
    does not fit the schema.
    """
    async with collection.stream(query) as records:
        async for batch in batch_records(records, rows=rows, schema=schema):
            yield batch


async def batch_records(
    records: AsyncIterator[Record], *, rows: int = BATCH_ROWS, schema: pyarrow.Schema | None = None
) -> AsyncGenerator[pyarrow.RecordBatch, None]:
    """Yield records as Arrow batches; parameters and errors as for `arrow_batches`."""
    explicit = schema is not None
    pending: list[Record] = []
    async for record in records:
        pending.append(record)
        if len(pending) == rows:
            batch = _build_batch(pending, schema, explicit=explicit)
            schema = batch.schema
            yield batch
            pending = []
    if pending:
        yield _build_batch(pending, schema, explicit=explicit)


def _build_batch(
    records: list[Record], schema: pyarrow.Schema | None, *, explicit: bool
) -> pyarrow.RecordBatch:
    if not explicit:
        table = table_of_records(records) if schema is None else read_records(records)
        if table is not None and schema in (None, table.schema):
            return table.combine_chunks().to_batches()[0]
    rows = [row(record) for record in records]
    try:
        # An explicit schema selects columns; an inferred one must not drop any.
        table = table_of(rows) if schema is None else convert_rows(rows, schema, partial=explicit)
    except UsageError as error:
        if explicit:
            raise
        raise UsageError(f"{error} (the schema is that of the first batch; pass a schema)") from None
    return table.combine_chunks().to_batches()[0]


async def to_pandas(collection: CollectionMethods, query: Find = None) -> pandas.DataFrame:
    """Return the matching records as a pandas frame, converted through Arrow; see `frame_of`."""
    return frame_of(await to_arrow(collection, query))


def frame_of(table: pyarrow.Table) -> pandas.DataFrame:
    """Return an Arrow table as a pandas frame, without converting integers to floats.

    A column of integers with missing values becomes `Int64`, one of booleans `boolean`; numbers
    inside lists and objects stay Python integers. pandas would make them floats.
    """
    library, arrow = import_driver("pandas", extra="frames"), _arrow()
    nullable = {arrow.int64(): library.Int64Dtype(), arrow.bool_(): library.BooleanDtype()}
    frame: pandas.DataFrame = table.to_pandas(integer_object_nulls=True)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count and column.type in nullable:
            frame[name] = column.to_pandas(types_mapper=nullable.get)
    return frame


async def to_polars(collection: CollectionMethods, query: Find = None) -> polars.DataFrame:
    """Return the matching records as a Polars frame, converted through Arrow."""
    frame: polars.DataFrame = import_driver("polars", extra="frames").from_arrow(
        await to_arrow(collection, query)
    )
    return frame


async def from_arrow(
    collection: CollectionMethods,
    table: pyarrow.Table | pyarrow.RecordBatchReader,
    *,
    upsert: bool = False,
    id: str = ID,
) -> StreamReceipt:
    """Write the rows of a table, batch by batch, and return a receipt.

    `id` is the column of the record ids; rows without one get a new id. `upsert` replaces existing
    records, which are errors otherwise; see `Collection.stream_write`. Nulls are not written: queries
    treat a missing key and a null alike.
    """

    def records() -> Iterable[Record]:
        for batch in table.to_batches() if hasattr(table, "to_batches") else table:
            for values in batch.to_pylist():
                yield _to_record(values, id)

    return await collection.stream_write(records(), upsert=upsert)


async def from_pandas(
    collection: CollectionMethods, frame: pandas.DataFrame, *, upsert: bool = False, id: str = ID
) -> StreamReceipt:
    """Write the rows of a pandas frame without its index; parameters as for `from_arrow`."""
    return await from_arrow(
        collection, _arrow().Table.from_pandas(frame, preserve_index=False), upsert=upsert, id=id
    )


async def from_polars(
    collection: CollectionMethods, frame: polars.DataFrame, *, upsert: bool = False, id: str = ID
) -> StreamReceipt:
    """Write the rows of a Polars frame; parameters as for `from_arrow`."""
    return await from_arrow(collection, frame.to_arrow(), upsert=upsert, id=id)


def _to_record(values: Mapping[str, Any], id: str) -> Record:
    data = {name: value for name, value in values.items() if value is not None and name != id}
    record_id = values.get(id)
    return Record(data, id=None if record_id is None else str(record_id))


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
