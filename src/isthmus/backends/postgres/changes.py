"""Reads the changes of a table: those of transactions that have ended, in the order of their numbers.

A transaction with a smaller number may commit later than one with a greater one, so a page ends where
the oldest transaction that still runs begins. Each record is read by the statement that reads its
change: then what a reader gets of an id never goes back, whatever the order of the transactions.

A reader gets nothing that a crash could undo: commits with `synchronous_commit=off` can be read before they
are on disk, and so can the end of a transaction that was rolled back. After a crash the numbers of lost
transactions are given to others, whose changes would then be taken for those that have been read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from isthmus._core.changes import (
    ChangePage,
    Position,
    StoredChange,
    missing_changes,
    not_a_position,
    other_source,
    parse_number,
    pruning_error,
)
from isthmus._value import replace
from isthmus.backends.postgres.change_delay import read_held
from isthmus.backends.postgres.change_tables import ChangeNames
from isthmus.backends.postgres.drivers.protocol import Connection, Row
from isthmus.backends.postgres.lazy_record import PostgresRecord
from isthmus.backends.postgres.sql.fields import COLUMNS
from isthmus.backends.postgres.sql.statement import literal
from isthmus.backends.postgres.sql.table import ORDER_COLUMN, Table
from isthmus.backends.postgres.table_mark import making_of
from isthmus.errors import IsthmusError, UnexpectedError

if TYPE_CHECKING:
    from isthmus.backends.postgres.native.catalog import NativeTable

# A position holds a snapshot for a while; one with very many transactions is left out.
_MAX_SNAPSHOT = 3_000
_SNAPSHOT = re.compile(r"[0-9]{1,19}:[0-9]{1,19}:[0-9,]*")
# A primary's timeline is that of its WAL: what the control file has is older after a promotion.
_SERVER = """SELECT (SELECT s.system_identifier::text FROM pg_control_system() AS s),
  CASE WHEN pg_is_in_recovery() THEN (SELECT to_hex(greatest(c.timeline_id, r.min_recovery_end_timeline))
    FROM pg_control_checkpoint() AS c, pg_control_recovery() AS r)
  ELSE lower(ltrim(left(pg_walfile_name(pg_current_wal_lsn()), 8), '0')) END"""
# All that the snapshot sees was written to the WAL before; a standby replays only what is on disk.
_WRITTEN = "CASE WHEN pg_is_in_recovery() THEN '' ELSE pg_current_wal_insert_lsn()::text END"


class ChangePlace(NamedTuple):
    """Where a reader goes on: at an id of a row of the side table."""

    xid: int
    seq: int
    offset: int
    """How many ids of that row have been read."""
    snapshot: str | None = None
    """What the snapshot sees has been read too, whatever its number."""

    @classmethod
    def parse(cls, text: str) -> ChangePlace:
        """Return the place that a text stands for; raises `QueryError` for one that stands for none."""
        numbers, _, snapshot = text.partition("@")
        try:
            xid, seq, offset = map(parse_number, numbers.split("."))
        except ValueError:
            raise not_a_position() from None
        if snapshot and _SNAPSHOT.fullmatch(snapshot) is None:
            raise not_a_position()
        return cls(xid, seq, offset, snapshot or None)

    def __str__(self) -> str:
        # All that a snapshot sees has a number below its end.
        useful = self.snapshot is not None and self.xid < int(self.snapshot.split(":")[1])
        return f"{self.xid}.{self.seq}.{self.offset}" + (f"@{self.snapshot}" if useful else "")


class Origin(NamedTuple):
    """Where the changes of a table are, as statements name it."""

    name: str
    marks: str
    relation: str
    """The table's name in statements."""
    comment: str
    """The comment with the making, as SQL; NULL for a table that keeps no changes."""
    missing: Callable[[str], IsthmusError]
    """Returns the error of a table that keeps no changes."""

    def source(self, row: Row) -> str:
        """Return what a position names besides its place, of a row that begins with `columns`.

        The server, its timeline, the table's making, and its number: one that was restored from a dump
        has the comment of the one before. Raises the error of a table that keeps no changes.
        """
        making = making_of(row[2])
        if making is None:
            raise self.missing(self.name)
        return f"{row[0]}/{row[1]}/{making}/{row[3]}"

    @property
    def columns(self) -> str:
        """The beginning of a select whose row `source` takes."""
        return f"{_SERVER}, {self.comment}, to_regclass({literal(self.relation)})::oid::text"


