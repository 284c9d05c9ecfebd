"""Removes changes that were readable for as long as they are kept.

The time of a change is not stored: marks say which transactions had ended at which time. A deleted
id is forgotten once no change is left that was written before its deletion.
"""

from __future__ import annotations

import zlib

from isthmus.backends.postgres.change_tables import ChangeNames
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.fields import moment_text
from isthmus.backends.postgres.sql.table import Table

BATCH = 5_000
"""Rows of the side table that are removed at once; each has the ids of a statement, up to 500."""
_MARKS = 100
"""Marks that are made while a change is kept."""


async def prune(connection: Connection, table: Table, keep: float) -> bool:
    """Remove changes that are older than `keep` seconds; return whether more are left.

    One short transaction; does nothing while another session prunes the table. Readers and writers
    go on: a reader that missed a change finds that out by the mark that is set with the removal.
    """
    names = ChangeNames.of(table)
    lock = zlib.crc32(f"isthmus prune {table.sql}".encode())
    async with connection.transaction():
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1::int8)", lock):
            return False
        await _add_mark(connection, names, keep)
        mark = await connection.fetchrow(
            f"SELECT m.bound::text, {moment_text('m.at')} FROM {names.marks} AS m WHERE m.at > '-infinity'"
            " AND m.at <= clock_timestamp() - make_interval(secs => $1::float8) ORDER BY m.at DESC LIMIT 1",
            keep,
        )
        if mark is None:
            return False
        bound, at = mark
        removed = await connection.fetchval(
            f"""WITH r AS (
  DELETE FROM {names.changes} WHERE ctid = ANY(ARRAY(
    SELECT c.ctid FROM {names.changes} AS c WHERE c.xid < $1::text::xid8 ORDER BY c.xid, c.seq LIMIT {BATCH}
  )) RETURNING xid, seq
), m AS (
  UPDATE {names.marks} SET bound = l.xid, seq = l.seq
  FROM (SELECT r.xid, r.seq FROM r ORDER BY r.xid DESC, r.seq DESC LIMIT 1) AS l WHERE at = '-infinity'
)
SELECT count(*) FROM r""",
            bound,
        )
        if removed == BATCH:
            return True
        # Tables that others made have no such table.
        has_deleted = await connection.fetchval("SELECT to_regclass($1::text) IS NOT NULL", names.deleted)
        forgotten = not has_deleted or await connection.execute(
            f"""DELETE FROM {names.deleted} WHERE ctid = ANY(ARRAY(SELECT d.ctid FROM {names.deleted} AS d
  WHERE d.seq <= (SELECT max(m.seq) FROM {names.marks} AS m
                  WHERE m.at > '-infinity' AND m.next <= $1::text::xid8)
  ORDER BY d.seq LIMIT {BATCH}))""",
            bound,
        )
        await connection.execute(
            f"DELETE FROM {names.marks} WHERE at > '-infinity' AND at < $1::text::timestamptz", at
        )
        return forgotten == f"DELETE {BATCH}"


async def _add_mark(connection: Connection, names: ChangeNames, keep: float) -> None:
    """Note which transactions have ended by now, unless there is a recent mark.

    Marks of a clock that was set back are removed: they would stand for recent ones until it is there again.
    """
    await connection.execute(f"DELETE FROM {names.marks} WHERE at > clock_timestamp()")
    recent = await connection.fetchval(
        f"SELECT EXISTS (SELECT 1 FROM {names.marks} AS m WHERE m.at > '-infinity'"
        " AND m.at > clock_timestamp() - make_interval(secs => $1::float8))",
        keep / _MARKS,
    )
    if recent:
        return
    # Before this transaction has a number: what is written with a smaller `seq` is of a smaller one.
    last = await connection.fetchval(f"SELECT last_value FROM {names.sequence}")
    await connection.execute(
        f"INSERT INTO {names.marks} VALUES (clock_timestamp(),"
        " pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id(), $1::int8)",
        last,
    )
