"""Rows to records, and records by id."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from isthmus._record import Record
from isthmus._values import decode_numeric
from isthmus.backends.postgres.driver import Connection, Row
from isthmus.backends.postgres.fields import COLUMNS
from isthmus.backends.postgres.table import Table

# The server counts microseconds from 2000.
_EPOCH = 946_684_800_000_000
_stamp = struct.Struct(">qqq").unpack


def records(rows: Iterable[Row]) -> list[Record]:
    """Return the records of rows, their JSON not decoded yet."""
    stored = Record.stored
    found = []
    for id, data, metadata, stamp in rows:
        version, created, updated = _stamp(stamp)
        # jsonb writes numbers in its own way (1e300 as 301 digits), so the decoder is its own too.
        found.append(
            stored(id, data, metadata, str(version), created + _EPOCH, updated + _EPOCH, decode_numeric)
        )
    return found


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
