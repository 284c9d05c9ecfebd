"""The table of a collection, for every dialect, and what a database holds of them."""

from __future__ import annotations

from sqlalchemy.dialects import mysql

from sqlalchemy import BigInteger, Column, Connection, MetaData, String, Table, Text, inspect

FORMAT = "isthmus 1"

# Ids are text of up to 512 UTF-8 bytes, compared by code point. Servers differ in how a collation
# treats case, accents and trailing blanks, so the key is the id's UTF-8 in hexadecimal: ASCII, of
# fixed case, and in the order of the ids.
_KEY = String(1024).with_variant(
    mysql.VARCHAR(1024, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
)
_LONG = Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def table_of(name: str) -> Table:
    """Return a collection's table; SQLAlchemy quotes its name."""
    return Table(
        name,
        MetaData(),
        Column("key", _KEY, primary_key=True),
        Column("data", _LONG, nullable=False),
        Column("metadata", _LONG, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
        comment=FORMAT,
    )


def key_of(record_id: str) -> str:
    """Return the key of an id."""
    return record_id.encode().hex()


def id_of(key: str) -> str:
    """Return the id of a key."""
    return bytes.fromhex(key).decode()


def has_table(connection: Connection, name: str) -> bool:
    """Return whether there is a table of this name."""
    return inspect(connection).has_table(name)


def columns_of(connection: Connection, name: str) -> set[str] | None:
    """Return the names of a table's columns; None if there is no such table."""
    inspector = inspect(connection)
    return {column["name"] for column in inspector.get_columns(name)} if inspector.has_table(name) else None


def collection_names(connection: Connection) -> list[str]:
    """Return the names of the tables that have our columns, sorted."""
    inspector = inspect(connection)
    ours = {column.name for column in table_of("records").columns}
    names = inspector.get_table_names()
    return sorted(name for name in names if {c["name"] for c in inspector.get_columns(name)} == ours)
