"""Changes of a table that others made: its owner's triggers write keys to a side table (meaning §8 and §10).

The side table has the key's columns as the table has them. A record's order is the greatest number that
it holds for the key.
"""

from __future__ import annotations

from typing import Any

import orjson

from isthmus._core.changes import ChangePage, Position, StoredChange
from isthmus._core.executor import After, PageRequest
from isthmus._ids import new_id
from isthmus._query.ast import TRUE
from isthmus._value import replace
from isthmus.backends.postgres.change_tables import ALL_ROWS, DEFINER, TRIGGERS, ChangeNames
from isthmus.backends.postgres.changes import (
    ChangePlace,
    Origin,
    after,
    arguments,
    check_position,
    comment_of,
    finish_page,
    horizon,
)
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.backends.postgres.native.record import RowReader
from isthmus.backends.postgres.native.select import select_page
from isthmus.backends.postgres.sql.statement import literal, quote
from isthmus.errors import UnsupportedError


def change_statements(table: NativeTable) -> list[str]:
    """Return the statements by which the owner of a table lets it keep its changes."""
    if table.table.read_only or not table.is_keyed:
        raise UnsupportedError(f"{table.name!r} has no primary key to note changes by", capability="changes")
    names, cells = ChangeNames.of(table), _cells(table)
    columns = ", ".join(f"t.{quote(key)} AS {cell}" for key, cell in zip(table.table.key, cells, strict=True))
    draw = f"nextval({literal(names.sequence)})"
    mark = "isthmus " + orjson.dumps({"changes": new_id()}).decode()
    return [
        f"CREATE SEQUENCE {names.sequence}",
        # From the table itself, so that the columns have its types and collations.
        f"CREATE TABLE {names.changes} AS SELECT pg_current_xact_id() AS xid, 0::bigint AS seq, {columns}"
        f" FROM {table.sql} AS t WITH NO DATA",
        f"ALTER TABLE {names.changes} ALTER xid SET DEFAULT pg_current_xact_id(),"
        f" ALTER seq SET DEFAULT {draw}, ADD PRIMARY KEY (xid, seq)",
        f"CREATE INDEX ON {names.changes} ({', '.join(cells)}, seq)",
        f"ALTER SEQUENCE {names.sequence} OWNED BY {names.changes}.seq",
        f"COMMENT ON TABLE {names.changes} IS {literal(mark)}",
        f"CREATE TABLE {names.marks} (at timestamp with time zone PRIMARY KEY, bound xid8 NOT NULL,"
        " next xid8 NOT NULL, seq bigint NOT NULL)",
        f"INSERT INTO {names.marks} VALUES ('-infinity', '0', '0', 0)",
        f"CREATE FUNCTION {names.capture}() RETURNS trigger LANGUAGE plpgsql {DEFINER}"
        f" AS {literal(_body(table, names))}",
        *_triggers(table, names),
    ]


def _cells(table: NativeTable) -> list[str]:
    return [f"key{number}" for number in range(1, len(table.table.key) + 1)]


def _body(table: NativeTable, names: ChangeNames) -> str:
    def note(rows: str) -> str:
        keys = ", ".join(f"r.{quote(key)}" for key in table.table.key)
        return f"INSERT INTO {names.changes} ({', '.join(_cells(table))}) SELECT {keys} FROM {rows} AS r"

    old = ", ".join(f"OLD.{quote(key)}" for key in table.table.key)
    return f"""BEGIN
  IF TG_LEVEL = 'ROW' THEN
    INSERT INTO {names.changes} ({", ".join(_cells(table))}) VALUES ({old});
  ELSIF TG_OP = 'DELETE' THEN
    {note("old_rows")};
  ELSIF TG_OP = 'TRUNCATE' THEN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
      RAISE EXCEPTION 'TRUNCATE of a table that keeps its changes needs READ COMMITTED'
        USING ERRCODE = 'feature_not_supported';
    END IF;
    {ALL_ROWS[0]}
    {note(table.sql)};
    {ALL_ROWS[1]}
  ELSE
    {note("new_rows")};
  END IF;
  RETURN NULL;
END"""


def _triggers(table: NativeTable, names: ChangeNames) -> list[str]:
    insert, update, delete, key, truncate = TRIGGERS
    statement = f"FOR EACH STATEMENT EXECUTE FUNCTION {names.capture}()"
    new, old = "REFERENCING NEW TABLE AS new_rows", "REFERENCING OLD TABLE AS old_rows"
    moved = " OR ".join(f"OLD.{quote(name)} IS DISTINCT FROM NEW.{quote(name)}" for name in table.table.key)
    return [
        f"CREATE TRIGGER {insert} AFTER INSERT ON {table.sql} {new} {statement}",
        f"CREATE TRIGGER {update} AFTER UPDATE ON {table.sql} {new} {statement}",
        f"CREATE TRIGGER {delete} AFTER DELETE ON {table.sql} {old} {statement}",
        f"CREATE TRIGGER {key} AFTER UPDATE ON {table.sql} FOR EACH ROW WHEN ({moved})"
        f" EXECUTE FUNCTION {names.capture}()",
        f"CREATE TRIGGER {truncate} BEFORE TRUNCATE ON {table.sql} {statement}",
    ]


