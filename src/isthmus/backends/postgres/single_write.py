"""One change as one statement, compare-and-set included."""

from __future__ import annotations

from isthmus._core.apply import refusal
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._values import new_version
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import InvalidRecordError

_MATCHES = "t.id = $1 AND ($2::int8 IS NULL OR t.version = $2)"
_WRITES = {
    WriteKind.CREATE: "INSERT INTO {table} (id, data, metadata, version) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (id) DO NOTHING",
    WriteKind.UPSERT: "INSERT INTO {table} (id, data, metadata, version) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (id) DO UPDATE SET data = excluded.data, metadata = excluded.metadata,"
    " version = excluded.version, updated_at = now()",
    WriteKind.REPLACE: "UPDATE {table} AS t SET data = $3, metadata = $4, version = $5, updated_at = now()"
    f" WHERE {_MATCHES}",
    WriteKind.UPDATE: "UPDATE {table} AS t SET data = t.data || $3, metadata = t.metadata || $4,"
    f" version = $5, updated_at = now() WHERE {_MATCHES}",
    WriteKind.DELETE: f"DELETE FROM {{table}} AS t WHERE {_MATCHES}",
}


async def write_one(connection: Connection, table: Table, kind: WriteKind, mutation: Mutation) -> ItemResult:
    """Apply one change and return its result."""
    wanted = (
        None
        if mutation.if_version is None or kind is WriteKind.CREATE
        else version_number(mutation.if_version)
    )
    # An upsert to a version has nothing to insert: it is a replace.
    verb = WriteKind.REPLACE if kind is WriteKind.UPSERT and wanted is not None else kind
    text = _WRITES[verb].replace("{table}", table.sql)
    version = new_version()
    if kind is WriteKind.DELETE:
        status = await connection.execute(text, mutation.id, wanted)
    else:
        try:
            data, metadata = mutation.encoded().decode(), mutation.encoded_metadata().decode()
        except InvalidRecordError as error:
            error.record_id = mutation.id
            return error
        if verb in (WriteKind.CREATE, WriteKind.UPSERT):
            status = await connection.execute(text, mutation.id, data, metadata, version)
        else:
            status = await connection.execute(text, mutation.id, wanted, data, metadata, version)
    if not status.endswith(" 0"):
        return True if kind is WriteKind.DELETE else mutation.id if kind is WriteKind.CREATE else str(version)
    if kind is WriteKind.DELETE and wanted is None:
        return False
    # Nothing matched: say why. Who meanwhile made it match again came after us.
    stored = None
    if kind is WriteKind.CREATE:
        stored = "another"
    elif wanted is not None:
        number = await connection.fetchval(
            f"SELECT t.version FROM {table.sql} AS t WHERE t.id = $1", mutation.id
        )
        stored = None if number is None else "another"
    reason = refusal(kind, mutation, stored)
    assert reason is not None
    return reason


def version_number(token: str) -> int:
    """Return the number of a version token; -1, which no record has, for a text that is none of ours."""
    number = int(token) if token.isascii() and token.isdigit() and len(token) < 20 else -1
    # One spelling is ours; another one of the same number is not the token that was given out.
    return number if str(number) == token and number < 2**63 else -1
