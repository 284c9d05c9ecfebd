"""Notes the records that a statement with OR REPLACE displaces because of a unique field.

SQLite deletes them without any trigger, unless recursive triggers are on. So a trigger looks before the
statement which record has the value; if the statement is refused after all, nothing of it stays.
"""

from __future__ import annotations

import hashlib
import sqlite3

import orjson

from isthmus._core.unique import Unique
from isthmus.backends.sqlite.change_tables import ChangeTables, displacing_trigger, find_changes
from isthmus.backends.sqlite.statement import quote_name
from isthmus.backends.sqlite.unique import read_unique, unique_terms


def note_displaced(connection: sqlite3.Connection, name: str) -> None:
    """Create the triggers of a collection with changes and unique fields, in the open transaction."""
    tables = find_changes(connection, name)
    if tables is None:
        return
    for unique in sorted(read_unique(connection, name), key=str):
        for event in ("INSERT", "UPDATE"):
            connection.execute(_trigger(tables, unique, event))


def _trigger(tables: ChangeTables, unique: Unique, event: str) -> str:
    table = quote_name(tables.name)
    digest = hashlib.blake2b(orjson.dumps(unique.to_json()), digest_size=6).hexdigest()
    scalar, terms = unique_terms(unique)
    # The expressions have bare names of columns: `new_row` lends them those of the new row.
    new_row = "FROM (SELECT NEW.data AS data, NEW.metadata AS metadata)"
    equal = " AND ".join(f"{term} = (SELECT {term} {new_row})" for term in terms)
    kept = "NEW.id" if event == "INSERT" else "OLD.id"
    found = f"SELECT id FROM {table} WHERE {scalar} AND {equal} AND id <> NEW.id AND id <> {kept}"
    return (
        f"CREATE TRIGGER IF NOT EXISTS {displacing_trigger(tables, f'{event.lower()}_{digest}')}"
        f" BEFORE {event} ON {table} BEGIN"
        f" INSERT INTO {tables.changes} (id) {found};"
        f" DELETE FROM {tables.deleted} WHERE id IN ({found});"
        f" INSERT INTO {tables.deleted} SELECT id, last_insert_rowid() FROM ({found}); END"
    )
