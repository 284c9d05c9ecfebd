"""What a table refuses, as isthmus errors that name the constraint."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from isthmus._core.apply import already_exists
from isthmus.backends._tables.values import NoCanonicalFormError
from isthmus.backends.sqlite.native.table import SQLiteTable, id_of_cells
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import quote_name
from isthmus.errors import AlreadyExistsError, InvalidRecordError, RecordError

_UNIQUE = "UNIQUE constraint failed: "
_NOT_NULL = "NOT NULL constraint failed: "


def refusal_of(
    session: SQLiteSession, table: SQLiteTable, error: sqlite3.Error, id: str, values: dict[str, Any]
) -> RecordError:
    """Return the error of a row that the table refused, from what SQLite raised for its statement.

    `values` are the cells that the statement was to write. Looks up the other row of a unique value.
    """
    text = str(error)
    if text.startswith(_UNIQUE):
        return _unique_error(session, table, text.removeprefix(_UNIQUE), id, values)
    path = "data"
    if text.startswith(_NOT_NULL):
        path = f"data.{text.removeprefix(_NOT_NULL).removeprefix(table.name + '.')}"
    found = InvalidRecordError(f"{table.name!r} refuses the record: {text}", path=path, record_id=id or None)
    found.__cause__ = error
    return found


def _unique_error(
    session: SQLiteSession, table: SQLiteTable, names: str, id: str, values: dict[str, Any]
) -> AlreadyExistsError:
    columns = [name.removeprefix(table.name + ".") for name in names.split(", ")]
    if set(columns) == set(table.key):
        return already_exists(id)
    other = _other_row(session, table, columns, values)
    whose = "" if other is None else f" {other!r}"
    error = AlreadyExistsError(
        f"the record{whose} has this value already: {_UNIQUE}{names}",
        record_id=id if other is None else other,
    )
    error.field = ",".join(columns) if all(name in table.by_name for name in columns) else names
    return error


def _other_row(
    session: SQLiteSession, table: SQLiteTable, columns: Sequence[str], values: dict[str, Any]
) -> str | None:
    """Return the id of the row that has these values; None if it cannot be told."""
    if not all(name in values for name in columns):
        return None
    where = " AND ".join(f"t.{quote_name(name)} = ?{number}" for number, name in enumerate(columns, start=1))
    keys = ", ".join(column.sql for column in table.keys)
    found = session.execute(
        f"SELECT {keys} FROM {table.source} WHERE {where} LIMIT 1", [values[name] for name in columns]
    ).fetchone()
    try:
        return None if found is None else id_of_cells(table.keys, found)
    except NoCanonicalFormError:
        return None
