"""Declared columns as stored generated columns, which every program that writes the table keeps.

SQLite cannot add such a column to a table, so one that exists is written again as a whole. The
declarations are kept in a table of the file. No column has a declared type: an affinity would turn the
text "007" into 7.

A row is *odd* if one of the declared paths holds something else than its column can: another type, an
object, or a list at its end or before it. On the other rows a column is the only value at its path, or
NULL where there is none (docs/decisions/0020).
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from isthmus._core.columns import DeclaredColumn, OddRows
from isthmus._path import Path, Root
from isthmus.backends.sqlite.fields import UNREACHABLE, JSONField, json_path
from isthmus.backends.sqlite.statement import quote_name
from isthmus.errors import ConfigError

log = logging.getLogger("isthmus.sqlite.schema")

ODD = "isthmus_odd"
"""The column that is 1 in odd rows and NULL in others."""
COLUMN_CATALOG = "isthmus_columns"
_KINDS = {"number": ("integer", "real"), "text": ("text",), "bool": ("true", "false")}
_DOCUMENTS = ("data", "metadata")
# Other names of the row's number, and words that would mean a column of that name.
_TAKEN = frozenset({"rowid", "oid", "_rowid_", "true", "false", ODD})


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A declared column of a table."""

    column: DeclaredColumn
    name: str

    @property
    def sql(self) -> str:
        """Return the column in statements."""
        return quote_name(self.name)

    def definition(self) -> str:
        """Return the definition of the generated column."""
        field = _field(self.column)
        value = f"CASE WHEN {field.kind(None)} IN {_kinds(self.column)} THEN {field.value(None)} END"
        return f"{self.sql} GENERATED ALWAYS AS ({value}) STORED"


def check_column(column: DeclaredColumn) -> DeclaredColumn:
    """Return a column; raises `ConfigError` for a path that SQLite has no form for."""
    if json_path(column.path.keys) is None:
        raise ConfigError(f"sqlite: {str(column.path)!r} cannot be a column: {UNREACHABLE}")
    return column


def _field(column: DeclaredColumn) -> JSONField:
    return JSONField("data", column.path.keys)


def _kinds(column: DeclaredColumn, *more: str) -> str:
    return "(" + ", ".join(f"'{kind}'" for kind in (*_KINDS[column.kind], *more)) + ")"


def is_odd(columns: Iterable[DeclaredColumn]) -> str:
    """Return the condition that a row is odd, on the data alone; it may be NULL for others."""
    parts = []
    for column in columns:
        field = _field(column)
        parts.append(f"{field.kind(None)} NOT IN {_kinds(column, 'null')}")
        parts += [f"{field.kind(None, depth)} = 'array'" for depth in range(1, len(field.keys))]
    return " OR ".join(parts)


def read_columns(connection: sqlite3.Connection, table: str) -> dict[Path, StoredColumn]:
    """Return the declared columns that a table has."""
    exists = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1"
    if connection.execute(exists, (COLUMN_CATALOG,)).fetchone() is None:
        return {}
    rows = connection.execute(
        f"SELECT name, path, kind FROM {COLUMN_CATALOG} WHERE collection = ?1 ORDER BY name", (table,)
    ).fetchall()
    columns = {}
    for name, keys, kind in rows:
        path = Path(Root.DATA, tuple(orjson.loads(keys)))
        columns[path] = StoredColumn(DeclaredColumn(path, kind), name)
    return columns


