"""Finds the transaction that keeps committed changes from readers: the oldest that runs, in any database."""

from __future__ import annotations

from typing import Any

import orjson

from isthmus._core.changes import HeldChanges
from isthmus.backends.postgres.change_tables import ChangeNames
from isthmus.backends.postgres.drivers.protocol import Connection

MAX_COUNTED = 1_000
"""Rows of the side table that are counted at most."""
# A plain role sees of others' sessions the process, the database and the user.
_HELD = """SELECT row_to_json(facts)::text FROM (SELECT
  (SELECT count(*) FROM (SELECT 1 FROM {changes} AS c
    WHERE c.xid >= pg_snapshot_xmin(pg_current_snapshot()) LIMIT {limit}) AS c) AS count,
  (SELECT row_to_json(a) FROM (SELECT s.pid, s.datname, s.usename FROM pg_stat_activity AS s
    WHERE s.backend_xid IS NOT NULL AND s.pid <> pg_backend_pid()
    ORDER BY age(s.backend_xid) DESC LIMIT 1) AS a) AS session,
  (SELECT row_to_json(p) FROM (SELECT x.gid, x.database AS datname, x.owner AS usename
    FROM pg_prepared_xacts AS x ORDER BY age(x.transaction) DESC LIMIT 1) AS p) AS prepared,
  pg_snapshot_xmin(pg_current_snapshot())::text AS bound) AS facts"""


async def read_held(connection: Connection, names: ChangeNames) -> HeldChanges:
    """Return how many changes cannot be read yet, and the transaction that they wait for; one round trip."""
    text = _HELD.replace("{changes}", names.changes).replace("{limit}", str(MAX_COUNTED))
    facts: dict[str, Any] = orjson.loads(await connection.fetchval(text))
    return HeldChanges(facts["count"], facts["bound"], *_holder(facts))


def _holder(facts: dict[str, Any]) -> tuple[str, str]:
    """Return a description of the transaction, and what ends it."""
    session, prepared = facts["session"], facts["prepared"]
    if session is not None:
        whose = f"process {session['pid']} of database {session['datname']}, user {session['usename']}"
        return (
            f"a transaction that is open: {whose}",
            f"let it commit, or end it: SELECT pg_terminate_backend({session['pid']})",
        )
    if prepared is not None:
        whose = f"{prepared['gid']!r} of database {prepared['datname']}, user {prepared['usename']}"
        return (
            f"a prepared transaction: {whose}",
            f"COMMIT PREPARED or ROLLBACK PREPARED '{prepared['gid']}' in that database",
        )
    return "a transaction that is not seen here", "look at pg_stat_activity"


async def find_held(connection: Connection, names: ChangeNames) -> HeldChanges | None:
    """Return what `read_held` does; None for a table without changes, or whose changes may not be read."""
    return await read_held(connection, names) if await may_read(connection, names) else None


async def may_read(connection: Connection, names: ChangeNames) -> bool:
    """Return whether there is a side table that this role may read; one round trip."""
    readable = "SELECT coalesce(has_table_privilege(to_regclass($1::text), 'SELECT'), FALSE)"
    return bool(await connection.fetchval(readable, names.changes))