def comment_of(table: str) -> str:
    """Return the comment of a table as SQL."""
    return f"obj_description(to_regclass({literal(table)})::oid, 'pg_class')"


def origin_of(table: Table) -> Origin:
    """Return where the changes of a collection are."""
    marks = ChangeNames.of(table).marks
    return Origin(table.name, marks, table.sql, comment_of(table.sql), missing_changes)


async def current_position(connection: Connection, origin: Origin) -> Position:
    """Return the position of now; one round trip, and two more if what it covers is not on disk."""
    row = await connection.fetchrow(f"{origin.columns}, pg_current_snapshot()::text, {_WRITTEN}")
    assert row is not None
    source, (snapshot, written) = origin.source(row), row[4:]
    on_standby = not written
    if not on_standby:
        await _flush(connection, written)
    # A standby's snapshot lacks the transactions that run on the primary.
    usable = not on_standby and len(snapshot) <= _MAX_SNAPSHOT
    start = ChangePlace(int(snapshot.split(":")[0]), 0, 0, snapshot if usable else None)
    return Position(source, str(start))


async def read_changes(connection: Connection, table: Table, position: Position, limit: int) -> ChangePage:
    """Return at most `limit` changes after a position; two round trips, and one more to flush the WAL."""
    start = ChangePlace.parse(position.place)
    rows = await connection.fetch(_select_changes(table, start), *arguments(start, limit))
    found = [row for row in rows if row[1] is not None]
    places = [_after(row, start.snapshot) for row in found]
    page = await finish_page(connection, table, origin_of(table), position, rows[0][0], places, limit)
    return replace(page, changes=_changes(found, places))


def arguments(start: ChangePlace, limit: int) -> list[Any]:
    """Return the arguments of a select of changes: `$5` is the snapshot of a place that has one."""
    args: list[Any] = [str(start.xid), start.seq, start.offset, limit]
    return args if start.snapshot is None else [*args, start.snapshot]


def horizon(names: ChangeNames) -> str:
    """Return SQL: the oldest transaction that runs, whether changes wait for it, and the end of the WAL."""
    bound = "pg_snapshot_xmin(pg_current_snapshot())"
    waits = f"EXISTS (SELECT 1 FROM {names.changes} AS w WHERE w.xid >= {bound})"
    return f"{bound}::text || ' ' || {waits} || ' ' || {_WRITTEN}"


async def finish_page(
    connection: Connection,
    table: Table | NativeTable,
    origin: Origin,
    position: Position,
    horizon: str,
    places: list[ChangePlace],
    limit: int,
) -> ChangePage:
    """Return a page without its changes, with where the next one begins, once that holds after a crash too.

    Raises `UnexpectedError` if changes came in another order, and what `check_position` does.
    """
    # After the page was read: what it needs may have been pruned before.
    await check_position(connection, origin, position)
    if places != sorted(places):
        raise UnexpectedError(
            f"postgres: changes of {origin.name!r} did not come in the order of their numbers"
        )
    bound, waits, written = horizon.split(" ")
    start = ChangePlace.parse(position.place)
    if len(places) == limit:
        end = places[-1]
    else:
        end = ChangePlace(int(bound), 0, 0, start.snapshot) if int(bound) > start.xid else start
    held_by = None
    if end == start and waits == "true":
        held_by = (await read_held(connection, ChangeNames.of(table))).holder
    elif written and end != start:
        await _flush(connection, written)
    return ChangePage((), Position(position.source, str(end)), len(places) < limit, held_by)


async def _flush(connection: Connection, written: str) -> None:
    """Return once the WAL is on disk up to there; one round trip, two if it is not yet."""
    if not await connection.fetchval("SELECT pg_current_wal_flush_lsn() >= $1::text::pg_lsn", written):
        # Its commit waits for the disk, though not for a standby, and takes all before it along.
        await connection.fetchrow(
            "SELECT set_config('synchronous_commit', 'local', TRUE),"
            " pg_logical_emit_message(TRUE, 'isthmus', '')"
        )


