"""Tables of collections: created once, marked with their format, and checked before use."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from isthmus._core.columns import columns_of
from isthmus._core.unique import Unique, has_duplicates, missing_unique, unique_of
from isthmus._path import Path
from isthmus.backends.postgres.change_tables import add_changes, define_changes, drop_statement
from isthmus.backends.postgres.change_tables import all_definitions as change_definitions
from isthmus.backends.postgres.columns import comments, ensure_columns
from isthmus.backends.postgres.columns import definitions as column_definitions
from isthmus.backends.postgres.config import PostgresConfig
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.indexes import IndexDefinition, create_index, definitions, paths_to_index
from isthmus.backends.postgres.sql.columns import StoredColumn, new_columns
from isthmus.backends.postgres.sql.statement import quote
from isthmus.backends.postgres.sql.table import Table
from isthmus.backends.postgres.table_lock import lock_table
from isthmus.backends.postgres.table_mark import (
    DECLARED_FORMAT,
    FORMAT,
    PLAIN_FORMAT,
    comment_statement,
    format_of,
    making_of,
    write_mark,
)
from isthmus.backends.postgres.unique import definitions as unique_definitions
from isthmus.backends.postgres.unique import duplicates, read_unique, removal
from isthmus.backends.postgres.version_trigger import NAME as VERSION_TRIGGER
from isthmus.backends.postgres.version_trigger import add_trigger, create_trigger, definition
from isthmus.errors import ConfigError

log = logging.getLogger("isthmus.postgres.schema")

# Each column's type: the name in the catalog, which is compared, and that in SQL, for messages.
_COLUMNS = {
    "id": ("text", "text"),
    "data": ("jsonb", "jsonb"),
    "metadata": ("jsonb", "jsonb"),
    "version": ("int8", "bigint"),
    "created_at": ("timestamptz", "timestamp with time zone"),
    "updated_at": ("timestamptz", "timestamp with time zone"),
}
# One advisory lock for all that isthmus creates in a database: creators wait for each other.
_LOCK = zlib.crc32(b"isthmus schema")

_OLDEST = 130_000
_SERVER = "SELECT current_setting('server_version_num')::int4, current_setting('server_encoding')"
_DESCRIBE = f"""
SELECT c.oid::int8, c.relkind::text, obj_description(c.oid, 'pg_class'),
  array(SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  array(SELECT format_type(a.atttypid, NULL)::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  array(SELECT i.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
        WHERE x.indrelid = c.oid AND x.indisvalid),
  array(SELECT i.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
        WHERE x.indrelid = c.oid AND NOT x.indisvalid),
  EXISTS (SELECT 1 FROM pg_index x JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'id'
        WHERE x.indrelid = c.oid AND x.indisunique AND x.indpred IS NULL AND x.indkey::text = a.attnum::text),
  (SELECT o.collname::text FROM pg_attribute a JOIN pg_collation o ON o.oid = a.attcollation
        WHERE a.attrelid = c.oid AND a.attname = 'id'),
  array(SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''),
  EXISTS (SELECT 1 FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = '{VERSION_TRIGGER}'),
  array(SELECT CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text ELSE '' END
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2"""


class Declared(NamedTuple):
    """What a table has, whatever the config of a handle says."""

    unique: frozenset[Unique]
    columns: Mapping[Path, StoredColumn]
    changes: bool
    """Whether it keeps its changes."""


def table_of(config: PostgresConfig, collection: str) -> Table:
    """Return the table of a collection; no I/O. Raises `ConfigError` for a name that is too long."""
    if not 0 < len(collection.encode()) <= 63 or "\0" in collection:
        raise ConfigError(
            f"postgres: a collection's name is 1 to 63 bytes without U+0000, not {collection!r}"
        )
    # asyncpg encodes an array's elements with the codecs that a hook registered; of text[] it never does.
    json_array = "text[]::jsonb[]" if config.pool.has_hooks else "jsonb[]"
    settings = config.indexes_of(collection)
    unique = unique_of(settings.unique)
    indexed = paths_to_index(settings)
    columns = columns_of({} if settings.columns == "model" else settings.columns)
    return Table(config.schema_name, collection, indexed, json_array, unique, bool(unique), declared=columns)


async def ensure_table(
    connection: Connection, table: Table, config: PostgresConfig, *, add_indexes: bool = True
) -> Declared:
    """Create the table with its indexes if it is missing, and check what exists.

    With `add_indexes` indexes that an existing table lacks are built. That waits for the end of all
    transactions in the database that have a snapshot.

    Returns what the table has. Raises `ConfigError` for a table that isthmus did not
    create, or in a newer format, or that has records and lacks a unique field, or the changes, of the
    config.
    """
    _check_server(await connection.fetchrow(_SERVER))
    found = await connection.fetchrow(_DESCRIBE, table.schema, table.name)
    if found is None:
        if config.create_table == "never":
            raise ConfigError(
                f"postgres: there is no table {table.sql}, and create_table is 'never'; create it with:\n"
                + ";\n".join(_all_statements(table, config))
            )
        await _create_table(connection, table, config)
        found = await connection.fetchrow(_DESCRIBE, table.schema, table.name)
        if found is None:
            raise ConfigError(f"postgres: the table {table.sql} was dropped while it was being created")
    _check(table, found)
    if not found[10] and add_indexes and config.create_table != "never":
        await add_trigger(connection, table)
    may_alter = config.create_table != "never" and add_indexes
    columns = await ensure_columns(connection, table, may_alter=may_alter)
    wanted = list(definitions(table.name, table.indexed, columns))
    missing = [index for index in wanted if index.name not in found[5]]
    if missing and may_alter:
        await _create_indexes(connection, table, missing, config)
    unique = await read_unique(connection, table)
    if table.unique - unique:
        unique = await _add_unique(connection, table, config)
    changes = making_of(found[2]) is not None
    if config.changes and not changes:
        may_create = config.create_table != "never"
        await add_changes(connection, table, lock=_LOCK, may_create=may_create)
    return Declared(unique, columns, changes or config.changes)


def _all_statements(table: Table, config: PostgresConfig) -> list[str]:
    """Return the statements for those who create the table themselves."""
    made = _definition(table, new_columns(table.declared))
    return [*made, *(change_definitions(table) if config.changes else definition(table))]


async def _add_unique(connection: Connection, table: Table, config: PostgresConfig) -> frozenset[Unique]:
    """Make the fields of the config unique in a table without records; return all that are."""
    async with lock_table(connection, table, "SHARE ROW EXCLUSIVE", creators=_LOCK):
        declared = await read_unique(connection, table)
        missing = table.unique - declared
        if missing:
            if config.create_table == "never" or await connection.fetchval(
                f"SELECT EXISTS (SELECT 1 FROM {table.sql})"
            ):
                raise missing_unique(table.name, missing)
            for unique in missing:
                await create_unique_index(connection, table, unique)
    return declared | missing


async def create_unique_index(connection: Connection, table: Table, unique: Unique) -> None:
    """Make fields unique in the open transaction, whose table is locked."""
    for statement in unique_definitions(table, unique):
        await connection.execute(statement)
    await write_mark(connection, table)


async def make_unique(connection: Connection, table: Table, unique: Unique) -> None:
    """Make fields of a table unique; raises `ConfigError` that names the duplicates."""
    async with lock_table(connection, table, "SHARE ROW EXCLUSIVE"):
        if unique in await read_unique(connection, table):
            return
        found = await duplicates(connection, table, unique)
        if found:
            raise has_duplicates(table.name, unique, found)
        await create_unique_index(connection, table, unique)


async def end_unique(connection: Connection, table: Table, unique: Unique) -> None:
    """End a declaration of unique fields."""
    async with connection.transaction():
        for statement in removal(table, unique):
            await connection.execute(statement)


def _check_server(row: Any) -> None:
    version, encoding = row
    if version < _OLDEST:
        raise ConfigError(f"postgres: the server is version {version // 10_000}, isthmus needs 13 or later")
    if encoding != "UTF8":
        raise ConfigError(f"postgres: the database's encoding is {encoding}; isthmus needs UTF8 for any text")


def _definition(table: Table, columns: Mapping[Path, StoredColumn]) -> list[str]:
    documents = ["data jsonb NOT NULL", "metadata jsonb NOT NULL DEFAULT '{}'::jsonb"]
    rest = [
        "version bigint NOT NULL",
        "created_at timestamp with time zone NOT NULL DEFAULT now()",
        "updated_at timestamp with time zone NOT NULL DEFAULT now()",
    ]
    # To reach a column the server walks over those before it: declared ones come before the documents.
    declared = column_definitions(columns)
    others = [*rest, *declared, *documents] if declared else [*documents, *rest]
    lines = ",\n  ".join(['id text COLLATE "C" PRIMARY KEY', *others])
    return [
        f"CREATE TABLE IF NOT EXISTS {table.sql} (\n  {lines}\n)",
        comment_statement(table, {"format": DECLARED_FORMAT if columns else PLAIN_FORMAT}),
        *comments(table, columns),
    ]


async def _create_table(connection: Connection, table: Table, config: PostgresConfig) -> None:
    async with connection.transaction():
        # IF NOT EXISTS alone still raises when two sessions create at once.
        await connection.execute("SELECT pg_advisory_xact_lock($1::int8)", _LOCK)
        exists = await connection.fetchval(
            "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)", table.schema
        )
        if not exists:
            await connection.execute(f"CREATE SCHEMA {quote(table.schema)}")
        if await connection.fetchrow(_DESCRIBE, table.schema, table.name) is None:
            columns = new_columns(table.declared)
            for statement in _definition(table, columns):
                await connection.execute(statement)
            if config.changes:
                await define_changes(connection, table)
            else:
                await create_trigger(connection, table)
            # On an empty table there is nothing to wait for: no reason for CONCURRENTLY.
            for index in definitions(table.name, table.indexed, columns):
                if await _is_buildable(connection, index):
                    await connection.execute(
                        create_index(index, table.schema, table.name, concurrently=False)
                    )


def _check(table: Table, found: Any) -> None:
    _, kind, comment, names, types, _, _, unique, collation, required, _, catalog_types = found
    if kind not in ("r", "p"):
        raise ConfigError(f"postgres: {table.sql} is not a table")
    mark = format_of(comment)
    if mark is not None and mark > FORMAT:
        raise ConfigError(
            f"postgres: {table.sql} has format {mark}, this version of isthmus knows {FORMAT};"
            " upgrade isthmus"
        )
    have = dict(zip(names, types, strict=True))
    # The server writes a type's SQL name with quotes where `quote_all_identifiers` is on.
    known = dict(zip(names, catalog_types, strict=True))
    wrong = [
        f"{name} is {have[name]} instead of {type}" if name in have else f"{name} ({type}) is missing"
        for name, (catalog_type, type) in _COLUMNS.items()
        if known.get(name) != catalog_type
    ]
    # Other columns are the user's; but a row that isthmus inserts has no value for them.
    wrong += [
        f"{name} ({have[name]}) is NOT NULL and has no default" for name in required if name not in _COLUMNS
    ]
    if not unique:
        wrong.append("id has no primary key or unique index")
    if "id" in have and collation != "C":
        wrong.append(f'id has the collation {collation} instead of "C"')
    if wrong:
        raise ConfigError(
            f"postgres: the table {table.sql} has other columns than isthmus creates: {'; '.join(wrong)};"
            " choose another `table` or `schema`"
        )


async def _create_indexes(
    connection: Connection, table: Table, missing: list[IndexDefinition], config: PostgresConfig
) -> None:
    """Build indexes while writers go on, one session at a time; the others wait for it."""
    if config.pooler == "transaction":
        # A session's lock does not survive a pooler's transactions, and CONCURRENTLY runs in none.
        await _build_indexes(connection, table, missing)
        return
    # Polled, since a call that waits for the lock has a snapshot, for whose end CONCURRENTLY waits.
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1::int8)", _LOCK + 1):
        await connection.fetchval("SELECT pg_sleep(0.02)")
    try:
        await _build_indexes(connection, table, missing)
    finally:
        await connection.fetchval("SELECT pg_advisory_unlock($1::int8)", _LOCK + 1)


async def _build_indexes(connection: Connection, table: Table, missing: list[IndexDefinition]) -> None:
    found = await connection.fetchrow(_DESCRIBE, table.schema, table.name)
    if found is None:
        return
    valid, broken = found[5], found[6]
    built = False
    for index in missing:
        if index.name in valid:
            continue
        if index.name in broken:  # left by an interrupted CONCURRENTLY
            await connection.execute(
                f"DROP INDEX CONCURRENTLY IF EXISTS {quote(table.schema)}.{quote(index.name)}"
            )
        if not await _is_buildable(connection, index):
            continue
        await connection.execute(create_index(index, table.schema, table.name))
        built = True
    if built:
        # The planner has no statistics of an index on an expression before ANALYZE.
        await connection.execute(f"ANALYZE {table.sql}")


async def _is_buildable(connection: Connection, index: IndexDefinition) -> bool:
    """Return whether the extension that an index needs is installed, after trying to."""
    if index.extension is None or await _ensure_extension(connection, index.extension):
        return True
    log.warning("postgres: the extension %s is not available; %s is not built", index.extension, index.name)
    return False


async def _ensure_extension(connection: Connection, extension: str) -> bool:
    installed = "SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = $1)"
    if await connection.fetchval(installed, extension):
        return True
    available = "SELECT EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = $1)"
    if not await connection.fetchval(available, extension):
        return False
    await connection.execute(f"CREATE EXTENSION IF NOT EXISTS {quote(extension)}")
    return True


async def collections(connection: Connection, schema: str) -> list[str]:
    """Return the names of the tables in a schema that isthmus created, sorted."""
    rows = await connection.fetch(
        "SELECT c.relname::text, obj_description(c.oid, 'pg_class') FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')",
        schema,
    )
    return sorted(name for name, comment in rows if format_of(comment) is not None)


def drop_table(table: Table) -> str:
    """Return the statement that drops a collection's table, if it exists, with its indexes and changes."""
    return drop_statement(table)
