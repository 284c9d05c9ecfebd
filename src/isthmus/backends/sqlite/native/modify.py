"""Modifications of rows, inside a transaction that is open: only the columns that differ are written."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus._core.apply import refusal, refuse_batch
from isthmus._core.executor import ItemResult, WriteKind
from isthmus._core.modify import Modification
from isthmus._core.modify_rows import condition_failed
from isthmus._query.ast import TRUE, Predicate
from isthmus._query.changes import FieldChange
from isthmus._query.evaluate import matches
from isthmus._record import Record
from isthmus.backends._tables.writes import values_after
from isthmus.backends.sqlite.native.columns import bind_cell
from isthmus.backends.sqlite.native.filter import CellFilter
from isthmus.backends.sqlite.native.order import CellOrdering
from isthmus.backends.sqlite.native.read import read_by_ids, read_records, read_rows
from isthmus.backends.sqlite.native.table import SQLiteTable
from isthmus.backends.sqlite.native.write import NO_VERSION, apply_each, update_row
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import Binder
from isthmus.errors import BatchError, RecordError


def modify(
    session: SQLiteSession, table: SQLiteTable, modifications: Sequence[Modification], *, atomic: bool
) -> list[ItemResult]:
    """Apply modifications one after another and return one result for each; see `write.write`."""
    return apply_each(session, modifications, lambda item: _modify_one(session, table, item), atomic=atomic)


def _modify_one(session: SQLiteSession, table: SQLiteTable, item: Modification) -> ItemResult:
    record = read_by_ids(session, table, [item.id]).get(item.id)
    error = refusal(WriteKind.UPDATE, item, None if record is None else record.version or NO_VERSION)
    if error is not None or record is None:
        return error or False
    if item.where != TRUE and not matches(item.where, record):
        return condition_failed(item.id)
    return change_record(session, table, record, item.changes)


def change_record(
    session: SQLiteSession, table: SQLiteTable, record: Record, changes: Sequence[FieldChange]
) -> str:
    """Apply changes to a record and write the columns that differ; return the new version."""
    values = values_after(table, record, changes)
    cells = {c.name: bind_cell(c, values[c.name]) for c in table.cells if c.name in values}
    return update_row(session, table, record, cells, {})


def modify_where(
    session: SQLiteSession, table: SQLiteTable, where: Predicate, changes: tuple[FieldChange, ...]
) -> int:
    """Change the matching rows and return how many.

    All of them are held in memory, since a change may move a row. Raises `BatchError` with the outcomes
    if one cannot be changed; the caller then undoes all.
    """
    binder = Binder()
    condition = CellFilter(table, binder).sql(where)
    order = CellOrdering(table, (), binder).by()
    text = f"SELECT {table.row} FROM {table.source} WHERE {condition} ORDER BY {order}"
    records = read_records(table, read_rows(session, binder.statement(text)))
    results: list[ItemResult] = []
    for record in records:
        session.check()
        try:
            results.append(change_record(session, table, record, changes))
        except RecordError as error:
            error.record_id = record.id
            results.append(error)
            if not session.connection.in_transaction:
                break
    failed = [result for result in results if isinstance(result, RecordError)]
    if failed:
        results += [NO_VERSION] * (len(records) - len(results))
        items = [Modification(record.id or "", changes) for record in records]
        raise BatchError(
            f"update_where: {len(failed)} of {len(records)} records failed, nothing was changed. {failed[0]}",
            outcomes=refuse_batch(items, results) or results,
        )
    return len(records)
