"""Changes of a table that others made: its owner's triggers write keys to a side table (meaning §8 and §10).

The side table has the cells of the key columns as they are, so that an id is made of them as it is of
a row's. A record's order is the greatest number that the side table holds for its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus._core.changes import ChangePage, Position, StoredChange
from isthmus._core.executor import After, PageRequest
from isthmus._query.ast import TRUE
from isthmus.backends._tables.binding import (
    parse_bytes,
)
from isthmus.backends._tables.keys import key_of
from isthmus.backends._tables.values import (
    NoCanonicalFormError,
)
from isthmus.backends.sqlite.change_tables import CATALOG_STATEMENTS, ChangeTables, find_changes
from isthmus.backends.sqlite.changes import check_position, last_number
from isthmus.backends.sqlite.native.read import fetch, read_by_ids
from isthmus.backends.sqlite.native.table import SQLiteTable, id_of_cells
from isthmus.backends.sqlite.schema import CHANGES_CATALOG
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import quote_name
from isthmus.errors import UnsupportedError


def change_statements(table: SQLiteTable) -> list[str]:
    """Return the statements by which the owner of a table lets it keep its changes."""
    if table.read_only or any(not column.stored for column in table.keys):
        raise UnsupportedError(f"{table.name!r} has no primary key to note changes by", capability="changes")
    tables, name = ChangeTables(table.name, ""), quote_name(table.name)
    cells = _cells(table)
    note = f"INSERT INTO {tables.changes} ({', '.join(cells)}) VALUES ({{}});"
    keys = [quote_name(key) for key in table.key]
    new, old = (note.format(", ".join(f"{row}.{key}" for key in keys)) for row in ("NEW", "OLD"))
    moved = " OR ".join(f"OLD.{key} IS NOT NEW.{key}" for key in keys)
    trigger = f"CREATE TRIGGER isthmus_{{}}_{tables.digest} AFTER"
    literal = "'" + table.name.replace("'", "''") + "'"
    return [
        *CATALOG_STATEMENTS,
        # Without declared types cells are kept as they are.
        f"CREATE TABLE {tables.changes} (seq INTEGER PRIMARY KEY, {', '.join(cells)})",
        f"CREATE INDEX {tables.changes}_key ON {tables.changes} ({', '.join(cells)}, seq)",
        f"{trigger.format('insert')} INSERT ON {name} BEGIN {new} END",
        f"{trigger.format('update')} UPDATE ON {name} BEGIN {new} END",
        f"{trigger.format('key')} UPDATE ON {name} WHEN {moved} BEGIN {old} END",
        f"{trigger.format('delete')} DELETE ON {name} BEGIN {old} END",
        f"INSERT INTO {CHANGES_CATALOG} VALUES ({literal}, hex(randomblob(16)), 0)",
    ]


def _cells(table: SQLiteTable) -> list[str]:
    return [f"key{number}" for number in range(1, len(table.key) + 1)]


def missing_triggers(table: SQLiteTable) -> UnsupportedError:
    """Return the error of a table without the triggers."""
    return UnsupportedError(
        f"{table.name!r} was made by others and keeps no changes: its owner runs once what"
        " `isthmus changes URL --ddl` prints",
        capability="changes",
    )


def current_position(session: SQLiteSession, table: SQLiteTable) -> Position:
    """Return the position after the last commit, in a snapshot."""
    tables = find_changes(session.connection, table.name)
    if tables is None:
        raise missing_triggers(table)
    return Position(tables.making, str(last_number(session, tables)))


def read_changes(session: SQLiteSession, table: SQLiteTable, position: Position, limit: int) -> ChangePage:
    """Return at most `limit` changes after a position, in a snapshot; several of one id come as the last."""
    tables, number = _check(session, table, position)
    cells = ", ".join(_cells(table))
    rows = session.execute(
        f"SELECT c.seq, {_order(table, tables, 'c')}, {cells} FROM {tables.changes} AS c"
        " WHERE c.seq > ?1 ORDER BY c.seq LIMIT ?2",
        (number, limit),
    ).fetchall()
    last: dict[str, tuple[int, int]] = {}
    for seq, order, *key in rows:
        id = _id_of(table, key)
        if id is not None:
            last.pop(id, None)  # so that it comes at its last place
            last[id] = (seq, order)
    records = read_by_ids(session, table, list(last))
    changes = [StoredChange(id, records.get(id), order, str(seq)) for id, (seq, order) in last.items()]
    end = str(rows[-1][0]) if rows else position.place
    return ChangePage(changes, Position(position.source, end), caught_up=len(rows) < limit)


def _id_of(table: SQLiteTable, key: Sequence[Any]) -> str | None:
    """Return the id of a row with this key; None where it has none: such a row is no record."""
    try:
        return id_of_cells(table.keys, key)
    except NoCanonicalFormError:
        return None


def _order(table: SQLiteTable, tables: ChangeTables, row: str) -> str:
    """Return the greatest number that the side table holds for the key of a row of it."""
    same = " AND ".join(f"o.{cell} IS {row}.{cell}" for cell in _cells(table))
    return f"(SELECT max(o.seq) FROM {tables.changes} AS o WHERE {same})"


def read_records(
    session: SQLiteSession, table: SQLiteTable, position: Position, limit: int
) -> tuple[list[StoredChange], bool]:
    """Return records after the id `position.after`, in the order of ids, in a snapshot."""
    tables, _ = _check(session, table, position)
    after = After((position.after,)) if position.after else None
    page = fetch(session, table, PageRequest(TRUE, None, limit, after))
    ids = [record.id for record in page.records if record.id is not None]
    changes = [
        StoredChange(id, record, _order_of(session, table, tables, id))
        for id, record in zip(ids, page.records, strict=True)
    ]
    return changes, page.after is not None


def _order_of(session: SQLiteSession, table: SQLiteTable, tables: ChangeTables, id: str) -> int | None:
    """Return the order of an id; None if the side table does not hold it."""
    args: list[Any] = []
    terms = []
    for cell, value in zip(_cells(table), key_of(table, id) or (), strict=False):
        # A number may also be the text that it is written as, a text the bytes that it stands for.
        forms: list[Any] = [value, id if len(table.key) == 1 else value]
        forms += [parse_bytes(value)] if isinstance(value, str) else []
        terms.append(f"{cell} IN ({', '.join('?' * len(forms))})")
        args += forms
    if not terms:
        return None
    text = f"SELECT max(seq) FROM {tables.changes} WHERE {' AND '.join(terms)}"
    order: int | None = session.execute(text, args).fetchone()[0]
    return order


def _check(session: SQLiteSession, table: SQLiteTable, position: Position) -> tuple[ChangeTables, int]:
    if find_changes(session.connection, table.name) is None:
        raise missing_triggers(table)
    return check_position(session, table.name, position)
