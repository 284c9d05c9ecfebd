"""Writes of native tables: each item one statement, each batch one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TypeAlias

from isthmus._core.apply import already_exists, not_found, refuse_batch, version_conflict
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus.backends._tables.keys import key_of
from isthmus.backends._tables.writes import Row, prepare_row, refuse_read_only
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.backends.postgres.native.errors import is_refusal, is_unique_refusal, refusal_of
from isthmus.backends.postgres.native.rows import (
    delete_row,
    insert_row,
    insert_rows,
    key_is_taken,
    lock_rows,
    needs_stored,
    read_version,
    reread,
    update_row,
)
from isthmus.errors import InvalidRecordError, IsthmusError, RecordError

Item: TypeAlias = "tuple[Mutation, Row | RecordError]"

# An upsert that meets another's insert, then another's delete, begins again so often.
_UPSERT_ATTEMPTS = 5
_ROWS = 1_000
"""Rows of one INSERT."""


class _Rollback(Exception):
    """Ends the transaction of an atomic batch in which an item failed."""

    def __init__(self, results: list[ItemResult]) -> None:
        super().__init__()
        self.results = results


async def write(
    connection: Connection,
    table: NativeTable,
    kind: WriteKind,
    mutations: Sequence[Mutation],
    *,
    atomic: bool,
) -> list[ItemResult]:
    """Apply mutations of one kind as if one after another and return one result for each.

    Raises `UnsupportedError` for a table that is read-only. One statement for one item, one transaction
    for several; if the table refuses one of them, all are applied again, each in a savepoint, and if it
    refuses them at the commit, once more with each item's deferred constraints checked.
    """
    refuse_read_only(table.table)
    items = [(mutation, _prepare(table, kind, mutation)) for mutation in mutations]
    if len(items) == 1:
        return [await _write_alone(connection, table, kind, items[0])]
    refused = refuse_batch(mutations, [row if isinstance(row, RecordError) else True for _, row in items])
    if atomic and refused is not None:
        return refused
    try:
        for careful in (False, True):
            try:
                return await _write_together(connection, table, kind, items, atomic=atomic, careful=careful)
            except Exception as error:  # the driver's classes
                if not (is_refusal(error) or isinstance(error, InvalidRecordError)):
                    raise
        return await _write_together(
            connection, table, kind, items, atomic=atomic, careful=True, immediate=True
        )
    except _Rollback as ended:
        return refuse_batch(mutations, ended.results) or ended.results


def _prepare(table: NativeTable, kind: WriteKind, mutation: Mutation) -> Row | RecordError:
    if kind is WriteKind.DELETE:
        return Row(mutation.id, key_of(table.table, mutation.id))
    try:
        if kind in (WriteKind.REPLACE, WriteKind.UPDATE) and key_of(table.table, mutation.id) is None:
            mutation.encode()
            return not_found(mutation.id)
        row = prepare_row(table.table, kind, mutation)
    except InvalidRecordError as error:
        error.record_id = error.record_id or mutation.id
        return error
    if kind is WriteKind.CREATE and row.id != mutation.id:
        # Another may have written this key; a row whose key the server makes is written twice if repeated.
        mutation.own_id, mutation.store_makes_id = False, row.id is None
        mutation.id = row.id or mutation.id
    return row


async def _write_alone(connection: Connection, table: NativeTable, kind: WriteKind, item: Item) -> ItemResult:
    mutation, row = item
    if isinstance(row, RecordError):
        return row
    checked = needs_stored(table, row) or bool(reread(table, row)) or table.is_partitioned
    simple = not checked and kind is not WriteKind.UPSERT and not connection.is_in_transaction()
    try:
        if simple:
            return await _apply(connection, table, kind, mutation, row)
        # A failed statement would end the user's transaction.
        async with connection.transaction():
            return await _apply(connection, table, kind, mutation, row)
    except Exception as error:  # the driver's classes
        return await _refuse(connection, table, kind, row, error)


async def _write_together(
    connection: Connection,
    table: NativeTable,
    kind: WriteKind,
    items: Sequence[Item],
    *,
    atomic: bool,
    careful: bool,
    immediate: bool = False,
) -> list[ItemResult]:
    """Apply items in one transaction; `careful`: each in a savepoint, so that one may be refused alone.

    `immediate`: deferred constraints are checked with each item.
    """
    async with connection.transaction():
        if immediate:
            await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        if kind is not WriteKind.CREATE:
            await lock_rows(connection, table, [row for _, row in items if isinstance(row, Row)])
        if kind is WriteKind.CREATE and not careful:
            results = await _insert_together(connection, table, items)
        else:
            results = [await _apply_item(connection, table, kind, item, careful=careful) for item in items]
        if atomic and any(isinstance(result, IsthmusError) for result in results):
            raise _Rollback(results)
    return results


async def _apply_item(
    connection: Connection, table: NativeTable, kind: WriteKind, item: Item, *, careful: bool
) -> ItemResult:
    mutation, row = item
    if isinstance(row, RecordError):
        return row
    if not careful:
        return await _apply(connection, table, kind, mutation, row)
    try:
        async with connection.transaction():
            return await _apply(connection, table, kind, mutation, row)
    except Exception as error:  # the driver's classes
        return await _refuse(connection, table, kind, row, error)


async def _refuse(
    connection: Connection, table: NativeTable, kind: WriteKind, row: Row, error: Exception
) -> RecordError:
    """Return the error of a refused row; raises any other error again."""
    if isinstance(error, InvalidRecordError):
        return error
    if not is_refusal(error):
        raise error
    inserts = kind in (WriteKind.CREATE, WriteKind.UPSERT) and row.id is not None
    if inserts and is_unique_refusal(error) and await key_is_taken(connection, table, row):
        return already_exists(row.id or "")
    return refusal_of(error, table, row.id)


async def _apply(
    connection: Connection, table: NativeTable, kind: WriteKind, mutation: Mutation, row: Row
) -> ItemResult:
    """Apply one item and return its result; what the table refuses is raised as the driver's error."""
    if kind is WriteKind.CREATE:
        id, _ = await insert_row(connection, table, row)
        return id
    if kind is WriteKind.UPSERT:
        return await _upsert(connection, table, mutation, row)
    if kind is WriteKind.DELETE:
        return await _delete(connection, table, mutation, row)
    version = await update_row(connection, table, row, mutation.if_version, whole=kind is WriteKind.REPLACE)
    if version is not None:
        return version
    found = await read_version(connection, table, row)
    return not_found(mutation.id) if found is None else _not_applied(table, mutation, found)


