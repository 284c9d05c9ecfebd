"""Writes on one connection, inside its transaction, as if items came one after another."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import orjson
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.apply import not_written, refusal, reject_invalid
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._ids import new_version
from isthmus._values import decode
from isthmus.backends.sqlalchemy.table import key_of
from isthmus.errors import (
    ConflictError,
    InvalidRecordError,
    IsthmusError,
)
from sqlalchemy import Table, bindparam, delete, insert, select, update

Row: TypeAlias = "dict[str, Any]"
CHUNK = 500
_ATTEMPTS = 5


class Raced(Exception):
    """Another writer created one of our ids meanwhile; the batch is to be judged anew."""


async def write(
    connection: AsyncConnection, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    """Apply the changes; nothing is written if one fails and `atomic`."""
    # Nobody else knows an id that was just made, unless this is such a write once more.
    fresh = kind is WriteKind.CREATE and all(mutation.own_id for mutation in mutations)
    for attempt in range(_ATTEMPTS):
        ids = [] if fresh and attempt == 0 else [mutation.id for mutation in mutations]
        try:
            async with connection.begin_nested():
                return await _attempt(connection, table, kind, mutations, ids, atomic=atomic)
        except Raced:
            continue
        except _Refused as refusal:
            return refusal.results
    raise ConflictError(
        f"others wrote the same ids in each of {_ATTEMPTS} attempts", record_id=mutations[0].id
    )


class _Refused(Exception):
    """An atomic batch failed; leaving the savepoint by this undoes it."""

    def __init__(self, results: list[ItemResult]) -> None:
        super().__init__()
        self.results = results


async def _attempt(
    connection: AsyncConnection,
    table: Table,
    kind: WriteKind,
    mutations: Sequence[Mutation],
    ids: Sequence[str],
    *,
    atomic: bool,
) -> list[ItemResult]:
    rows = await _locked(connection, table, ids, whole=kind is WriteKind.UPDATE)
    state = _State(rows)
    results = [_judged(kind, mutation, state) for mutation in mutations]
    if atomic and any(isinstance(result, IsthmusError) for result in results):
        raise _Refused(
            reject_invalid(mutations)
            or [
                result if isinstance(result, IsthmusError) else not_written(mutation)
                for result, mutation in zip(results, mutations, strict=True)
            ]
        )
    await _flush(connection, table, state)
    return results


async def _locked(
    connection: AsyncConnection, table: Table, ids: Iterable[str], *, whole: bool
) -> dict[str, Row]:
    """Return the rows of the ids that exist, locked against other writers where the server locks rows."""
    columns = [table.c.key, table.c.version, table.c.created_at]
    if whole:
        columns += [table.c.data, table.c.metadata]
    rows: dict[str, Row] = {}
    # In the order of keys, so that two batches do not wait for each other in a ring.
    for part in chunks(sorted({key_of(record_id) for record_id in ids})):
        statement = select(*columns).where(table.c.key.in_(part)).with_for_update()
        for row in await connection.execute(statement):
            rows[row.key] = dict(row._mapping)
    return rows


class _State:
    """Rows as they were, and as the changes so far make them."""

    def __init__(self, rows: dict[str, Row]) -> None:
        self.before = rows
        self.now: dict[str, Row | None] = dict(rows)
        self.touched: dict[str, None] = {}

    def put(self, key: str, row: Row | None) -> None:
        """Set what a key's row will be; None deletes it."""
        self.now[key] = row
        self.touched[key] = None


def _judged(kind: WriteKind, mutation: Mutation, state: _State) -> ItemResult:
    """Return the result of one change, made in the state unless it is an error."""
    key = key_of(mutation.id)
    old = state.now.get(key)
    version = None if old is None else str(old["version"])
    if kind is WriteKind.DELETE:
        no = refusal(kind, mutation, version)
        if no is not None:
            return no
        if old is not None:
            state.put(key, None)
        return old is not None
    try:
        data, metadata = mutation.encoded(), mutation.encoded_metadata()
    except InvalidRecordError as invalid:
        invalid.record_id = mutation.id
        return invalid
    no = refusal(kind, mutation, version)
    if no is not None:
        return no
    if kind is WriteKind.UPDATE and old is not None:
        data = orjson.dumps({**decode(old["data"]), **decode(data)})
        metadata = orjson.dumps({**decode(old["metadata"]), **decode(metadata)})
    now, token = time.time_ns() // 1_000, new_version()
    created = now if old is None else old["created_at"]
    row = {
        "key": key,
        "data": data.decode(),
        "metadata": metadata.decode(),
        "version": token,
        "created_at": created,
        "updated_at": now,
    }
    state.put(key, row)
    return mutation.id if kind is WriteKind.CREATE else str(token)


async def _flush(connection: AsyncConnection, table: Table, state: _State) -> None:
    """Send what the changes came to: deletes, inserts and updates, each guarded by the version seen."""
    new: list[Row] = []
    changed: list[Row] = []
    gone: list[Row] = []
    for key in state.touched:
        before, row = state.before.get(key), state.now[key]
        if row is None:
            if before is not None:
                gone.append({"b_key": key, "b_seen": before["version"]})
        elif before is None:
            new.append(row)
        else:
            changed.append(
                {**{f"b_{name}": value for name, value in row.items()}, "b_seen": before["version"]}
            )
    guard = (table.c.key == bindparam("b_key")) & (table.c.version == bindparam("b_seen"))
    try:
        for part in chunks(new):
            await connection.execute(insert(table), part)
    except IntegrityError as error:
        raise Raced from error
    names = ("data", "metadata", "version", "updated_at")
    mutation = update(table).where(guard).values({name: bindparam(f"b_{name}") for name in names})
    for row in changed:
        await _one(connection, mutation, {k: v for k, v in row.items() if k != "b_created_at"})
    for row in gone:
        await _one(connection, delete(table).where(guard), row)


async def _one(connection: AsyncConnection, statement: Any, row: Row) -> None:
    result = await connection.execute(statement, row)
    if result.rowcount != 1:  # a server without row locks let another writer through
        raise Raced


def chunks(items: Sequence[Any]) -> Iterable[list[Any]]:
    """Yield the items in lists of at most CHUNK: servers limit a statement's arguments."""
    source = iter(items)
    while part := list(itertools.islice(source, CHUNK)):
        yield part
