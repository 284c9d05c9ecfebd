"""Writes on one connection, inside its transaction, as if the items came one after another."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.apply import apply_in_order, merge_documents, refuse_batch
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.unique_index import UniqueChanges
from isthmus._ids import new_version
from isthmus._values import decode
from isthmus.backends.sqlalchemy.claims import ClaimChanges, StoredClaims
from isthmus.backends.sqlalchemy.schema import key_of
from isthmus.backends.sqlalchemy.statements import chunks
from isthmus.errors import ConflictError
from sqlalchemy import Table, bindparam, delete, insert, select, update

Row: TypeAlias = "dict[str, Any]"
_ATTEMPTS = 5


class _RaceLostError(Exception):
    """Another writer has created or changed one of the rows meanwhile: the batch starts again."""


class _RefusedError(Exception):
    """An atomic batch failed; leaving the savepoint by this undoes it."""

    def __init__(self, results: list[ItemResult]) -> None:
        super().__init__()
        self.results = results


async def write(
    connection: AsyncConnection, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    """Apply mutations of one kind and return one result for each; with `atomic` all or none.

    Costs a SELECT for each 500 ids, and statements for the rows that change, inside a savepoint.
    Raises `ConflictError` if other writers won each of five attempts.
    """
    # Nobody else knows a generated id, unless this write was sent before: the first attempt finds out.
    generated = kind is WriteKind.CREATE and all(mutation.own_id for mutation in mutations)
    for attempt in range(_ATTEMPTS):
        ids = [] if generated and attempt == 0 else [mutation.id for mutation in mutations]
        try:
            async with connection.begin_nested():
                before = await _lock_rows(connection, table, ids, whole=kind is WriteKind.UPDATE)
                stored = StoredClaims(connection, table)
                if stored.declared:
                    await stored.read_records(ids)
                while True:
                    values = ClaimChanges(stored)
                    rows = _TableRows(before, values)
                    results = apply_in_order(rows, kind, mutations)
                    if not (stored.declared and await stored.read_holders(values.touched)):
                        break
                refused = refuse_batch(mutations, results) if atomic else None
                if refused is not None:
                    raise _RefusedError(refused)
                await _flush(connection, table, rows)
                if stored.declared:
                    await _flush_claims(stored, values)
                return results
        except _RaceLostError:
            continue
        except _RefusedError as batch:
            return batch.results
    raise ConflictError(
        f"other writers changed the same records in each of {_ATTEMPTS} attempts", record_id=mutations[0].id
    )


async def _lock_rows(
    connection: AsyncConnection, table: Table, ids: Iterable[str], *, whole: bool
) -> dict[str, Row]:
    """Return the existing rows of some ids by key, locked where the server locks rows.

    `whole` adds data and metadata.
    """
    columns = [table.c.key, table.c.version, table.c.created_at]
    if whole:
        columns += [table.c.data, table.c.metadata]
    rows: dict[str, Row] = {}
    # In the order of keys, so that two batches do not wait for each other in a circle.
    for part in chunks(sorted({key_of(record_id) for record_id in ids})):
        statement = select(*columns).where(table.c.key.in_(part)).with_for_update()
        for row in await connection.execute(statement):
            rows[row.key] = {column.key: row[index] for index, column in enumerate(columns)}
    return rows


class _TableRows:
    """Rows as they were found, and as the mutations leave them (None: deleted)."""

    def __init__(self, rows: dict[str, Row], values: UniqueChanges) -> None:
        self.before = rows
        self._values = values
        self.after: dict[str, Row | None] = {}
        self._now = time.time_ns() // 1_000

    def _get(self, id: str) -> Row | None:
        key = key_of(id)
        return self.after[key] if key in self.after else self.before.get(key)

    def version(self, id: str) -> str | None:
        row = self._get(id)
        return None if row is None else str(row["version"])

    def put(self, id: str, data: bytes, metadata: bytes) -> str:
        if self._values.declared:
            self._values.put(id, decode(data))
        old, version = self._get(id), new_version()
        self.after[key_of(id)] = {
            "key": key_of(id),
            "data": data.decode(),
            "metadata": metadata.decode(),
            "version": version,
            "created_at": self._now if old is None else old["created_at"],
            "updated_at": self._now,
        }
        return str(version)

    def merge(self, id: str, data: bytes, metadata: bytes) -> str:
        old = self._get(id)
        assert old is not None
        return self.put(id, *merge_documents(decode(old["data"]), decode(old["metadata"]), data, metadata))

    def delete(self, id: str) -> None:
        if self._values.declared:
            self._values.remove(id)
        self.after[key_of(id)] = None


async def _flush(connection: AsyncConnection, table: Table, rows: _TableRows) -> None:
    """Send deletes, inserts and updates; all but inserts are guarded by the version that was read."""
    inserts: list[Row] = []
    updates: list[Row] = []
    deletes: list[Row] = []
    for key, row in rows.after.items():
        before = rows.before.get(key)
        if before is None:
            if row is not None:
                inserts.append(row)
        elif row is None:
            deletes.append({"b_key": key, "b_seen": before["version"]})
        else:
            values = {f"b_{name}": value for name, value in row.items() if name != "created_at"}
            updates.append({**values, "b_seen": before["version"]})
    guard = (table.c.key == bindparam("b_key")) & (table.c.version == bindparam("b_seen"))
    try:
        for part in chunks(inserts):
            await connection.execute(insert(table), part)
    except IntegrityError as error:
        raise _RaceLostError from error
    names = ("data", "metadata", "version", "updated_at")
    statement = update(table).where(guard).values({name: bindparam(f"b_{name}") for name in names})
    for row in updates:
        await _execute_guarded(connection, statement, row)
    for row in deletes:
        await _execute_guarded(connection, delete(table).where(guard), row)


async def _flush_claims(stored: StoredClaims, values: ClaimChanges) -> None:
    try:
        unchanged = await stored.write(values)
    except IntegrityError as error:  # another writer has claimed one of the values meanwhile
        raise _RaceLostError from error
    if not unchanged:
        raise _RaceLostError


async def _execute_guarded(connection: AsyncConnection, statement: Any, row: Row) -> None:
    result = await connection.execute(statement, row)
    if result.rowcount != 1:  # a server without row locks let another writer through
        raise _RaceLostError
