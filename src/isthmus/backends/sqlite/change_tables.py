"""The tables and triggers by which a file keeps the changes of a collection (meaning §10).

A trigger writes the id of each changed row to a side table, whose key is the row's order; there is one
writer at a time, so the order of the keys is that of the commits. Deleted ids keep theirs in a table of
their own. It works for any program that writes to the file.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass

from isthmus._core.changes import missing_changes
from isthmus._ids import new_id
from isthmus.backends.sqlite.schema import (
    CATALOG,
    CHANGES_CATALOG,
    COLUMNS,
    DECLARED_FORMAT,
    MARKS,
    ORDER_COLUMN,
    create_version_trigger,
    table_exists,
    version_trigger_name,
)
from isthmus.backends.sqlite.statement import quote_name

CATALOG_STATEMENTS = (
    f"CREATE TABLE IF NOT EXISTS {CHANGES_CATALOG}"
    " (collection TEXT PRIMARY KEY NOT NULL, making TEXT NOT NULL, pruned INTEGER NOT NULL)",
    f"CREATE TABLE IF NOT EXISTS {MARKS} (collection TEXT NOT NULL, at REAL NOT NULL, seq INTEGER NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class ChangeTables:
    """The objects of one collection."""

    name: str
    """The collection."""
    making: str
    """Tells it from one of the same name that was dropped."""

    @property
    def digest(self) -> str:
        """A part of names that SQLite, which ignores case, tells apart."""
        return hashlib.blake2b(self.name.encode(), digest_size=8).hexdigest()

    @property
    def changes(self) -> str:
        """The name of the side table: rows (seq, id)."""
        return f"isthmus_changes_{self.digest}"

    @property
    def deleted(self) -> str:
        """The name of the table with the order of each deleted id."""
        return f"isthmus_deleted_{self.digest}"

    @property
    def last(self) -> str:
        """The greatest order that was given, as SQL; the newest change is never pruned."""
        return f"COALESCE((SELECT max(seq) FROM {self.changes}), 0)"


def find_changes(connection: sqlite3.Connection, name: str) -> ChangeTables | None:
    """Return the objects of a collection that keeps its changes; None for another one."""
    if not table_exists(connection, CHANGES_CATALOG):
        return None
    row = connection.execute(
        f"SELECT making FROM {CHANGES_CATALOG} WHERE collection = ?1", (name,)
    ).fetchone()
    return None if row is None else ChangeTables(name, row[0])


def ensure_changes(connection: sqlite3.Connection, name: str, *, may_create: bool) -> bool:
    """Let a collection without records keep its changes, in the open transaction; return whether it is new.

    Raises `ConfigError` for one with records, or if nothing may be created.
    """
    if find_changes(connection, name) is not None:
        return False
    if not may_create or connection.execute(f"SELECT 1 FROM {quote_name(name)} LIMIT 1").fetchone():
        raise missing_changes(name)
    add_changes(connection, name)
    return True


def add_changes(connection: sqlite3.Connection, name: str) -> None:
    """Let a collection keep its changes, in the open transaction."""
    tables = ChangeTables(name, new_id())
    for statement in CATALOG_STATEMENTS:
        connection.execute(statement)
    for statement in definitions(connection, tables):
        connection.execute(statement)
    connection.execute(f"INSERT INTO {CHANGES_CATALOG} VALUES (?1, ?2, 0)", (name, tables.making))
    connection.execute(f"UPDATE {CATALOG} SET format = ?2 WHERE name = ?1", (name, DECLARED_FORMAT))


def definitions(connection: sqlite3.Connection, tables: ChangeTables) -> list[str]:
    """Return the statements that create the side tables and triggers of a collection."""
    table = quote_name(tables.name)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    column = [f"ALTER TABLE {table} ADD COLUMN {ORDER_COLUMN} INTEGER NOT NULL DEFAULT 0"]
    return [
        *([] if ORDER_COLUMN in columns else column),
        f"CREATE TABLE {tables.changes} (seq INTEGER PRIMARY KEY, id TEXT NOT NULL)",
        f"CREATE TABLE {tables.deleted} (id TEXT PRIMARY KEY NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID",
        f"CREATE INDEX {tables.deleted}_seq ON {tables.deleted} (seq)",
        f"DROP TRIGGER IF EXISTS {quote_name(version_trigger_name(tables.name))}",
        *_triggers(tables),
    ]


def _triggers(tables: ChangeTables) -> list[str]:
    """Return the statements that create the triggers.

    No statement in them can meet a conflict: the conflict clause of the statement that runs the trigger
    would hold for it.
    """
    table = quote_name(tables.name)
    forget = (
        f"INSERT INTO {tables.changes} (id) VALUES (OLD.id); DELETE FROM {tables.deleted} WHERE id = OLD.id;"
        f" INSERT INTO {tables.deleted} VALUES (OLD.id, last_insert_rowid());"
    )
    given = f"CASE WHEN NEW.{ORDER_COLUMN} > {tables.last} THEN NEW.{ORDER_COLUMN} END"
    note = f"INSERT INTO {tables.changes} (seq, id) VALUES ({given}, NEW.id);"
    renumber = f"UPDATE {table} SET {ORDER_COLUMN} = {tables.last}"
    # What these triggers set themselves is the order that was given last.
    own = f"NEW.{ORDER_COLUMN} > OLD.{ORDER_COLUMN} AND NEW.{ORDER_COLUMN} = {tables.last}"
    return [
        # Our own statements draw the order, so that the row is not written twice. Neither this trigger nor
        # one that it fires calls a function, which could fail: SQLite would then keep a copy of each page
        # that any row of a batch is written to.
        f"CREATE TRIGGER {trigger_name(tables, 'insert')} AFTER INSERT ON {table} BEGIN {note}"
        f" {renumber} WHERE rowid = CASE WHEN NEW.{ORDER_COLUMN} < {tables.last} THEN NEW.rowid END; END",
        f"CREATE TRIGGER {trigger_name(tables, 'order')} AFTER UPDATE OF {ORDER_COLUMN} ON {table}"
        f" WHEN OLD.{ORDER_COLUMN} <> NEW.{ORDER_COLUMN} AND NOT ({own})"
        f" BEGIN {note} {renumber} WHERE rowid = NEW.rowid; END",
        # It renews the version as the trigger of other tables does. Of two triggers SQLite fires first
        # the one that was created last.
        f"CREATE TRIGGER {trigger_name(tables, 'update')} AFTER UPDATE OF {', '.join(COLUMNS)} ON {table}"
        f" WHEN NOT ({own}) BEGIN {note} {renumber},"
        f" version = CASE WHEN OLD.version = NEW.version THEN random() & {2**62 - 1} ELSE version END,"
        " updated_at = CASE WHEN OLD.version = NEW.version"
        " THEN CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) ELSE updated_at END"
        f" WHERE rowid = NEW.rowid"
        f" AND (OLD.version = NEW.version OR NEW.{ORDER_COLUMN} < {tables.last}); END",
        f"CREATE TRIGGER {trigger_name(tables, 'key')} AFTER UPDATE OF id ON {table}"
        f" WHEN OLD.id IS NOT NEW.id BEGIN {forget} END",
        f"CREATE TRIGGER {trigger_name(tables, 'delete')} AFTER DELETE ON {table} BEGIN {forget} END",
    ]


def trigger_name(tables: ChangeTables, event: str) -> str:
    """Return the name of a trigger: `insert`, `order`, `update`, `key` or `delete`."""
    return f"isthmus_{event}_{tables.digest}"


def trigger_names(tables: ChangeTables) -> list[str]:
    """Return the names of all triggers of a collection."""
    return [trigger_name(tables, event) for event in ("insert", "order", "update", "key", "delete")]


def displacing_trigger(tables: ChangeTables, part: str) -> str:
    """Return the name of a trigger that a unique field adds."""
    return f"isthmus_displaced_{tables.digest}_{part}"


def drop_changes(connection: sqlite3.Connection, name: str, *, keep_table: bool) -> None:
    """Remove the changes of a collection, if it keeps them, in the open transaction.

    With `keep_table` the triggers too, which else go with their table; the column stays.
    """
    tables = find_changes(connection, name)
    if tables is None:
        return
    if keep_table:
        prefix = displacing_trigger(tables, "")
        more = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND substr(name, 1, ?1) = ?2",
            (len(prefix), prefix),
        ).fetchall()
        for trigger in (*trigger_names(tables), *(row[0] for row in more)):
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        create_version_trigger(connection, name)
    connection.execute(f"DROP TABLE IF EXISTS {tables.changes}")
    connection.execute(f"DROP TABLE IF EXISTS {tables.deleted}")
    for catalog in (CHANGES_CATALOG, MARKS):
        connection.execute(f"DELETE FROM {catalog} WHERE collection = ?1", (name,))
