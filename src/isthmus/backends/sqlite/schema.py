"""Tables, their indexes, and the marks by which isthmus recognizes its own files."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from isthmus._core.columns import DeclaredColumn
from isthmus._core.unique import Unique
from isthmus._path import Path, Root, parse_path
from isthmus.backends.sqlite.columns import COLUMN_CATALOG, StoredColumn
from isthmus.backends.sqlite.fields import JSONField, field_of
from isthmus.backends.sqlite.statement import quote_name
from isthmus.errors import ConfigError, IsthmusError, UsageError

FORMAT = 2
"""The newest format of a collection that is read: 1, and 2 for one with unique fields, columns or changes."""
PLAIN_FORMAT, DECLARED_FORMAT = 1, 2
FILE_FORMAT = 1
# "isth" in the header of a file that isthmus created, where `file` and other tools look.
APPLICATION_ID = 0x69737468
CATALOG = "isthmus_collections"
UNIQUE_CATALOG = "isthmus_unique"
CHANGES_CATALOG = "isthmus_changes"
MARKS = "isthmus_change_marks"
_RESERVED = {CATALOG, UNIQUE_CATALOG, CHANGES_CATALOG, COLUMN_CATALOG, MARKS}
ORDER_COLUMN = "change_order"
"""The column of a table that keeps its changes: a number that is greater for each later write of a row."""
COLUMNS = ["id", "data", "metadata", "version", "created_at", "updated_at"]
_SIMPLE_NAME = re.compile(r"[a-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class Table:
    """One collection's table and the paths that have an index."""

    name: str
    indexed: frozenset[Path] = frozenset()
    dropped: bool = False
    unique: frozenset[Unique] = frozenset()
    order: str = ""
    """The order of a new row as SQL, for a table that keeps its changes."""
    columns: Mapping[Path, StoredColumn] = field(default_factory=dict, hash=False)
    """The declared columns that the table has."""
    missing: tuple[DeclaredColumn, ...] = ()
    """Columns that a handle declares and the table lacks."""

    @property
    def source(self) -> str:
        """Return what a query selects from: the table, or no rows if it was dropped."""
        if not self.dropped:
            return quote_name(self.name)
        return f"(SELECT {', '.join(f'NULL AS {column}' for column in COLUMNS)} WHERE 0)"

    def without_rows(self) -> Table:
        """Return the table as one that was dropped."""
        return Table(self.name, dropped=True)


