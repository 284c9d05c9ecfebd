"""Changes that depend on versions or on earlier items of their batch: lock, judge in order, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from isthmus._core.apply import refusal
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._values import decode, new_version
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import (
    AlreadyExistsError,
    InvalidRecordError,
    IsthmusError,
)


@dataclass(slots=True)
class _Row:
    """What becomes of one id while the batch is judged."""

    version: int | None
    """None: there is no record."""
    stored: bool
    """Whether the table has a row for it."""
    data: dict[str, Any] | None = None
    """What to write; with `merges`, on top of what is stored."""
    metadata: dict[str, Any] | None = None
    merges: bool = False
    touched: bool = False


async def apply_carefully(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation]
) -> list[ItemResult]:
    """Apply changes of one kind one after another; the caller's transaction holds it together."""
    ids = sorted({mutation.id for mutation in mutations})
    locked = await connection.fetch(
        f"SELECT t.id, t.version FROM {table.sql} AS t WHERE t.id = ANY($1::text[]) ORDER BY t.id FOR UPDATE",
        ids,
    )
    rows = {id: _Row(None, stored=False) for id in ids}
    for id, version in locked:
        rows[id] = _Row(version, stored=True)
    results = [_judged(kind, mutation, rows[mutation.id]) for mutation in mutations]
    await _store(connection, table, kind, rows, results, mutations)
    return results


def _judged(kind: WriteKind, mutation: Mutation, row: _Row) -> ItemResult:
    """Return the result of one change and note what it does to its row."""
    version = None if row.version is None else str(row.version)
    if kind is WriteKind.DELETE:
        no = refusal(kind, mutation, version)
        if no is not None:
            return no
        there = row.version is not None
        row.version, row.touched = None, row.touched or there
        row.data = row.metadata = None
        row.merges = False
        return there
    try:
        data, metadata = decode(mutation.encoded()), decode(mutation.encoded_metadata())
    except InvalidRecordError as error:
        error.record_id = mutation.id
        return error
    no = refusal(kind, mutation, version)
    if no is not None:
        return no
    if kind is WriteKind.UPDATE:
        row.merges = row.merges or row.data is None
        row.data = {**(row.data or {}), **data}
        row.metadata = {**(row.metadata or {}), **metadata}
    else:
        row.data, row.metadata, row.merges = data, metadata, False
    row.version, row.touched = new_version(), True
    return mutation.id if kind is WriteKind.CREATE else str(row.version)


async def _store(
    connection: Connection,
    table: Table,
    kind: WriteKind,
    rows: dict[str, _Row],
    results: list[ItemResult],
    mutations: Sequence[Mutation],
) -> None:
    gone = [id for id, row in rows.items() if row.touched and row.version is None and row.stored]
    if gone:
        await connection.execute(f"DELETE FROM {table.sql} WHERE id = ANY($1::text[])", gone)
    changed = {id: row for id, row in rows.items() if row.touched and row.version is not None}
    old = {id: row for id, row in changed.items() if row.stored}
    if old:
        await connection.execute(
            f"UPDATE {table.sql} AS t SET data = CASE WHEN u.merges THEN t.data || u.data ELSE u.data END,"
            " metadata = CASE WHEN u.merges THEN t.metadata || u.metadata ELSE u.metadata END,"
            " version = u.version, updated_at = now()"
            " FROM unnest($1::text[], $2::jsonb[], $3::jsonb[], $4::int8[], $5::bool[])"
            " AS u(id, data, metadata, version, merges) WHERE t.id = u.id",
            *_columns(old),
            [row.merges for row in old.values()],
        )
    new = {id: row for id, row in changed.items() if not row.stored}
    if new:
        made = await connection.fetch(
            f"INSERT INTO {table.sql} (id, data, metadata, version)"
            " SELECT u.id, u.data, u.metadata, u.version"
            " FROM unnest($1::text[], $2::jsonb[], $3::jsonb[], $4::int8[]) AS u(id, data, metadata, version)"
            f" ON CONFLICT (id) {_ON_CONFLICT[kind]} RETURNING id",
            *_columns(new),
        )
        if len(made) < len(new):
            _outrun({row[0] for row in made}, new, results, mutations)


# Only these two make new rows; somebody else may have made them since we looked.
_ON_CONFLICT = {
    WriteKind.CREATE: "DO NOTHING",
    WriteKind.UPSERT: "DO UPDATE SET data = excluded.data, metadata = excluded.metadata,"
    " version = excluded.version, updated_at = now()",
}


def _outrun(
    made: set[str], new: dict[str, _Row], results: list[ItemResult], mutations: Sequence[Mutation]
) -> None:
    """Report ids that somebody else created between our look and our insert."""
    for place, mutation in enumerate(mutations):
        if mutation.id in new and mutation.id not in made and not isinstance(results[place], IsthmusError):
            results[place] = AlreadyExistsError(
                f"a record with id {mutation.id!r} exists", record_id=mutation.id
            )


def _columns(rows: dict[str, _Row]) -> tuple[list[Any], ...]:
    return (
        list(rows),
        [orjson.dumps(row.data).decode() for row in rows.values()],
        [orjson.dumps(row.metadata).decode() for row in rows.values()],
        [row.version for row in rows.values()],
    )