def write_columns(
    connection: sqlite3.Connection, table: str, columns: Iterable[DeclaredColumn]
) -> dict[Path, StoredColumn]:
    """Let a table have these columns and no others, in the open transaction: it is written as a whole."""
    described = connection.execute(f"PRAGMA table_xinfo({quote_name(table)})").fetchall()
    plain = [row for row in described if row[6] == 0]
    stored = _name_columns(columns, (row[1] for row in plain))
    script = [
        row[0]
        for row in connection.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = ?1 COLLATE NOCASE AND sql IS NOT NULL"
            " AND type IN ('index', 'trigger') AND name <> ?2 ORDER BY rowid",
            (table, _index_name(table)),
        )
    ]
    # To reach a column SQLite reads what is before it: the documents come last.
    first = [_define(row) for row in plain if row[1] not in _DOCUMENTS]
    documents = [_define(row) for row in plain if row[1] in _DOCUMENTS]
    generated = [column.definition() for column in stored.values()]
    if generated:
        # A column that has a value was reached through objects only: then nothing else is to be looked at.
        condition = " OR ".join(
            f"{column.sql} IS NULL AND ({is_odd([column.column])})" for column in stored.values()
        )
        generated.insert(0, f"{ODD} GENERATED ALWAYS AS (CASE WHEN {condition} THEN 1 END) STORED")
    new = quote_name(f"{table}.new#")
    connection.execute(f"CREATE TABLE {new} ({', '.join([*first, *generated, *documents])})")
    names = ", ".join(quote_name(row[1]) for row in plain)
    connection.execute(f"INSERT INTO {new} ({names}) SELECT {names} FROM {quote_name(table)}")
    connection.execute(f"DROP TABLE {quote_name(table)}")
    # Otherwise a view of the user's that reads the table, which is missing for a moment, is an error.
    connection.execute("PRAGMA legacy_alter_table = ON")
    connection.execute(f"ALTER TABLE {new} RENAME TO {quote_name(table)}")
    connection.execute("PRAGMA legacy_alter_table = OFF")
    if stored:
        script.append(
            f"CREATE INDEX {quote_name(_index_name(table))} ON {quote_name(table)} (id) WHERE {ODD} = 1"
        )
    for statement in script:
        connection.execute(statement)
    _keep(connection, table, stored)
    return stored


def _define(row: Any) -> str:
    """Return the definition of a column that `table_xinfo` describes."""
    _, name, kind, required, default, key, _ = row
    parts = [quote_name(name), kind]
    if key:
        parts.append("PRIMARY KEY")
    if required:
        parts.append("NOT NULL")
    if default is not None:
        parts.append(f"DEFAULT ({default})")
    return " ".join(parts)


def _name_columns(columns: Iterable[DeclaredColumn], taken: Iterable[str]) -> dict[Path, StoredColumn]:
    # SQLite ignores the case of names.
    used = {*_TAKEN, *(name.lower() for name in taken)}
    found = {}
    for column in columns:
        name = ".".join(column.path.keys)
        if name.lower() in used:
            digest = hashlib.blake2b(repr(column.path.keys).encode(), digest_size=6).hexdigest()
            name = f"{name[:40]}#{digest}"
        used.add(name.lower())
        found[column.path] = StoredColumn(column, name)
    return found


def _keep(connection: sqlite3.Connection, table: str, stored: Mapping[Path, StoredColumn]) -> None:
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {COLUMN_CATALOG} (collection TEXT NOT NULL, name TEXT NOT NULL,"
        " path TEXT NOT NULL, kind TEXT NOT NULL, PRIMARY KEY (collection, name))"
    )
    connection.execute(f"DELETE FROM {COLUMN_CATALOG} WHERE collection = ?1", (table,))
    connection.executemany(
        f"INSERT INTO {COLUMN_CATALOG} VALUES (?1, ?2, ?3, ?4)",
        [
            (table, column.name, orjson.dumps(path.keys).decode(), column.column.kind)
            for path, column in stored.items()
        ],
    )


def _index_name(table: str) -> str:
    return f"{table}.odd#"


def find_odd(connection: sqlite3.Connection, source: str, columns: Sequence[DeclaredColumn]) -> OddRows:
    """Return how many records are odd by each column, and the size of the file; one scan."""
    counts = "".join(f", count(CASE WHEN {is_odd([column])} THEN 1 END)" for column in columns)
    records, *odd = connection.execute(f"SELECT count(*){counts} FROM {source}").fetchone()
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return OddRows(
        records, {str(column): count for column, count in zip(columns, odd, strict=True)}, pages * size
    )
