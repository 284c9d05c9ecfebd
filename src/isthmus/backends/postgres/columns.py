"""Declared columns in the schema: found by their comments, made with new tables, added to others on demand.

Generated columns are computed by the server from `data`, so every writer keeps them. Their comments hold
the declaration, so that every handle uses them, whatever its config.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from isthmus._core.columns import DeclaredColumn, OddRows, check_kinds, missing_text
from isthmus._path import Path, Root
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import sqlstate_of
from isthmus.backends.postgres.sql.columns import (
    ODD,
    StoredColumn,
    is_odd,
    new_columns,
    odd_definition,
)
from isthmus.backends.postgres.sql.statement import literal, quote
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.table_lock import lock_table
from isthmus.backends.postgres.table_mark import write_mark
from isthmus.errors import ConfigError

log = logging.getLogger("isthmus.postgres.schema")

_MARK = "isthmus column "
_STORED = (
    "SELECT a.attname::text, col_description(a.attrelid, a.attnum) FROM pg_attribute a"
    " WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped"
)
# Milliseconds that an opening waits for others that use an empty table; the next one tries again.
_PATIENCE = 500
# No right to the table, a lock that was not to be had, a read-only server, two sessions at once.
_SKIPPED = frozenset({"42501", "55P03", "25006", "40P01", "42701"})
# Too many columns, or a table that cannot have generated ones.
_IMPOSSIBLE = frozenset({"54011", "42P16", "0A000", "42809"})


async def read_columns(connection: Connection, table: Table) -> dict[Path, StoredColumn]:
    """Return the declared columns that the table has."""
    return _from_comments(await connection.fetch(_STORED, table.sql))


def _from_comments(rows: Iterable[Any]) -> dict[Path, StoredColumn]:
    comments = {row[0]: row[1] for row in rows}
    found = {}
    for name, comment in comments.items():
        if comment is not None and comment.startswith(_MARK) and name != ODD:
            mark = orjson.loads(comment.removeprefix(_MARK))
            path = Path(Root.DATA, tuple(mark["path"]))
            found[path] = StoredColumn(DeclaredColumn(path, mark["kind"]), name)
    # Without the column that says which rows are odd the others say nothing.
    return found if ODD in comments else {}


def definitions(columns: Mapping[Path, StoredColumn]) -> list[str]:
    """Return the definitions of columns, for a statement that creates a table; none if there are none."""
    if not columns:
        return []
    odd = odd_definition(stored.column for stored in columns.values())
    return [odd, *(stored.definition() for stored in columns.values())]


def comments(table: Table, columns: Mapping[Path, StoredColumn]) -> list[str]:
    """Return the statements that mark columns as declared ones."""
    statements = []
    for path, stored in columns.items():
        mark = orjson.dumps({"path": list(path.keys), "kind": stored.column.kind}).decode()
        statements.append(f"COMMENT ON COLUMN {table.sql}.{quote(stored.name)} IS {literal(_MARK + mark)}")
    return statements


def missing_in(table: Table, columns: Mapping[Path, StoredColumn]) -> list[DeclaredColumn]:
    """Return the declared columns that are not among a table's; raises `ConfigError` for another kind."""
    check_kinds(table.name, (stored.column for stored in columns.values()), table.declared)
    return [column for column in table.declared if column.path not in columns]


async def ensure_columns(
    connection: Connection, table: Table, *, may_alter: bool
) -> dict[Path, StoredColumn]:
    """Return the declared columns that the table has; an empty table gets those that it lacks.

    A table with records is not changed: that is said once, in the log.
    """
    columns = await read_columns(connection, table)
    missing = missing_in(table, columns)
    if missing and may_alter:
        try:
            columns = await _alter_empty(connection, table)
        except Exception as error:
            # The class of the exception depends on the driver; its SQLSTATE does not.
            if sqlstate_of(error) in _IMPOSSIBLE:
                raise _impossible(table, error) from error
            if sqlstate_of(error) not in _SKIPPED:
                raise
            log.info("postgres: %s has no declared columns yet: %s", table.sql, error)
        missing = missing_in(table, columns)
    if missing:
        log.warning("postgres: %s", missing_text(table.name, missing))
    return columns


