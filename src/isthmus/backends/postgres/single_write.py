"""One mutation as one statement, compare-and-set included."""

from __future__ import annotations

from typing import Any

from isthmus._core.apply import already_exists, not_found, version_conflict
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._ids import new_version
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import InvalidRecordError

_MATCHES = "t.id = $1 AND ($2::int8 IS NULL OR t.version = $2)"
_WRITES = {
    WriteKind.CREATE: "INSERT INTO {table} (id, data, metadata, version) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (id) DO NOTHING",
    WriteKind.UPSERT: "INSERT INTO {table} (id, data, metadata, version) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (id) DO UPDATE SET data = excluded.data, metadata = excluded.metadata,"
    " version = excluded.version, {touch}",
    WriteKind.REPLACE: "UPDATE {table} AS t SET data = $3, metadata = $4, version = $5, {touch}"
    f" WHERE {_MATCHES}",
    WriteKind.UPDATE: "UPDATE {table} AS t SET data = t.data || $3, metadata = t.metadata || $4,"
    f" version = $5, {{touch}} WHERE {_MATCHES}",
    WriteKind.DELETE: f"DELETE FROM {{table}} AS t WHERE {_MATCHES}",
}


async def single_write(
    connection: Connection, table: Table, kind: WriteKind, mutation: Mutation
) -> ItemResult:
    """Apply one mutation and return its result; one round trip, and one more to explain some refusals."""
    expected = None
    if mutation.if_version is not None and kind is not WriteKind.CREATE:
        expected = version_number(mutation.if_version)
    # An upsert with an expected version never inserts: it is a replace.
    statement_kind = WriteKind.REPLACE if kind is WriteKind.UPSERT and expected is not None else kind
    text = _WRITES[statement_kind].replace("{touch}", table.touch).replace("{table}", table.sql)
    if kind is WriteKind.DELETE:
        deleted = not (await connection.execute(text, mutation.id, expected)).endswith(" 0")
        if deleted or expected is None:
            return deleted
        return await _refuse(connection, table, kind, mutation)
    try:
        data, metadata = mutation.encode().decode(), mutation.encode_metadata().decode()
    except InvalidRecordError as error:
        error.record_id = mutation.id
        return error
    repeated = mutation.written_version is not None
    if mutation.written_version is None:
        mutation.written_version = new_version()
    version = mutation.written_version
    if statement_kind in (WriteKind.CREATE, WriteKind.UPSERT):
        status = await connection.execute(text, mutation.id, data, metadata, version)
    else:
        status = await connection.execute(text, mutation.id, expected, data, metadata, version)
    if status.endswith(" 0"):
        return await _refuse(connection, table, kind, mutation, repeated=repeated)
    return mutation.id if kind is WriteKind.CREATE else str(version)


async def _refuse(
    connection: Connection, table: Table, kind: WriteKind, mutation: Mutation, *, repeated: bool = False
) -> ItemResult:
    """Return why no row matched. A write that lands now is ordered after this one.

    A row at the version that this very write gives was written by an earlier attempt whose response was
    lost: the write has succeeded.
    """
    if kind is WriteKind.CREATE:
        if repeated and await _read_version(connection, table, mutation) == mutation.written_version:
            return mutation.id
        return already_exists(mutation.id)
    if mutation.if_version is None:
        return not_found(mutation.id)
    if kind is not WriteKind.DELETE:
        found = await _read_version(connection, table, mutation)
        if found is not None and found == mutation.written_version:
            return str(found)
        if found is None and kind is not WriteKind.UPSERT:
            return not_found(mutation.id)
    return version_conflict(mutation.id, mutation.if_version)


async def _read_version(connection: Connection, table: Table, mutation: Mutation) -> Any:
    return await connection.fetchval(f"SELECT t.version FROM {table.sql} AS t WHERE t.id = $1", mutation.id)


def version_number(token: str) -> int:
    """Return the number of a version token; -1, which no record has, for any other text."""
    number = int(token) if token.isascii() and token.isdigit() and len(token) < 20 else -1
    # Only the canonical form of the number is a token.
    return number if str(number) == token and number < 2**63 else -1
