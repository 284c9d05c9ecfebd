"""Records by id."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus._record import Record
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.lazy_record import records
from isthmus.backends.postgres.sql.fields import COLUMNS
from isthmus.backends.postgres.sql.table import Table


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