def check_name(name: str) -> str:
    """Return a collection's name; raises `UsageError` if no table can have it."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= 200 or "\0" in name:
        raise UsageError(f"collection {name!r}: a name is 1 to 200 bytes of text without U+0000")
    if name.lower().startswith("sqlite_") or name.lower() in _RESERVED:
        raise UsageError(f"collection {name!r}: this name is reserved by SQLite or isthmus")
    return name


def check_format(connection: sqlite3.Connection, path: str) -> None:
    """Raise `ConfigError` for a file that a newer isthmus wrote, or whose text is UTF-16."""
    encoding = connection.execute("PRAGMA encoding").fetchone()[0]
    if encoding != "UTF-8":
        raise ConfigError(f"{path}: text is {encoding}, which is not ordered by code point; use a new file")
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID and version > FILE_FORMAT:
        raise _newer_format(path, version)


def _newer_format(path: str, version: int) -> IsthmusError:
    return ConfigError(
        f"{path}: was written in format {version} by a newer isthmus, and this one knows {FORMAT}: upgrade"
    )


def find_table(connection: sqlite3.Connection, path: str, name: str) -> Table | None:
    """Return a collection's table, or None if there is none.

    Raises `ConfigError` for one of a newer format, or whose name differs in case only.
    """
    if not table_exists(connection, CATALOG):
        return None
    rows = connection.execute(
        f"SELECT name, format, indexes FROM {CATALOG} WHERE name = ?1 COLLATE NOCASE", (name,)
    ).fetchall()
    for stored, version, indexes in rows:
        if version > FORMAT:
            raise _newer_format(path, version)
        if stored != name:
            raise ConfigError(
                f"{path}: collection {name!r} clashes with {stored!r}: SQLite ignores the case of names"
            )
        if not table_exists(connection, name):
            return None
        paths = (Path(Root(root), tuple(keys)) for root, keys in orjson.loads(indexes))
        return Table(name, frozenset(paths))
    return None


def table_exists(connection: sqlite3.Connection, name: str) -> bool:
    """Return whether there is a table or view, whatever its case."""
    found = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE", (name,)
    )
    return found.fetchone() is not None


def create_table(connection: sqlite3.Connection, path: str, name: str, indexes: tuple[Path, ...]) -> Table:
    """Create the missing table and indexes of a collection, in the open transaction."""
    _mark_file(connection)
    present = find_table(connection, path, name)
    if present is None:
        _refuse_foreign(connection, path, name)
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {quote_name(name)} ("
            "id TEXT PRIMARY KEY NOT NULL, data TEXT NOT NULL, metadata TEXT NOT NULL,"
            " version INTEGER NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL)"
        )
        present = Table(name)
    if not has_changes(connection, name):
        create_version_trigger(connection, name)
    missing = [index for index in indexes if index not in present.indexed]
    for index in missing:
        _create_index(connection, name, index)
    table = Table(name, present.indexed | frozenset(missing))
    paths = sorted((index.root.value, index.keys) for index in table.indexed)
    connection.execute(
        f"INSERT INTO {CATALOG} VALUES (?1, ?2, ?3)"
        " ON CONFLICT(name) DO UPDATE SET indexes = excluded.indexes",
        (name, PLAIN_FORMAT, orjson.dumps(paths).decode()),
    )
    return table


def has_changes(connection: sqlite3.Connection, name: str) -> bool:
    """Return whether a collection keeps its changes."""
    if not table_exists(connection, CHANGES_CATALOG):
        return False
    found = connection.execute(f"SELECT 1 FROM {CHANGES_CATALOG} WHERE collection = ?1", (name,))
    return found.fetchone() is not None


def version_trigger_name(name: str) -> str:
    """Return the name of the trigger that renews versions."""
    return f"{name}.version"


def create_version_trigger(connection: sqlite3.Connection, name: str) -> None:
    """Let a row that other programs update get a new version; ours set it themselves.

    There is none on inserts, which would cost each of ours a look-up: INSERT OR REPLACE has the version
    that it gives.
    """
    table = quote_name(name)
    connection.execute(
        f"CREATE TRIGGER IF NOT EXISTS {quote_name(version_trigger_name(name))}"
        f" AFTER UPDATE OF id, data, metadata ON {table} WHEN OLD.version = NEW.version"
        f" BEGIN UPDATE {table} SET version = random() & {2**62 - 1},"
        " updated_at = CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) WHERE id = NEW.id; END"
    )


def drop_table(connection: sqlite3.Connection, path: str, name: str) -> None:
    """Drop a collection's table and indexes, if it exists, in the open transaction."""
    if find_table(connection, path, name) is not None:
        connection.execute(f"DROP TABLE {quote_name(name)}")
        for catalog in (UNIQUE_CATALOG, COLUMN_CATALOG):
            if table_exists(connection, catalog):
                connection.execute(f"DELETE FROM {catalog} WHERE collection = ?1", (name,))
        connection.execute(f"DELETE FROM {CATALOG} WHERE name = ?1", (name,))


def _mark_file(connection: sqlite3.Connection) -> None:
    if table_exists(connection, CATALOG):
        return
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        # A new file is ours; the header of one that another program created stays as it is.
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FILE_FORMAT}")
    connection.execute(
        f"CREATE TABLE {CATALOG}"
        " (name TEXT PRIMARY KEY NOT NULL, format INTEGER NOT NULL, indexes TEXT NOT NULL)"
    )


def _refuse_foreign(connection: sqlite3.Connection, path: str, name: str) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({quote_name(name)})")]
    if columns and columns != COLUMNS:
        raise ConfigError(f"{path}: table {name!r} was not made by isthmus; choose another `table`")


def index_paths(names: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the paths of declared indexes; raises `ConfigError` for a field that cannot have one."""
    paths = []
    for name in names:
        path = parse_path(name)
        if not isinstance(field_of(path), JSONField) or not path.keys:
            raise ConfigError(f"sqlite: {name!r} cannot have an index: only fields of data and metadata can")
        paths.append(path)
    return tuple(paths)


def index_name(table: str, path: Path) -> str:
    """Return the name of a path's index, distinct even though SQLite ignores case."""
    name = f"{table}.{path}"
    if _SIMPLE_NAME.fullmatch(name) is None:
        name += "#" + hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return name


def _create_index(connection: sqlite3.Connection, table: str, path: Path) -> None:
    """Create the index that serves filters and orders on a path.

    One index on (type rank, scalar, id), of built-in functions only, so that any program can write
    to the table. It never refuses a record: SQLite does not limit the size of an index entry.
    """
    field = field_of(path)
    assert isinstance(field, JSONField)
    connection.execute(
        f"CREATE INDEX IF NOT EXISTS {quote_name(index_name(table, path))} ON {quote_name(table)}"
        f" ({field.index_type_rank()}, {field.index_scalar()}, id)"
    )


def collection_names(connection: sqlite3.Connection) -> list[str]:
    """Return the names of all collections, sorted."""
    if not table_exists(connection, CATALOG):
        return []
    names = connection.execute(f"SELECT name FROM {CATALOG}").fetchall()
    return sorted(name for (name,) in names if table_exists(connection, name))
