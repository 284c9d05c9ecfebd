"""Rows to records, and records by id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isthmus._record import Record
from isthmus._values import decode_numeric
from isthmus.backends.postgres.driver import Connection, Row
from isthmus.backends.postgres.fields import COLUMNS
from isthmus.backends.postgres.table import Table


def records(rows: Iterable[Row]) -> list[Record]:
    """Return the records of rows, their JSON not decoded yet."""
    stored = Record.stored
    # jsonb writes numbers in its own way (1e300 as 301 digits), so the decoder is its own too.
    return [
        stored(id, data, metadata, str(version), created, updated, decode_numeric)
        for id, data, metadata, version, created, updated in rows
    ]


async def by_id(
    connection: Connection, table: Table, ids: Sequence[str], *, for_update: bool = False
) -> list[Record | None]:
    """Return the records of these ids in order, None where there is none."""
    lock = " FOR UPDATE" if for_update else ""
    if len(ids) == 1:
        row = await connection.fetchrow(
            f"SELECT {COLUMNS} FROM {table.sql} AS t WHERE t.id = $1{lock}", ids[0]
        )
        return [None] if row is None else [*records((row,))]
    # Locked in one order by all, so that two batches do not wait for each other.
    order = " ORDER BY t.id" if for_update else ""
    rows = await connection.fetch(
        f"SELECT {COLUMNS} FROM {table.sql} AS t WHERE t.id = ANY($1::text[]){order}{lock}", list(ids)
    )
    found = {record.id: record for record in records(rows)}
    return [found.get(id) for id in ids]
