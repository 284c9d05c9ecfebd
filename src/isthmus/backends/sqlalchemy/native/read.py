"""Reads of one table: rows by id, pages and counts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.executor import MORE, After, CountResult, Page, PageRequest
from isthmus._query.ast import TRUE, Predicate
from isthmus._record import Record
from isthmus.backends._tables.keys import key_of
from isthmus.backends._tables.records import repetition_error
from isthmus.backends.sqlalchemy.native.filter import ColumnFilter
from isthmus.backends.sqlalchemy.native.order import after_key, after_position, by_key_order, order_by
from isthmus.backends.sqlalchemy.native.rows import RecordReader, columns_of
from isthmus.backends.sqlalchemy.native.statement import Statement, ValueBinder, execute
from isthmus.backends.sqlalchemy.native.table import ReflectedTable
from isthmus.backends.sqlalchemy.statements import chunks

_NO_LIMIT = 2**62  # its sum with an offset fits 64 bits
_LOCK = " FOR UPDATE"


async def read_by_ids(
    connection: AsyncConnection, table: ReflectedTable, ids: Sequence[str], *, lock: bool = False
) -> dict[str, Record]:
    """Return the records of these ids that exist; a query for each 500.

    The store's own equality finds the rows, which may ignore case or blanks; the id says which are meant.
    """
    known = {id: key for id in ids if (key := key_of(table.table, id)) is not None}
    reader = RecordReader(table)
    lock_clause = _LOCK if lock else ""
    found: dict[str, Record] = {}
    # In one order, so that two batches do not wait for each other in a circle.
    for part in chunks(sorted(known)):
        binder = ValueBinder()
        where = ColumnFilter(table, binder).by_key([known[id] for id in part])
        order = f" ORDER BY {by_key_order(table)}" if lock and len(part) > 1 else ""
        text = f"SELECT {reader.select} FROM {table.sql} WHERE {where}{order}{lock_clause}"
        for record in reader.records(await execute(connection, binder.statement(text))):
            id = record.id or ""
            if id in found:
                raise repetition_error(table.table, id)
            if id in known:
                found[id] = record
    return found


def page_statement(table: ReflectedTable, request: PageRequest) -> Statement:
    """Return the statement of one page and one more row, which says that there is a next page."""
    binder = ValueBinder()
    conditions = [] if request.where == TRUE else [ColumnFilter(table, binder).condition(request.where)]
    position = None if request.after is None else request.after.position
    if position is not None:
        if request.order is None:
            conditions.append(after_key(table, position[-1], binder))
        else:
            conditions.append(after_position(table, request.order, position, binder))
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    order = by_key_order(table) if request.order is None else order_by(table, request.order)
    limit = ""
    if request.size is not None or request.offset:
        limit = f" LIMIT {request.size_up_to(_NO_LIMIT) + 1}"
        limit += f" OFFSET {min(request.offset, _NO_LIMIT)}" if request.offset else ""
    reader = RecordReader(table, columns_of(request))
    lock = _LOCK if request.for_update else ""
    return binder.statement(f"SELECT {reader.select} FROM {table.sql}{where} ORDER BY {order}{limit}{lock}")


async def fetch(connection: AsyncConnection, table: ReflectedTable, request: PageRequest) -> Page:
    """Return one page of matching records; one query."""
    statement = page_statement(table, request)
    rows = (await execute(connection, statement)).all()
    more = request.size is not None and len(rows) > request.size
    records = RecordReader(table, columns_of(request)).records(rows[: request.size] if more else rows)
    if not (more and records):
        return Page(records, None)
    return Page(records, After((records[-1].id,)) if request.order is None else MORE)


async def count(connection: AsyncConnection, table: ReflectedTable, where: Predicate) -> CountResult:
    """Return the number of matching rows; one query."""
    binder = ValueBinder()
    text = f"SELECT COUNT(*) FROM {table.sql}{condition(table, where, binder)}"
    return CountResult((await execute(connection, binder.statement(text))).scalar_one())


def condition(table: ReflectedTable, where: Predicate, binder: ValueBinder) -> str:
    """Return the WHERE clause of a predicate; empty if there is no condition."""
    return "" if where == TRUE else f" WHERE {ColumnFilter(table, binder).condition(where)}"
