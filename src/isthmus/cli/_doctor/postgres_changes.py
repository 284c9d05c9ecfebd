"""Checks of a PostgreSQL table that keeps its changes: its triggers, and what holds its readers back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from isthmus.backends.postgres.change_delay import MAX_COUNTED, may_read, read_held
from isthmus.backends.postgres.change_tables import ALL_TRIGGERS, TRIGGERS, ChangeNames
from isthmus.backends.postgres.schema import table_of
from isthmus.backends.postgres.table_mark import COMMENT, making_of
from isthmus.cli._doctor.finding import Finding, ok, problem, warning

if TYPE_CHECKING:
    from isthmus.backends.postgres.config import PostgresConfig
    from isthmus.backends.postgres.native.catalog import NativeTable

# Between two looks: who holds readers back in both is not just passing.
_PAUSE = 1.0

_TRIGGERS = """SELECT row_to_json(facts)::text FROM (SELECT
  array(SELECT w.name FROM unnest($2::text[]) AS w(name) WHERE NOT EXISTS (SELECT 1 FROM pg_trigger AS g
    WHERE g.tgrelid = $1::text::regclass AND g.tgname = w.name AND g.tgenabled IN ('O', 'A'))) AS missing,
  current_setting('session_replication_role') AS role) AS facts"""


async def check_changes(connection: Any, config: PostgresConfig) -> AsyncIterator[Finding]:
    """Check the default collection's triggers, and who holds its readers back; nothing without changes."""
    table = table_of(config, config.table)
    if making_of(await connection.fetchval(COMMENT, table.sql)) is None:
        return
    again = "isthmus index --changes --drop, then --changes"
    yield await _check_triggers(connection, table.sql, ALL_TRIGGERS, again)
    yield await _check_delay(connection, ChangeNames.of(table))


async def check_native_changes(connection: Any, table: NativeTable) -> AsyncIterator[Finding]:
    """Check the same of a table that others made; nothing if its owner never created the side table."""
    names = ChangeNames.of(table)
    if making_of(await connection.fetchval(COMMENT, names.changes)) is None:
        return
    again = f"drop {names.changes} and {names.marks}, and run what `isthmus changes URL --ddl` prints"
    yield await _check_triggers(connection, table.sql, TRIGGERS, again)
    yield await _check_delay(connection, names)


async def _check_triggers(connection: Any, table: str, wanted: Sequence[str], again: str) -> Finding:
    triggers = orjson.loads(await connection.fetchval(_TRIGGERS, table, list(wanted)))
    if triggers["missing"]:
        return problem(
            "changes",
            f"triggers are disabled or missing, so writes are not noted: {', '.join(triggers['missing'])}",
            f"ALTER TABLE {table} ENABLE TRIGGER ALL, and let followers begin again with since=start;"
            f" if one is missing: {again}",
        )
    if triggers["role"] != "origin":
        return problem(
            "changes",
            f"session_replication_role is {triggers['role']}: triggers do not run, and no change is noted",
            "RESET session_replication_role for the role, the database or in postgresql.conf",
        )
    return ok("changes", "all triggers are enabled")


async def _check_delay(connection: Any, names: ChangeNames) -> Finding:
    if not await may_read(connection, names):
        tables = f"{names.changes}, {names.marks}"
        return warning(
            "changes read", "this role may not follow", f"GRANT SELECT ON {tables} to the role of a follower"
        )
    first = await read_held(connection, names)
    if not first.count:
        return ok("changes read", "none waits for another transaction")
    await asyncio.sleep(_PAUSE)
    held = await read_held(connection, names)
    if not held.count or held.bound != first.bound:
        return ok("changes read", "none waits for long")
    more = " or more" * (held.count == MAX_COUNTED)
    return warning("changes read", f"{held.count}{more} statements' changes wait for {held.holder}", held.fix)