async def _alter_empty(connection: Connection, table: Table) -> dict[Path, StoredColumn]:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {_PATIENCE}")
        if await connection.fetchval(f"SELECT EXISTS (SELECT 1 FROM {table.sql})"):
            return await read_columns(connection, table)
        await connection.execute(f"LOCK TABLE {table.sql} IN ACCESS EXCLUSIVE MODE")
        if await connection.fetchval(f"SELECT EXISTS (SELECT 1 FROM {table.sql})"):
            return await read_columns(connection, table)
        return await _alter(connection, table, table.declared)


async def add_columns(
    connection: Connection, table: Table, columns: Sequence[DeclaredColumn]
) -> dict[Path, StoredColumn]:
    """Add the columns that a table lacks, while others wait for it; return all that it has.

    Raises `ConfigError` for a column that it has in another kind, or if it cannot have more.
    """
    try:
        async with lock_table(connection, table):
            check_kinds(
                table.name,
                (stored.column for stored in (await read_columns(connection, table)).values()),
                columns,
            )
            stored = await _alter(connection, table, columns)
        await connection.execute(f"ANALYZE {table.sql}")
    except Exception as error:
        if sqlstate_of(error) in _IMPOSSIBLE:
            raise _impossible(table, error) from error
        raise
    return stored


def _impossible(table: Table, error: Exception) -> ConfigError:
    """Return the error of a table that cannot have more columns."""
    return ConfigError(
        f"postgres: {table.sql} cannot have the declared columns: {error}; declare fewer, or drop columns of"
        " your own, or copy the collection into a new table with `isthmus copy`"
    )


async def _alter(
    connection: Connection, table: Table, columns: Iterable[DeclaredColumn]
) -> dict[Path, StoredColumn]:
    """Add the missing columns in the open transaction, whose table is locked; return all."""
    rows = await connection.fetch(_STORED, table.sql)
    stored = _from_comments(rows)
    missing = [column for column in columns if column.path not in stored]
    if not missing:
        return stored
    added = new_columns(missing, (row[0] for row in rows))
    stored |= added
    names = [f"ADD COLUMN {column.definition()}" for column in added.values()]
    # A generated column cannot be changed, only be dropped and added; its indexes go with it.
    odd = odd_definition(column.column for column in stored.values())
    changes = ", ".join([f"DROP COLUMN IF EXISTS {quote(ODD)}", *names, f"ADD COLUMN {odd}"])
    await connection.execute(f"ALTER TABLE {table.sql} {changes}")
    for statement in comments(table, added):
        await connection.execute(statement)
    await write_mark(connection, table)
    return stored


async def drop_columns(connection: Connection, table: Table, paths: Iterable[Path]) -> None:
    """Drop declared columns; a missing one is not an error."""
    async with lock_table(connection, table):
        stored = await read_columns(connection, table)
        dropped = [stored.pop(path).name for path in paths if path in stored]
        if not dropped:
            return
        changes = [f"DROP COLUMN {quote(name)}" for name in (*dropped, ODD)]
        if stored:
            changes.append(f"ADD COLUMN {odd_definition(column.column for column in stored.values())}")
        await connection.execute(f"ALTER TABLE {table.sql} {', '.join(changes)}")


async def find_odd(connection: Connection, table: Table, columns: Sequence[DeclaredColumn]) -> OddRows:
    """Return how many records are odd by each column, and the size of the table; one scan."""
    counts = "".join(f", count(*) FILTER (WHERE {is_odd([column])})" for column in columns)
    size = "pg_total_relation_size($1::text::regclass)::int8"
    row = await connection.fetchrow(f"SELECT {size}, count(*){counts} FROM {table.sql}", table.sql)
    assert row is not None
    bytes_, records, *odd = tuple(row)
    return OddRows(records, {str(column): count for column, count in zip(columns, odd, strict=True)}, bytes_)


async def count_odd(connection: Connection, table: Table) -> tuple[int, int]:
    """Return the server's estimate of the records, and the odd ones, which an index counts."""
    row = await connection.fetchrow(
        f"SELECT (SELECT greatest(reltuples, 0)::int8 FROM pg_class WHERE oid = $1::text::regclass),"
        f" (SELECT count(*) FROM {table.sql} WHERE {quote(ODD)})",
        table.sql,
    )
    assert row is not None
    records, odd = tuple(row)
    return max(records, odd), odd
