"""Reads of one table: rows by id, pages, counts and plans."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from isthmus._core.executor import MORE, After, CountResult, NativePlan, Page, PageRequest
from isthmus._query.ast import Predicate
from isthmus._record import Record, make_record
from isthmus._values import JSON
from isthmus.backends._tables.records import InvalidRowRecord, invalid_key, repetition_error
from isthmus.backends._tables.values import NoCanonicalFormError, invalid_record
from isthmus.backends.sqlite.native.columns import read_cell, read_text
from isthmus.backends.sqlite.native.filter import CellFilter, narrows, version_text
from isthmus.backends.sqlite.native.index_order import find_order_column, missing_indexes, read_in_order
from isthmus.backends.sqlite.native.keys import key_condition
from isthmus.backends.sqlite.native.order import CellOrdering
from isthmus.backends.sqlite.native.table import SQLiteTable
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import Binder, Statement

_NO_LIMIT = 2**62  # its sum with an offset fits 64 bits
_CHUNK = 200
"""Ids of one statement that reads rows by id."""


def read_rows(session: SQLiteSession, statement: Statement) -> list[Any]:
    """Return the rows of a query; a text that is no UTF-8 comes as `InvalidText`."""
    try:
        return session.rows(statement)
    except sqlite3.OperationalError as error:
        if "Could not decode to UTF-8" not in str(error):
            raise
    session.connection.text_factory = read_text
    try:
        return session.rows(statement)
    finally:
        session.connection.text_factory = str


def read_record(table: SQLiteTable, row: Sequence[Any]) -> Record:
    """Return the record of a selected row; raises `InvalidRecordError` for one whose key is no id."""
    data: dict[str, JSON] = {}
    invalid: tuple[str, str] | None = None
    for (name, column), cell in zip(table.cells_by_name, row, strict=True):
        if cell is None:
            continue
        kind = type(cell)
        if (kind is int and not column.boolean) or (kind is str and "\0" not in cell):
            data[name] = cell
            continue
        try:
            data[name] = read_cell(column, cell)
        except NoCanonicalFormError as error:
            invalid = invalid or (name, str(error))
    try:
        id = table.read_key(row)
    except NoCanonicalFormError as error:
        raise invalid_key(table, [row[place] for place in table.key_places], error) from None
    version = None if table.version is None else version_text(data.get(table.version))
    if invalid is not None:
        return InvalidRowRecord.of(id, data, version, invalid_record(invalid[0], id, invalid[1]))
    return make_record(id, data, {}, version, None, None)


def read_records(table: SQLiteTable, rows: Iterable[Sequence[Any]]) -> list[Record]:
    """Return the records of rows; raises `InvalidRecordError` for two rows of one key."""
    records = [read_record(table, row) for row in rows]
    if table.may_repeat:
        seen: set[str] = set()
        for record in records:
            assert record.id is not None
            if record.id in seen:
                raise repetition_error(table, record.id)
            seen.add(record.id)
    return records


def read_by_ids(session: SQLiteSession, table: SQLiteTable, ids: Sequence[str]) -> dict[str, Record]:
    """Return the records of these ids that exist; a query for each 200."""
    found: dict[str, Record] = {}
    distinct = list(dict.fromkeys(ids))
    for start in range(0, len(distinct), _CHUNK):
        binder = Binder()
        parts = [key_condition(table, id, binder) for id in distinct[start : start + _CHUNK]]
        conditions = [f"({part})" for part in parts if part is not None]
        if conditions:
            where = " OR ".join(conditions)
            text = f"SELECT {table.row} FROM {table.source} WHERE {where}"
            for record in read_records(table, read_rows(session, binder.statement(text))):
                assert record.id is not None
                if record.id in found:
                    raise repetition_error(table, record.id)
                found[record.id] = record
    return found


def page_statement(table: SQLiteTable, request: PageRequest) -> Statement:
    """Return the statement of one page and one more row, which says that there is a next page."""
    binder = Binder()
    where = CellFilter(table, binder).sql(request.where)
    ordering = CellOrdering(table, request.order or (), binder)
    if request.after is not None and request.after.position is not None:
        where = f"{where} AND {ordering.after(tuple(request.after.position))}"
    # Later pages of a stream go by id: with an index each would scan and sort the whole range.
    sorts = request.after is None and narrows(table, request.where)
    wanted = request.size_up_to(_NO_LIMIT) + 1
    limit = ""
    # With a LIMIT SQLite sorts in a tree of its own, which for all rows takes four times as long.
    if request.size is not None or request.offset:
        limit = f"LIMIT {binder.value(wanted)} OFFSET {binder.value(min(request.offset, _NO_LIMIT))}"
    return binder.statement(
        f"SELECT {table.row} FROM {table.source} WHERE {where} ORDER BY {ordering.by(sorts=sorts)} {limit}"
    )


def fetch(session: SQLiteSession, table: SQLiteTable, request: PageRequest) -> Page:
    """Return one page of matching records; one query, or several that must see one state."""
    records = read_records(table, _page_rows(session, table, request))
    if request.size is None or len(records) <= request.size:
        return Page(records, None)
    del records[request.size :]
    return Page(records, After((records[-1].id,)) if request.order is None else MORE)


def _page_rows(session: SQLiteSession, table: SQLiteTable, request: PageRequest) -> list[Any]:
    """Return the rows of a page and the next one."""
    column = find_order_column(table, request)
    if column is None:
        return read_rows(session, page_statement(table, request))
    rows: list[Any] = []
    end = request.offset + request.size_up_to(_NO_LIMIT) + 1
    for statement in read_in_order(session, table, column, request):
        rows += read_rows(session, statement)
        if len(rows) >= end:
            break
    return rows[request.offset : end]


def count(session: SQLiteSession, table: SQLiteTable, where: Predicate) -> CountResult:
    """Return the number of matching rows."""
    binder = Binder()
    condition = CellFilter(table, binder).sql(where)
    text = f"SELECT count(*) FROM {table.source} WHERE {condition}"
    return CountResult(session.rows(binder.statement(text))[0][0])


_USED = re.compile(r"USING (?:COVERING )?(?:INDEX (.+?)|(INTEGER PRIMARY KEY|PRIMARY KEY))(?: \(|$)")


def explain(session: SQLiteSession, table: SQLiteTable, request: PageRequest) -> NativePlan:
    """Return the SQL of a page, its query plan and the indexes that it uses."""
    column = find_order_column(table, request)
    statement = (
        page_statement(table, request)
        if column is None
        else next(read_in_order(session, table, column, request))
    )
    steps = [row[3] for row in session.rows(statement.with_prefix("EXPLAIN QUERY PLAN "))]
    used = [found[1] or "primary key" for step in steps if (found := _USED.search(step))]
    details = {
        "plan": steps,
        "indexes": sorted(set(used)),
        "table": {name: list(columns) for name, columns in table.indexes},
        "would_serve": missing_indexes(table, request),
        "arguments": len(statement.args),
    }
    return NativePlan(statement.text, used[0] if used else None, details)
