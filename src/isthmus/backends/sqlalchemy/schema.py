"""The table of a collection, in the words of every dialect."""

from __future__ import annotations

from sqlalchemy.dialects import mysql

from sqlalchemy import BigInteger, Column, MetaData, String, Table, Text

FORMAT = "isthmus 1"

# Ids are text of up to 512 UTF-8 bytes, compared by code point. No two servers agree on how a
# collation treats case, accents and blanks at the end, so the key is the id's UTF-8 in hexadecimal:
# ASCII, of fixed case, and in the id's own order.
_KEY = String(1024).with_variant(
    mysql.VARCHAR(1024, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
)
_LONG = Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def table(name: str) -> Table:
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
