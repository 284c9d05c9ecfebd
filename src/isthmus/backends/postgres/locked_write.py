"""Writes that depend on versions or on earlier items of their batch: lock the rows, apply in order, store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus._core.apply import already_exists, apply_in_order, merge_documents
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._ids import new_version
from isthmus._values import decode
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import IsthmusError


@dataclass(slots=True)
class _Row:
    """The state of one id after the items that were applied so far."""

    version: str | None = None
    """None: there is no record."""
    is_stored: bool = False
    """Whether the table has a row, which is locked."""
    data: bytes | None = None
    """The JSON to write; None: unchanged."""
    metadata: bytes = b"{}"
    is_patch: bool = False
    """Whether the server is to merge `data` and `metadata` into what is stored."""


class _LockedRows:
    """The rows of a batch, for `apply_in_order`; a merge into a stored row is left to the server."""

    def __init__(self, ids: Iterable[str], stored: Iterable[Sequence[Any]]) -> None:
        self.by_id = {id: _Row() for id in ids}
        for id, version in stored:
            self.by_id[id] = _Row(str(version), is_stored=True)

    def version(self, id: str) -> str | None:
        return self.by_id[id].version

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        row = self.by_id[id]
        row.data, row.metadata, row.is_patch = data, metadata, False
        row.version = str(new_version())
        return row.version

    def merge(self, id: str, data: bytes, metadata: bytes) -> str:
        row = self.by_id[id]
        if row.data is None:
            row.data, row.metadata, row.is_patch = data, metadata, True
        else:
            # Into the record, or into an earlier patch of it.
            old_data, old_metadata = decode(row.data), decode(row.metadata)
            row.data, row.metadata = merge_documents(old_data, old_metadata, data, metadata)
        row.version = str(new_version())
        return row.version

    def delete(self, id: str) -> None:
        self.by_id[id].version = None


async def write_locked(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation]
) -> list[ItemResult]:
    """Apply mutations of one kind one after another and return each one's result.

    The caller's transaction holds the locks. Costs a round trip to lock the rows, and one for each of
    deleted, updated and inserted rows.
    """
    # In the order of their ids, so that two batches never wait for each other in a circle.
    ids = sorted({mutation.id for mutation in mutations})
    stored = await connection.fetch(
        f"SELECT t.id, t.version FROM {table.sql} AS t WHERE t.id = ANY($1::text[]) ORDER BY t.id FOR UPDATE",
        ids,
    )
    rows = _LockedRows(ids, stored)
    results = apply_in_order(rows, kind, mutations)
    lost = await _store(connection, table, kind, rows.by_id)
    if not lost:
        return results
    return [
        already_exists(mutation.id)
        if mutation.id in lost and not isinstance(result, IsthmusError)
        else result
        for mutation, result in zip(mutations, results, strict=True)
    ]


async def _store(connection: Connection, table: Table, kind: WriteKind, rows: dict[str, _Row]) -> set[str]:
    """Write the changed rows; return the ids that another session has created since the lock."""
    deleted = [id for id, row in rows.items() if row.is_stored and row.version is None]
    if deleted:
        await connection.execute(f"DELETE FROM {table.sql} WHERE id = ANY($1::text[])", deleted)
    changed = {id: row for id, row in rows.items() if row.data is not None and row.version is not None}
    old = {id: row for id, row in changed.items() if row.is_stored}
    if old:
        await connection.execute(
            f"UPDATE {table.sql} AS t SET"
            " data = CASE WHEN u.patch = 't' THEN t.data || u.data ELSE u.data END,"
            " metadata = CASE WHEN u.patch = 't' THEN t.metadata || u.metadata ELSE u.metadata END,"
            f" version = u.version::int8, {table.touch}"
            f" FROM {_source(table, 'patch')} WHERE t.id = u.id",
            *_columns(old),
            ["t" if row.is_patch else "f" for row in old.values()],
        )
    new = {id: row for id, row in changed.items() if not row.is_stored}
    if not new:
        return set()
    inserted = await connection.fetch(
        f"INSERT INTO {table.sql} (id, data, metadata, version)"
        f" SELECT u.id, u.data, u.metadata, u.version::int8 FROM {_source(table)}"
        f" ON CONFLICT (id) {_ON_CONFLICT[kind].replace('{touch}', table.touch)} RETURNING id",
        *_columns(new),
    )
    return new.keys() - {row[0] for row in inserted}


def _source(table: Table, *more: str) -> str:
    """Return the rows `u` of the arrays of `_columns` and of one more text array for each name."""
    # Of all arrays only those of text are safe from the codecs that a hook registered.
    json = table.json_array
    arrays = ["$1::text[]", f"$2::{json}", f"$3::{json}", "$4::text[]"]
    arrays += [f"${len(arrays) + i}::text[]" for i in range(1, len(more) + 1)]
    return f"unnest({', '.join(arrays)}) AS u({', '.join(('id', 'data', 'metadata', 'version', *more))})"


# Only these two kinds insert; another session may have inserted the same id since the lock.
_ON_CONFLICT = {
    WriteKind.CREATE: "DO NOTHING",
    WriteKind.UPSERT: "DO UPDATE SET data = excluded.data, metadata = excluded.metadata,"
    " version = excluded.version, {touch}",
}


def _columns(rows: dict[str, _Row]) -> tuple[list[Any], ...]:
    return (
        list(rows),
        [row.data.decode() for row in rows.values() if row.data is not None],
        [row.metadata.decode() for row in rows.values()],
        [row.version for row in rows.values() if row.version is not None],
    )
