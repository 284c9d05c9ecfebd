"""The table of a collection, for every dialect, and what a database holds of them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping

import orjson
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import IntegrityError, NoSuchTableError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.unique import Key, Unique
from isthmus._core.unique_index import claim_of, in_order
from sqlalchemy import BigInteger, Column, Connection, MetaData, String, Table, Text, inspect, text

FORMAT = "isthmus 1"
_VERSION = "version"

# Ids are text of up to 512 UTF-8 bytes, compared by code point. Servers differ in how a collation
# treats case, accents and trailing blanks, so the key is the id's UTF-8 in hexadecimal: ASCII, of
# fixed case, and in the order of the ids.
_KEY = String(1024).with_variant(
    mysql.VARCHAR(1024, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
)
_DIGEST = String(64).with_variant(
    mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
)
_LONG = Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def table_of(name: str, declared: Iterable[Unique] = ()) -> Table:
    """Return a collection's table; SQLAlchemy quotes its name.

    The declared unique fields are in the name of a column: a statement by a handle that does not
    know them fails, whatever its config and version, and the handle reads them.
    """
    unique = in_order(declared)
    return Table(
        name,
        MetaData(),
        Column("key", _KEY, primary_key=True),
        Column("data", _LONG, nullable=False),
        Column("metadata", _LONG, nullable=False),
        Column(version_column(unique), BigInteger, key="version", nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
        comment=FORMAT,
        info={"unique": unique},
    )


def unique_in(table: Table) -> tuple[Unique, ...]:
    """Return the unique fields of a collection's table."""
    unique: tuple[Unique, ...] = table.info["unique"]
    return unique


def version_column(declared: tuple[Unique, ...]) -> str:
    """Return the name of the column with versions: with the digest of unique fields, if there are any."""
    return f"{_VERSION}_{set_digest(declared)}" if declared else _VERSION


def set_digest(declared: tuple[Unique, ...]) -> str:
    """Return a digest of declarations as a set."""
    return _digest(unique_text(declared), 8)


def unique_text(declared: Iterable[Unique]) -> str:
    """Return declarations as JSON text."""
    return orjson.dumps(sorted(unique.to_json() for unique in declared)).decode()


def claims_table(name: str) -> Table:
    """Return the side table of a collection with unique fields, which lies in the same schema.

    A row is a value that a record has: the digests of the field and of both, and the record's key. A
    row whose field is empty holds a set of declarations under its digest.
    """
    return Table(
        f"isthmus_unique_{_digest(name, 16)}",
        MetaData(),
        Column("claim", _DIGEST, primary_key=True),
        Column("field", _DIGEST, nullable=False),
        Column("key", _KEY, nullable=False, index=True),
        Column("declared", _LONG, nullable=True),
        comment="isthmus: unique fields",
    )


def field_digest(unique: Unique) -> str:
    """Return the digest of a declaration."""
    return _digest(unique_text([unique]), 16)


def claim_digest(unique: Unique, value: Key) -> str:
    """Return the digest of a value of unique fields."""
    return _digest(claim_of(unique, value), 32)


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def key_of(record_id: str) -> str:
    """Return the key of an id."""
    return record_id.encode().hex()


_COLUMNS = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = "
_COLUMNS_IN = {
    "postgresql": _COLUMNS + "current_schema()",
    "mysql": _COLUMNS + "database()",
    "mariadb": _COLUMNS + "database()",
}


def id_of(key: str) -> str:
    """Return the id of a key."""
    return bytes.fromhex(key).decode()


def has_table(connection: Connection, name: str) -> bool:
    """Return whether there is a table of this name."""
    return inspect(connection).has_table(name)


def columns_of(connection: Connection, name: str) -> set[str] | None:
    """Return the names of a table's columns; None if there is no such table."""
    statement = _COLUMNS_IN.get(connection.dialect.name)
    if statement is None:
        try:
            return {column["name"] for column in inspect(connection).get_columns(name)}
        except NoSuchTableError:
            return None
    tables = _columns_by_table(connection, f"{statement} AND table_name = :name", {"name": name})
    # MariaDB compares names without their case.
    return tables.get(name) or next(iter(tables.values()), None)


def _columns_by_table(
    connection: Connection, statement: str, values: Mapping[str, str] | None = None
) -> dict[str, set[str]]:
    """Return the names of columns by table, from the server's catalog.

    SQLAlchemy's reflection warns of types that it does not know, which the tables of others may have.
    """
    tables: dict[str, set[str]] = {}
    for table, column in connection.execute(text(statement), values):
        tables.setdefault(table, set()).add(column)
    return tables


def find_version_column(columns: set[str]) -> str | None:
    """Return the column with versions in a table of a collection; None if it is not one."""
    others = {column.name for column in table_of("records").columns} - {_VERSION}
    found = columns - others
    if len(columns) != len(others) + 1 or len(found) != 1:
        return None
    [name] = found
    return name if name == _VERSION or name.startswith(f"{_VERSION}_") else None


def collection_names(connection: Connection) -> list[str]:
    """Return the names of the tables that have our columns, sorted."""
    names = inspect(connection).get_table_names()
    statement = _COLUMNS_IN.get(connection.dialect.name)
    if statement is not None:
        tables = _columns_by_table(connection, statement)
    else:
        tables = {name: columns_of(connection, name) or set() for name in names}
    # One may have been dropped since.
    return sorted(name for name in names if find_version_column(tables.get(name, set())))


async def create_table(connection: AsyncConnection, table: Table) -> None:
    """Create a table unless it is there, which other processes may be creating too."""
    try:
        async with connection.begin_nested():
            await connection.run_sync(functools.partial(table.create, checkfirst=True))
    except (ProgrammingError, OperationalError, IntegrityError):
        # Another process created it after the check; otherwise it is a real failure.
        if not await connection.run_sync(has_table, table.name):
            raise
