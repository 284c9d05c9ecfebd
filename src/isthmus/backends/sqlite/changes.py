"""Reads the changes of a collection in the order of their keys, and prunes them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from isthmus._core.changes import (
    ChangePage,
    Position,
    StoredChange,
    missing_changes,
    other_source,
    parse_number,
    pruning_error,
)
from isthmus.backends.sqlite.change_tables import ChangeTables, find_changes
from isthmus.backends.sqlite.modify import decode_row
from isthmus.backends.sqlite.schema import CHANGES_CATALOG, MARKS, ORDER_COLUMN, table_exists
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import quote_name

BATCH = 10_000
"""Changes that are removed at once."""
_MARKS = 100
"""Marks that are made while a change is kept."""
_COLUMNS = "t.id, t.data, t.metadata, t.version, t.created_at, t.updated_at"


def current_position(session: SQLiteSession, collection: str) -> Position | None:
    """Return the position after the last commit, in a snapshot; None if there is no such table."""
    tables = find_changes(session.connection, collection)
    if tables is None:
        if not table_exists(session.connection, collection):
            return None
        raise missing_changes(collection)
    return Position(tables.making, str(last_number(session, tables)))


def last_number(session: SQLiteSession, tables: ChangeTables) -> int:
    """Return the greatest order that was given."""
    return int(session.execute(f"SELECT {tables.last}").fetchone()[0])


def check_position(session: SQLiteSession, collection: str, position: Position) -> tuple[ChangeTables, int]:
    """Return where to read; raises `ChangesExpiredError` for a position that cannot be continued."""
    tables = find_changes(session.connection, collection)
    if tables is None and table_exists(session.connection, collection):
        raise missing_changes(collection)
    number = parse_number(position.place)
    # A file that was restored has given fewer numbers than it had when the position was taken.
    if tables is None or tables.making != position.source or number > last_number(session, tables):
        raise other_source(collection)
    row = session.execute(
        f"SELECT pruned FROM {CHANGES_CATALOG} WHERE collection = ?1", (collection,)
    ).fetchone()
    if number < row[0]:
        raise pruning_error(collection)
    return tables, number


def read_changes(session: SQLiteSession, collection: str, position: Position, limit: int) -> ChangePage:
    """Return at most `limit` changes after a position, in a snapshot; several of one id come as the last."""
    tables, number = check_position(session, collection, position)
    rows = session.execute(
        f"SELECT c.seq, c.id, t.{ORDER_COLUMN}, d.seq, {_COLUMNS}"
        f" FROM (SELECT seq, id FROM {tables.changes} WHERE seq > ?1 ORDER BY seq LIMIT ?2) AS c"
        f" LEFT JOIN {quote_name(collection)} AS t ON t.id = c.id"
        f" LEFT JOIN {tables.deleted} AS d ON d.id = c.id ORDER BY c.seq",
        (number, limit),
    ).fetchall()
    last = {row[1]: row[0] for row in rows}
    changes = [_change(row) for row in rows if last[row[1]] == row[0]]
    end = str(rows[-1][0]) if rows else position.place
    return ChangePage(changes, Position(position.source, end), caught_up=len(rows) < limit)


def _change(row: Sequence[Any]) -> StoredChange:
    seq, id, order, deleted = row[:4]
    if row[4] is None:
        return StoredChange(id, None, deleted, str(seq))
    return StoredChange(id, decode_row(row[4:]), order, str(seq))


def read_records(
    session: SQLiteSession, collection: str, position: Position, limit: int
) -> tuple[list[StoredChange], bool]:
    """Return records after the id `position.after`, by id, and whether there are more, in a snapshot."""
    check_position(session, collection, position)
    rows = session.execute(
        f"SELECT t.{ORDER_COLUMN}, {_COLUMNS} FROM {quote_name(collection)} AS t"
        " WHERE t.id > ?1 ORDER BY t.id LIMIT ?2",
        (position.after or "", limit),
    ).fetchall()
    changes = [StoredChange(row[1], decode_row(row[1:]), row[0]) for row in rows]
    return changes, len(changes) == limit


def prune(session: SQLiteSession, collection: str, keep: float) -> bool:
    """Remove changes that are older than `keep` seconds, in a transaction; return whether more are left.

    The time of a change is not stored: marks say which was the last one at which time.
    """
    tables = find_changes(session.connection, collection)
    if tables is None:
        return False
    now = time.time()
    # Of a clock that was set back: they would stand for recent ones until it is there again.
    session.execute(f"DELETE FROM {MARKS} WHERE collection = ?1 AND at > ?2", (collection, now))
    recent = f"SELECT 1 FROM {MARKS} WHERE collection = ?1 AND at > ?2 LIMIT 1"
    if session.execute(recent, (collection, now - keep / _MARKS)).fetchone() is None:
        session.execute(
            f"INSERT INTO {MARKS} VALUES (?1, ?2, ?3)", (collection, now, last_number(session, tables))
        )
    mark = session.execute(
        f"SELECT at, seq FROM {MARKS} WHERE collection = ?1 AND at <= ?2 ORDER BY at DESC LIMIT 1",
        (collection, now - keep),
    ).fetchone()
    if mark is None:
        return False
    at, seq = mark
    # The newest change stays: from it the next one gets its number.
    seq = min(seq, last_number(session, tables) - 1)
    row = session.execute(
        f"SELECT max(seq) FROM (SELECT seq FROM {tables.changes} WHERE seq <= ?1 ORDER BY seq LIMIT {BATCH})",
        (seq,),
    ).fetchone()
    if row[0] is not None:
        session.execute(f"DELETE FROM {tables.changes} WHERE seq <= ?1", row)
        if table_exists(session.connection, tables.deleted):  # tables that others made have none
            session.execute(f"DELETE FROM {tables.deleted} WHERE seq <= ?1", row)
        session.execute(
            f"UPDATE {CHANGES_CATALOG} SET pruned = ?2 WHERE collection = ?1", (collection, row[0])
        )
        if row[0] < seq:
            return True
    session.execute(f"DELETE FROM {MARKS} WHERE collection = ?1 AND at < ?2", (collection, at))
    return False
