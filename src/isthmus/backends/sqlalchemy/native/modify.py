"""Modifications of rows, inside a transaction that is open: only the columns that differ are written."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.apply import refusal, refuse_batch
from isthmus._core.executor import ItemResult, PageRequest, WriteKind
from isthmus._core.modify import Modification
from isthmus._core.modify_rows import condition_failed
from isthmus._query.ast import TRUE, Predicate
from isthmus._query.changes import FieldChange
from isthmus._query.evaluate import matches
from isthmus._record import Record
from isthmus.backends._tables.writes import values_after
from isthmus.backends.sqlalchemy.native.read import fetch
from isthmus.backends.sqlalchemy.native.row_writes import NO_VERSION, update_row
from isthmus.backends.sqlalchemy.native.table import ReflectedTable
from isthmus.backends.sqlalchemy.native.write import apply_each
from isthmus.errors import BatchError, RecordError


async def modify(
    connection: AsyncConnection, table: ReflectedTable, modifications: Sequence[Modification], *, atomic: bool
) -> list[ItemResult]:
    """Apply modifications one after another and return one result for each; see `write.write`."""

    async def apply(item: Modification, record: Record | None) -> ItemResult:
        error = refusal(WriteKind.UPDATE, item, None if record is None else record.version or NO_VERSION)
        if error is not None or record is None:
            return error or False
        if item.where != TRUE and not matches(item.where, record):
            return condition_failed(item.id)
        return await _change(connection, table, record, item.changes)

    return await apply_each(connection, table, modifications, apply, atomic=atomic)


async def _change(
    connection: AsyncConnection, table: ReflectedTable, record: Record, changes: Sequence[FieldChange]
) -> str:
    values = values_after(table.table, record, changes)
    for name, value in values.items():
        table.by_name[name].refuse_unfit(value)
    return await update_row(connection, table, record, values, {})


async def modify_where(
    connection: AsyncConnection, table: ReflectedTable, where: Predicate, changes: tuple[FieldChange, ...]
) -> int:
    """Change the matching rows and return how many.

    All of them are held in memory and locked, since a change may move a row. Raises `BatchError` with the
    outcomes, and changes nothing, if one cannot be changed.
    """
    page = await fetch(connection, table, PageRequest(where, None, None, for_update=True))
    items = [Modification(record.id or "", changes) for record in page.records]
    records = {record.id: record for record in page.records}

    async def apply(item: Modification, _: Record | None) -> ItemResult:
        return await _change(connection, table, records[item.id], changes)

    results = await apply_each(connection, table, items, apply, atomic=True, reads=False)
    failed = [result for result in results if isinstance(result, RecordError)]
    if failed:
        raise BatchError(
            f"update_where: {len(failed)} of {len(items)} records failed, nothing was changed. {failed[0]}",
            outcomes=refuse_batch(items, results) or results,
        )
    return len(items)