def missing_triggers(name: str) -> UnsupportedError:
    """Return the error of a table without the triggers."""
    return UnsupportedError(
        f"{name!r} was made by others and keeps no changes: its owner runs once what"
        " `isthmus changes URL --ddl` prints",
        capability="changes",
    )


def origin_of(table: NativeTable) -> Origin:
    """Return where the changes of a table are; the making is void once the table has no trigger."""
    names = ChangeNames.of(table)
    trigger = (
        f"SELECT 1 FROM pg_trigger AS g WHERE g.tgrelid = to_regclass({literal(table.sql)})"
        f" AND g.tgname = '{TRIGGERS[0]}'"
    )
    comment = f"CASE WHEN EXISTS ({trigger}) THEN {comment_of(names.changes)} END"
    return Origin(table.name, names.marks, table.sql, comment, missing_triggers)


async def read_changes(
    connection: Connection, table: NativeTable, position: Position, limit: int
) -> ChangePage:
    """Return at most `limit` changes after a position; two round trips, and one more to flush the WAL."""
    start, ids, reader = (
        ChangePlace.parse(position.place),
        RowReader(table, (), versioned=False),
        RowReader(table),
    )
    rows = await connection.fetch(_select_changes(table, start, ids, reader), *arguments(start, limit))
    found = [row for row in rows if row[1] is not None]
    places = [ChangePlace(int(row[1]), row[2] + 1, 0, start.snapshot) for row in found]
    page = await finish_page(connection, table, origin_of(table), position, rows[0][0], places, limit)
    # After the number and the order come the key with one column more, whether there is a row, and that.
    there = 4 + len(table.table.key) + 1
    last: dict[str, tuple[ChangePlace, Any]] = {}
    for row, at in zip(found, places, strict=True):
        id = ids.id(row[4:there])
        last.pop(id, None)  # so that it comes at its last start
        last[id] = (at, row)
    changes = [
        StoredChange(id, reader.wrap([tuple(row)[there + 1 :]])[0] if row[there] else None, row[3], str(at))
        for id, (at, row) in last.items()
    ]
    return replace(page, changes=changes)


def _select_changes(table: NativeTable, start: ChangePlace, ids: RowReader, reader: RowReader) -> str:
    cells, names = _cells(table), ChangeNames.of(table)
    pairs = list(zip(table.table.key, cells, strict=True))
    own = ", ".join(f"p.{cell} AS {quote(key)}" for key, cell in pairs)
    same = " AND ".join(f"t.{quote(key)} = p.{cell}" for key, cell in pairs)
    order = _greatest(names, [(f"p.{cell}", cell) for cell in cells])
    # OFFSET 0: each row is looked up by its key, else the planner may read the whole table.
    return f"""SELECT b.horizon, p.xid::text, p.seq, {order}, k.*, r.*
FROM (SELECT {horizon(names)} AS horizon) AS b
LEFT JOIN (
  SELECT c.xid, c.seq, {", ".join(f"c.{cell}" for cell in cells)} FROM {names.changes} AS c
  WHERE {after(start)} AND $3::int8 = 0 ORDER BY c.xid, c.seq LIMIT $4::int8
) AS p ON TRUE
LEFT JOIN LATERAL (SELECT TRUE, {reader.select} FROM {table.sql} AS t WHERE {same} OFFSET 0) AS r ON TRUE
LEFT JOIN LATERAL (SELECT {ids.select} FROM (SELECT {own}) AS t) AS k ON TRUE"""


def _greatest(names: ChangeNames, pairs: list[tuple[str, str]]) -> str:
    """Return the greatest number that the side table holds for a key."""
    same = " AND ".join(f"o.{cell} = {value}" for value, cell in pairs)
    return f"(SELECT max(o.seq) FROM {names.changes} AS o WHERE {same})"


async def read_records(
    connection: Connection, table: NativeTable, position: Position, limit: int
) -> tuple[list[StoredChange], bool]:
    """Return records after the id `position.after`, by key, and whether there are more; two round trips."""
    reader, pairs = RowReader(table), zip(table.table.key, _cells(table), strict=True)
    order = _greatest(ChangeNames.of(table), [(f"t.{quote(key)}", cell) for key, cell in pairs])
    reader.select = f"{reader.select}, {order}"
    last = After((position.after,)) if position.after else None
    statement = select_page(table, reader, PageRequest(TRUE, None, limit, last))
    rows = await connection.fetch(statement.text, *statement.args)
    await check_position(connection, origin_of(table), position)
    records = reader.wrap(rows[:limit])
    changes = [
        StoredChange(str(record.id), record, row[len(row) - 1])
        for record, row in zip(records, rows, strict=False)
    ]
    return changes, len(rows) > limit
