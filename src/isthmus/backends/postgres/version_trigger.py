"""The trigger by which a row that other programs change gets a new version.

Each write of isthmus sets `version` itself, so the trigger's condition is false and its function does not
run. It is on updates alone: one on inserts would cost COPY its batches.
"""

from __future__ import annotations

import logging
import zlib

from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import sqlstate_of
from isthmus.backends.postgres.sql.statement import quote
from isthmus.backends.postgres.sql.table import Table

log = logging.getLogger("isthmus.postgres.schema")

NAME = "isthmus_version"
NEW_VERSION = "('x' || right(replace(gen_random_uuid()::text, '-', ''), 15))::bit(60)::bigint"
_FUNCTION = "isthmus_renew_version"
_LOCK = zlib.crc32(b"isthmus version trigger")
# Milliseconds that an opening waits for writers of an existing table; the next one tries again.
_PATIENCE = 500
# No right to the table or the schema, a lock that was not to be had, a read-only server, no plpgsql, and two
# sessions that created the same thing.
_SKIPPED = frozenset({"42501", "55P03", "25006", "42704", "42710", "42723", "40P01", "23505"})


def definition(table: Table) -> list[str]:
    """Return the statements that create the function, if it is missing, and the trigger of a table."""
    function = f"{quote(table.schema)}.{_FUNCTION}"
    return [
        f"""CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$ BEGIN
  NEW.version := {NEW_VERSION};
  NEW.updated_at := now();
  RETURN NEW;
END $$""",
        # Without a list of columns, by which the server would refuse to change their types.
        f"""CREATE TRIGGER {NAME} BEFORE UPDATE ON {table.sql}
  FOR EACH ROW WHEN (OLD.version = NEW.version) EXECUTE FUNCTION {function}()""",
    ]


async def create_trigger(connection: Connection, table: Table) -> None:
    """Create the trigger of a table, in the open transaction."""
    function, trigger = definition(table)
    exists = "SELECT EXISTS (SELECT 1 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
    exists += " WHERE n.nspname = $1 AND p.proname = $2)"
    # Another role may own it: it is replaced by none.
    if not await connection.fetchval(exists, table.schema, _FUNCTION):
        await connection.execute(function)
    await connection.execute(trigger)


async def add_trigger(connection: Connection, table: Table) -> None:
    """Create the trigger of a table that exists, if this role may and no writer holds it up for long."""
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {_PATIENCE}")
            # Openings at the same time wait for each other, and find it there.
            await connection.fetchval("SELECT pg_advisory_xact_lock($1::int8)::text", _LOCK)
            there = (
                "SELECT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = $1::text::regclass AND tgname = $2)"
            )
            if not await connection.fetchval(there, table.sql, NAME):
                await create_trigger(connection, table)
    except Exception as error:
        if sqlstate_of(error) not in _SKIPPED:
            raise
        log.info("postgres: %s has no trigger for versions: %s", table.sql, error)
