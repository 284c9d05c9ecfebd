"""A table or view of a file as its catalog describes it; read only, with PRAGMA statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus._ids import MAX_ID_BYTES
from isthmus._values import JSON
from isthmus.backends._tables.column import Table
from isthmus.backends._tables.keys import id_of
from isthmus.backends._tables.values import NoCanonicalFormError
from isthmus.backends.sqlite.native.columns import (
    Affinity,
    SQLiteColumn,
    affinity_of,
    kind_of_column,
    read_cell,
)
from isthmus.backends.sqlite.statement import quote_name
from isthmus.errors import ConfigError

# Hidden columns of virtual tables; generated columns that are computed, and those that are stored.
_HIDDEN, _VIRTUAL, _STORED = 1, 2, 3
_COLLATIONS = ("BINARY", "NOCASE", "RTRIM")


@dataclass(frozen=True, slots=True)
class SQLiteTable(Table):
    """One table or view; `columns` are all `SQLiteColumn`s."""

    schema_version: int = 0
    """The file's counter of schema changes when this was read."""
    unique_key: bool = True
    """Whether the table itself has no two rows with one key."""
    indexes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Each index and its columns."""
    leading: frozenset[str] = frozenset()
    """The first columns of indexes by code point over all rows."""
    cells_by_name: tuple[tuple[str, SQLiteColumn], ...] = field(init=False, repr=False, compare=False)
    key_places: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Where the key's columns are in a selected row."""

    def __post_init__(self) -> None:
        super(SQLiteTable, self).__post_init__()
        names = [column.name for column in self.columns]
        object.__setattr__(self, "cells_by_name", tuple(zip(names, self.cells, strict=True)))
        object.__setattr__(self, "key_places", tuple(names.index(name) for name in self.key))

    @property
    def cells(self) -> tuple[SQLiteColumn, ...]:
        """The columns, in the order of a selected row."""
        return self.columns  # type: ignore[return-value]

    @property
    def keys(self) -> tuple[SQLiteColumn, ...]:
        """The key columns, in key order."""
        return self.key_columns  # type: ignore[return-value]

    @property
    def may_repeat(self) -> bool:
        """Whether two rows may have one id: of a view, or such as 7 and '7' in a column without a type."""
        return not self.unique_key or any(column.affinity is Affinity.NONE for column in self.keys)

    @property
    def source(self) -> str:
        """What a query selects from."""
        return f"{quote_name(self.name)} AS t"

    @property
    def row(self) -> str:
        """What a query selects."""
        return ", ".join(column.sql for column in self.columns if isinstance(column, SQLiteColumn))

    def column(self, name: str) -> SQLiteColumn | None:
        """Return a column by its name; None if there is none."""
        return self.by_name.get(name)  # type: ignore[return-value]

    def read_key(self, row: Sequence[Any]) -> str:
        """Return the id of a selected row; raises `NoCanonicalFormError`."""
        places = self.key_places
        if len(places) == 1 and type(row[places[0]]) is int and not self.cells[places[0]].boolean:
            return str(row[places[0]])
        return id_of_cells(self.keys, [row[place] for place in places])


def id_of_cells(keys: Sequence[SQLiteColumn], cells: Sequence[Any]) -> str:
    """Return the id of a row from the cells of its key columns; raises `NoCanonicalFormError`."""
    values: list[JSON] = []
    for column, cell in zip(keys, cells, strict=True):
        value = read_cell(column, cell)
        if value is None:
            raise NoCanonicalFormError(f"the key column {column.name!r} is NULL")
        if isinstance(cell, bytes) and column.affinity is not Affinity.NONE:
            raise NoCanonicalFormError(f"the key column {column.name!r} has bytes and is not declared BLOB")
        if column.boolean and not isinstance(value, bool):
            raise NoCanonicalFormError(f"the key column {column.name!r} is neither 0 nor 1")
        values.append(value)
    id = id_of(values)
    if not id or len(id.encode()) > MAX_ID_BYTES:
        raise NoCanonicalFormError(f"an id has 1 to {MAX_ID_BYTES} bytes, this key {len(id.encode())}")
    return id


def read_table(
    connection: sqlite3.Connection, path: str, name: str, *, key: Sequence[str], version: str | None
) -> SQLiteTable:
    """Return the table or view of this name; raises `ConfigError` if it cannot be served.

    `key` names the key columns of one that has no primary key.
    """
    kind, without_rowid, strict = _find(connection, path, name)
    [(schema_version,)] = connection.execute("PRAGMA schema_version").fetchall()
    infos = connection.execute(f"PRAGMA table_xinfo({quote_name(name)})").fetchall()
    primary = [info[1] for info in sorted(infos, key=lambda info: info[5]) if info[5]]
    indexes = (
        connection.execute(f"PRAGMA index_list({quote_name(name)})").fetchall() if kind == "table" else []
    )
    alias = _rowid_alias(infos, indexes, without_rowid=without_rowid)
    parts = {index[1]: _index_columns(connection, index[1]) for index in indexes}
    columns = tuple(
        _column(info, strict=strict, stored=kind == "table", rowid=info[1] == alias, parts=parts)
        for info in infos
        if info[6] != _HIDDEN
    )
    keys, read_only, is_unique = _choose_key(path, name, kind, primary, tuple(key), columns)
    made = SQLiteTable(
        name,
        columns,
        keys,
        version,
        read_only,
        schema_version=schema_version,
        unique_key=is_unique,
        leading=frozenset(
            parts[name][0][0]
            for _, name, _, _, partial in indexes
            if not partial and parts[name] and parts[name][0][1] == "BINARY"
        ),
        indexes=tuple((index, tuple(part for part, _ in found)) for index, found in parts.items()),
    )
    if version is not None:
        _check_version(path, made)
    return made


