"""Modifications, inside a transaction that the caller has opened: read, change and write as one job."""

from __future__ import annotations

import time
from typing import Any

from isthmus._core.executor import After, ItemResult, PageRequest
from isthmus._core.modify import Modification
from isthmus._core.modify_rows import modify_in_order
from isthmus._ids import new_version
from isthmus._query.ast import Predicate
from isthmus._query.changes import FieldChange, apply_changes
from isthmus._record import Record
from isthmus._values import encode
from isthmus.backends.sqlite import select
from isthmus.backends.sqlite.schema import ORDER_COLUMN, Table
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import quote_name

# Rows that are held in memory at once, and after which the job looks whether its caller was cancelled.
_CHUNK = 1_000


def decode_row(row: Any) -> Record:
    """Return the record of a row of `select`, undecoded."""
    id, data, metadata, version, created, updated = row
    return Record.stored(id, data, metadata, str(version), created, updated)


def modify(session: SQLiteSession, table: Table, modification: Modification) -> ItemResult:
    """Apply one modification and return its result; one query and one statement by id."""
    [result] = modify_in_order(_ModifiedRow(session, table, modification.id), [modification])
    return result


class _ModifiedRow:
    """The row of one modification, as `modify_in_order` reads and writes it."""

    def __init__(self, session: SQLiteSession, table: Table, id: str) -> None:
        self._session = session
        self._table = table
        rows = session.rows(select.read_one(table, id))
        self._record = decode_row(rows[0]) if rows else None

    def record(self, id: str) -> Record | None:
        return self._record

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        version = new_version()
        self._session.execute(_update(self._table), (id, data.decode(), version, _now()))
        return str(version)


def modify_where(
    session: SQLiteSession, table: Table, where: Predicate, changes: tuple[FieldChange, ...]
) -> int:
    """Change the matching records and return how many; a query and a statement for each thousand.

    Raises `InvalidRecordError` at the first that does not admit a change; the caller then undoes all.
    """
    count, after = 0, None
    while True:
        session.check()
        # By id, which no change alters: no record is met twice.
        rows = session.rows(select.page(table, PageRequest(where, (), _CHUNK, after)))
        more, rows = len(rows) > _CHUNK, rows[:_CHUNK]
        now, updates = _now(), []
        for row in rows:
            record = decode_row(row)
            data = encode(apply_changes(record.data, changes))
            updates.append((record.id, data.decode(), new_version(), now))
        if updates:
            session.run_many(_update(table), updates)
        count += len(updates)
        if not more:
            return count
        after = After((updates[-1][0],))


def _update(table: Table) -> str:
    order = f", {ORDER_COLUMN} = {table.order}" if table.order else ""
    return (
        f"UPDATE {quote_name(table.name)} SET data = ?2, version = ?3, updated_at = ?4{order} WHERE id = ?1"
    )


def _now() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000
