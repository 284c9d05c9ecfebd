"""Checks of a PostgreSQL table that keeps its changes: its triggers, and what holds its readers back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import orjson

from isthmus.backends.postgres.change_tables import ALL_TRIGGERS, ChangeNames
from isthmus.backends.postgres.schema import table_of
from isthmus.backends.postgres.table_mark import COMMENT, making_of
from isthmus.cli._doctor.finding import Finding, ok, problem, warning

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PostgresConfig

# Between two looks: who holds readers back in both is not just passing.
_PAUSE = 1.0

_TRIGGERS = """SELECT row_to_json(facts)::text FROM (SELECT
  array(SELECT w.name FROM unnest($2::text[]) AS w(name) WHERE NOT EXISTS (SELECT 1 FROM pg_trigger AS g
    WHERE g.tgrelid = $1::text::regclass AND g.tgname = w.name AND g.tgenabled IN ('O', 'A'))) AS missing,
  current_setting('session_replication_role') AS role) AS facts"""
# A plain role sees of others' sessions the process, the database and the user.
_WAITING = """SELECT row_to_json(facts)::text FROM (SELECT
  (SELECT count(*) FROM (SELECT 1 FROM {changes} AS c
    WHERE c.xid >= pg_snapshot_xmin(pg_current_snapshot()) LIMIT 1000) AS c) AS waiting,
  (SELECT row_to_json(a) FROM (SELECT s.pid, s.datname, s.usename FROM pg_stat_activity AS s
    WHERE s.backend_xid IS NOT NULL AND s.pid <> pg_backend_pid()
    ORDER BY age(s.backend_xid) DESC LIMIT 1) AS a) AS session,
  (SELECT row_to_json(p) FROM (SELECT x.gid, x.database AS datname, x.owner AS usename
    FROM pg_prepared_xacts AS x ORDER BY age(x.transaction) DESC LIMIT 1) AS p) AS prepared,
  pg_snapshot_xmin(pg_current_snapshot())::text AS bound) AS facts"""


async def check_changes(connection: Any, config: PostgresConfig) -> AsyncIterator[Finding]:
    """Check the default collection's triggers, and who holds its readers back; nothing without changes."""
    table = table_of(config, config.table)
    if making_of(await connection.fetchval(COMMENT, table.sql)) is None:
        return
    triggers = orjson.loads(await connection.fetchval(_TRIGGERS, table.sql, list(ALL_TRIGGERS)))
    if triggers["missing"]:
        yield problem(
            "changes",
            f"triggers are disabled or missing, so writes are not noted: {', '.join(triggers['missing'])}",
            f"ALTER TABLE {table.sql} ENABLE TRIGGER ALL, and let followers begin again with since=start;"
            " if one is missing: isthmus index --changes --drop, then --changes",
        )
    if triggers["role"] != "origin":
        yield problem(
            "changes",
            f"session_replication_role is {triggers['role']}: triggers do not run, and no change is noted",
            "RESET session_replication_role for the role, the database or in postgresql.conf",
        )
    if not triggers["missing"] and triggers["role"] == "origin":
        yield ok("changes", "all triggers are enabled")
    yield await _check_delay(connection, ChangeNames.of(table))


async def _check_delay(connection: Any, names: ChangeNames) -> Finding:
    text = _WAITING.replace("{changes}", names.changes)
    first = orjson.loads(await connection.fetchval(text))
    if not first["waiting"]:
        return ok("changes read", "none waits for another transaction")
    await asyncio.sleep(_PAUSE)
    facts = orjson.loads(await connection.fetchval(text))
    if not facts["waiting"] or facts["bound"] != first["bound"]:
        return ok("changes read", "none waits for long")
    return _explain_delay(facts)


def _explain_delay(facts: dict[str, Any]) -> Finding:
    session, prepared = facts["session"], facts["prepared"]
    count = f"{facts['waiting']}{' or more' * (facts['waiting'] == 1000)} statements' changes wait for"
    if session is not None:
        whose = f"process {session['pid']} of database {session['datname']}, user {session['usename']}"
        return warning(
            "changes read",
            f"{count} a transaction that is open: {whose}",
            f"let it commit, or end it: SELECT pg_terminate_backend({session['pid']})",
        )
    if prepared is not None:
        whose = f"{prepared['gid']!r} of database {prepared['datname']}, user {prepared['usename']}"
        return warning(
            "changes read",
            f"{count} a prepared transaction: {whose}",
            f"COMMIT PREPARED or ROLLBACK PREPARED '{prepared['gid']}' in that database",
        )
    return warning("changes read", f"{count} a transaction that is not seen here", "look at pg_stat_activity")