def _find(connection: sqlite3.Connection, path: str, name: str) -> tuple[str, bool, bool]:
    """Return the kind of a table, whether it is WITHOUT ROWID, and whether it is STRICT."""
    rows = connection.execute(
        "SELECT name, type, sql FROM main.sqlite_master"
        " WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE",
        (name,),
    ).fetchall()
    if not rows:
        raise ConfigError(f"{path}: there is no table or view {name!r}")
    [(stored, kind, sql)] = rows
    if stored != name:
        raise ConfigError(
            f"{path}: there is no table {name!r}, but {stored!r}: names are taken to the letter"
        )
    if str(sql).lstrip().upper().startswith("CREATE VIRTUAL"):
        return "virtual table", False, False
    # SQLite has STRICT tables since it has this list.
    listed = connection.execute(
        "SELECT * FROM pragma_table_list WHERE schema = 'main' AND name = ?1", (name,)
    )
    columns = [part[0] for part in listed.description or ()]
    found = dict(zip(columns, listed.fetchone() or (), strict=False))
    return kind, bool(found.get("wr")), bool(found.get("strict"))


def _rowid_alias(infos: list[Any], indexes: list[Any], *, without_rowid: bool) -> str | None:
    """Return the column that is the rowid; None if there is none.

    `INTEGER PRIMARY KEY DESC` is none, by an old mistake of SQLite: it has an index of its own.
    """
    primary = [info for info in infos if info[5]]
    if without_rowid or len(primary) != 1 or primary[0][2].upper() != "INTEGER":
        return None
    return None if any(index[3] == "pk" for index in indexes) else str(primary[0][1])


def _index_columns(connection: sqlite3.Connection, index: str) -> list[tuple[str, str]]:
    """Return the columns of an index with their collations, up to the first expression."""
    columns: list[tuple[str, str]] = []
    for _, _, column, _, collation, is_key in connection.execute(f"PRAGMA index_xinfo({quote_name(index)})"):
        if not is_key or column is None:
            break
        columns.append((column, collation.upper()))
    return columns


def _column(
    info: Any, *, strict: bool, stored: bool, rowid: bool, parts: dict[str, list[tuple[str, str]]]
) -> SQLiteColumn:
    _, name, declared, not_null, default, _, hidden = info
    # A view does not tell whether its table is STRICT; in another one ANY is nobody's type.
    affinity = affinity_of(declared, strict=strict or not stored)
    collations = [
        collation
        for columns in parts.values()
        for column, collation in columns
        if column == name and collation in _COLLATIONS
    ]
    # One by code point serves more, where there are several.
    collation = "BINARY" if "BINARY" in collations or not collations else collations[0]
    return SQLiteColumn(
        name,
        kind_of_column(declared, affinity, rowid=rowid),
        declared,
        nullable=not not_null or rowid,
        has_default=default is not None or rowid,
        generated=hidden in (_VIRTUAL, _STORED),
        exact_equality=collation == "BINARY",
        code_point_order=bool(collations) and collation == "BINARY",
        affinity=affinity,
        strict=strict,
        stored=stored,
        boolean=declared.upper() == "BOOLEAN",
        bytes_only="BLOB" in declared.upper() and affinity is Affinity.NONE,
        rowid=rowid,
        collation=collation,
    )


def _choose_key(
    path: str,
    name: str,
    kind: str,
    primary: list[str],
    given: tuple[str, ...],
    columns: tuple[SQLiteColumn, ...],
) -> tuple[tuple[str, ...], str, bool]:
    """Return the key columns, why the table cannot be written, and whether its key is unique."""
    names = {column.name for column in columns}
    unknown = [column for column in given if column not in names]
    if unknown:
        raise ConfigError(
            f"{path}: {kind} {name!r} has no column {unknown[0]!r}, which the setting `key` names"
        )
    if primary and kind == "table":
        if given and set(given) != set(primary):
            raise ConfigError(
                f"{path}: the key of {name!r} is its primary key ({', '.join(primary)}); leave `key` out"
            )
        return tuple(primary), "", True
    if not given:
        raise ConfigError(
            f"{path}: {kind} {name!r} has no primary key; name the columns that identify a row: key=[…]"
        )
    return given, f"it is a {kind} without a primary key", False


def _check_version(path: str, table: SQLiteTable) -> None:
    column = table.column(table.version or "")
    if column is None:
        raise ConfigError(f"{path}: table {table.name!r} has no column {table.version!r} for `version`")
    if column.generated or column.name in table.key:
        raise ConfigError(f"{path}: the version column {column.name!r} must be neither generated nor the key")
    if column.affinity not in (Affinity.INTEGER, Affinity.TEXT) or column.boolean:
        raise ConfigError(f"{path}: the version column {column.name!r} must be declared INTEGER or TEXT")


def table_names(connection: sqlite3.Connection) -> list[str]:
    """Return the names of a file's tables and views, sorted."""
    rows = connection.execute("SELECT name FROM main.sqlite_master WHERE type IN ('table', 'view')")
    return sorted(name for (name,) in rows if not name.lower().startswith("sqlite_"))