def after(start: ChangePlace) -> str:
    """Return the condition that a row `c` of a side table comes at or after a place, and may be read."""
    condition = (
        "(c.xid, c.seq) >= ($1::text::xid8, $2::int8) AND c.xid < pg_snapshot_xmin(pg_current_snapshot())"
    )
    if start.snapshot is None:
        return condition
    return f"{condition} AND NOT pg_visible_in_snapshot(c.xid, $5::text::pg_snapshot)"


def _select_changes(table: Table, start: ChangePlace) -> str:
    names = ChangeNames.of(table)
    # Only the rows of the side table are sorted: a sort of their ids would need all of them. For rows of
    # which a function's result is laid out there is no other way than one after another, in their order.
    # OFFSET 0: each record is looked up by its id, else the planner may read the whole table.
    return f"""SELECT b.horizon, p.xid::text, p.seq, p.index, p.size, p.id, r.*,
  CASE WHEN r.id IS NULL AND p.id IS NOT NULL THEN {names.lookup}(p.id) END
FROM (SELECT {horizon(names)} AS horizon) AS b
LEFT JOIN (
  SELECT c.xid, c.seq, u.index, cardinality(c.ids) AS size, u.id
  FROM (SELECT c.xid, c.seq, c.ids FROM {names.changes} AS c
        WHERE {after(start)} ORDER BY c.xid, c.seq LIMIT $4::int8) AS c
  CROSS JOIN LATERAL unnest(c.ids) WITH ORDINALITY AS u(id, index)
  WHERE (c.xid, c.seq, u.index) > ($1::text::xid8, $2::int8, $3::int8) LIMIT $4::int8
) AS p ON TRUE
LEFT JOIN LATERAL (
  SELECT {COLUMNS}, t.{ORDER_COLUMN} FROM {table.sql} AS t WHERE t.id = p.id OFFSET 0
) AS r ON TRUE"""


def _after(row: Any, snapshot: str | None) -> ChangePlace:
    """Return the place after the change of a row of `_select_changes`."""
    xid, seq, index, size = int(row[1]), row[2], row[3], row[4]
    return ChangePlace(xid, seq, index, snapshot) if index < size else ChangePlace(xid, seq + 1, 0, snapshot)


def _changes(rows: Sequence[Any], places: Sequence[ChangePlace]) -> list[StoredChange]:
    """Return the changes of rows; an id that comes again has its last one only."""
    last = {row[5]: number for number, row in enumerate(rows)}
    kept = [number for number, row in enumerate(rows) if last[row[5]] == number]
    there = [rows[number][6:10] for number in kept if rows[number][6] is not None]
    records = iter(PostgresRecord.wrap(there))
    changes = []
    for number in kept:
        row, start = rows[number], str(places[number])
        if row[6] is None:
            changes.append(StoredChange(row[5], None, row[11], start))
        else:
            changes.append(StoredChange(row[5], next(records), row[10], start))
    return changes


async def check_position(connection: Connection, origin: Origin, position: Position) -> None:
    """Raise `ChangesExpiredError` for a position of another source, or whose changes were pruned."""
    start = ChangePlace.parse(position.place)
    row = await connection.fetchrow(
        f"{origin.columns}, (SELECT (m.bound, m.seq) >= ($1::text::xid8, $2::int8)"
        f" FROM {origin.marks} AS m WHERE m.at = '-infinity')",
        str(start.xid),
        start.seq,
    )
    assert row is not None
    if origin.source(row) != position.source:
        raise other_source(origin.name)
    if row[4]:
        raise pruning_error(origin.name)


async def read_records(
    connection: Connection, table: Table, position: Position, limit: int
) -> tuple[list[StoredChange], bool]:
    """Return records after the id `position.after`, by id, and whether there are more; two round trips."""
    rows = await connection.fetch(
        f"SELECT {COLUMNS}, t.{ORDER_COLUMN} FROM {table.sql} AS t WHERE t.id > $1::text"
        " ORDER BY t.id LIMIT $2::int8",
        position.after or "",
        limit,
    )
    await check_position(connection, origin_of(table), position)
    records = PostgresRecord.wrap([row[:4] for row in rows])
    changes = [StoredChange(row[0], record, row[4]) for row, record in zip(rows, records, strict=True)]
    return changes, len(changes) == limit
