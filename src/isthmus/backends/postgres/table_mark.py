"""The comment of a table: its format, and what tells it from one of the same name that was dropped."""

from __future__ import annotations

from typing import Any

import orjson

from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.statement import literal
from isthmus.backends.postgres.sql.table import Table

FORMAT = 2
"""The newest format that is read: 1, and 2 for a table with unique fields, or that keeps its changes."""
PLAIN_FORMAT, DECLARED_FORMAT = 1, 2
_MARK = "isthmus "
COMMENT = "SELECT obj_description(to_regclass($1::text)::oid, 'pg_class')"


def format_of(comment: str | None) -> int | None:
    """Return the format in a table's comment; None if isthmus did not create the table."""
    number = _read(comment).get("format")
    return number if isinstance(number, int) else None


def making_of(comment: str | None) -> str | None:
    """Return a text that each making of a table that keeps its changes has; None for another table."""
    making = _read(comment).get("changes")
    return making if isinstance(making, str) else None


def _read(comment: str | None) -> dict[str, Any]:
    if comment is None or not comment.startswith(_MARK):
        return {}
    try:
        mark = orjson.loads(comment.removeprefix(_MARK))
    except orjson.JSONDecodeError:
        return {}
    return mark if isinstance(mark, dict) else {}


def comment_statement(table: Table, mark: dict[str, Any]) -> str:
    """Return the statement that writes a mark."""
    return f"COMMENT ON TABLE {table.sql} IS {literal(_MARK + orjson.dumps(mark).decode())}"


async def write_mark(connection: Connection, table: Table, **settings: str | None) -> None:
    """Write format 2 and more into the comment of a table, in the open transaction; None removes an entry."""
    mark = _read(await connection.fetchval(COMMENT, table.sql))
    mark |= {"format": DECLARED_FORMAT, **settings}
    await connection.execute(
        comment_statement(table, {key: value for key, value in mark.items() if value is not None})
    )