async def _delete(connection: Connection, table: NativeTable, mutation: Mutation, row: Row) -> ItemResult:
    found = None
    if row.key is not None:
        if await delete_row(connection, table, row, mutation.if_version):
            return True
        found = await read_version(connection, table, row)
    if found is not None:
        return _not_applied(table, mutation, found)
    return False if mutation.if_version is None else version_conflict(mutation.id, mutation.if_version)


async def _upsert(connection: Connection, table: NativeTable, mutation: Mutation, row: Row) -> ItemResult:
    for _ in range(_UPSERT_ATTEMPTS):
        version = await update_row(connection, table, row, mutation.if_version, whole=True)
        if version is not None:
            return version
        found = await read_version(connection, table, row)
        if found is not None:
            return _not_applied(table, mutation, found)
        if mutation.if_version is not None:
            return version_conflict(mutation.id, mutation.if_version)
        try:
            async with connection.transaction():
                _, version = await insert_row(connection, table, row)
                return version or ""
        except Exception as error:  # the driver's classes
            if not is_unique_refusal(error) or not await read_version(connection, table, row):
                raise
    return version_conflict(mutation.id, "none")


def _not_applied(table: NativeTable, mutation: Mutation, found: str) -> RecordError:
    """Return the error of a statement that changed no row although there is one."""
    if mutation.if_version is not None and mutation.if_version != found:
        return version_conflict(mutation.id, mutation.if_version)
    return InvalidRecordError(
        f"the table {table.name!r} refuses the change: a trigger or rule of the table dropped it",
        path="data",
        record_id=mutation.id,
    )


async def _insert_together(
    connection: Connection, table: NativeTable, items: Sequence[Item]
) -> list[ItemResult]:
    """Insert rows, neighbours with the same columns by one statement."""
    results: list[ItemResult] = []
    for columns, group in groupby(items, key=lambda item: _columns_of(table, item)):
        part = list(group)
        if columns is None:
            for mutation, row in part:
                if isinstance(row, RecordError):
                    results.append(row)
                else:
                    results.append(await _apply(connection, table, WriteKind.CREATE, mutation, row))
            continue
        rows = [row for _, row in part if isinstance(row, Row)]
        for start in range(0, len(rows), _ROWS):
            results += await insert_rows(connection, table, columns, rows[start : start + _ROWS])
    return results


def _columns_of(table: NativeTable, item: Item) -> tuple[str, ...] | None:
    """Return the columns of a row that can be inserted with others; None for one that is inserted alone."""
    row = item[1]
    if isinstance(row, RecordError) or row.fixed or not row.values or reread(table, row):
        return None
    if table.table.version in row.values and row.values[table.table.version] is None:
        return None
    return tuple(sorted(row.values))
