"""Writes of rows on one connection, inside its transaction, as if the items came one after another.

The rows that a batch touches are locked and read first, in the order of their keys, so that no other
writer comes between the look-up of a row and its change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from typing import TypeAlias, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.apply import has_repeated_ids, not_found, refusal, refuse_batch
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._record import Record
from isthmus.backends._tables.keys import key_of
from isthmus.backends._tables.writes import Row, prepare_row
from isthmus.backends.sqlalchemy.native.read import read_by_ids
from isthmus.backends.sqlalchemy.native.refusals import is_refusal, is_unique_refusal, refusal_of
from isthmus.backends.sqlalchemy.native.row_writes import (
    NO_VERSION,
    check_row,
    delete_rows,
    insert_row,
    insert_rows,
    is_inserted_alone,
    update_row,
    whole_row,
)
from isthmus.backends.sqlalchemy.native.table import ReflectedTable
from isthmus.backends.sqlalchemy.statements import chunks
from isthmus.errors import RecordError
from sqlalchemy import exc

M = TypeVar("M", bound=Mutation)
Prepared: TypeAlias = "Row | RecordError"
Apply: TypeAlias = "Callable[[M, Record | None], Awaitable[ItemResult]]"
_ATTEMPTS = 5
"""How often an upsert that meets another's insert begins again."""


class _BatchRefusedError(Exception):
    """An atomic batch failed; leaving the savepoint by this undoes it."""

    def __init__(self, results: list[ItemResult]) -> None:
        super().__init__()
        self.results = results


async def write(
    connection: AsyncConnection,
    table: ReflectedTable,
    kind: WriteKind,
    mutations: Sequence[Mutation],
    *,
    atomic: bool,
) -> list[ItemResult]:
    """Apply mutations of one kind and return one result for each; with `atomic` all or none."""
    rows = {id(mutation): _prepare(table, kind, mutation) for mutation in mutations}

    async def apply(mutation: Mutation, old: Record | None) -> ItemResult:
        row = rows[id(mutation)]
        if isinstance(row, RecordError):
            return row
        return await _write_one(connection, table, kind, mutation, row, old)

    if kind is WriteKind.CREATE and len(mutations) > 1:
        created = await _insert_together(connection, table, [rows[id(m)] for m in mutations], atomic=atomic)
        if created is not None:
            return created
    if kind is WriteKind.DELETE and len(mutations) > 1 and not has_repeated_ids(mutations):
        deleted = await _delete_together(connection, table, mutations, atomic=atomic)
        if deleted is not None:
            return deleted
    return await apply_each(
        connection, table, mutations, apply, atomic=atomic, reads=kind is not WriteKind.CREATE
    )


def _prepare(table: ReflectedTable, kind: WriteKind, mutation: Mutation) -> Prepared:
    if kind is WriteKind.DELETE:
        return Row(mutation.id, key_of(table.table, mutation.id))
    try:
        if kind is not WriteKind.CREATE and key_of(table.table, mutation.id) is None:
            mutation.encode()
            if kind is not WriteKind.UPSERT:
                return not_found(mutation.id)
        row = prepare_row(table.table, kind, mutation)
        check_row(table, row)
    except RecordError as error:
        if error.record_id is None and not mutation.own_id:
            error.record_id = mutation.id
        return error
    if kind is WriteKind.CREATE and row.id != mutation.id:
        # Another may have written this key; a row whose key the store makes is written twice if repeated.
        mutation.own_id, mutation.store_makes_id = False, row.id is None
        mutation.id = row.id or mutation.id
    return row


async def apply_each(
    connection: AsyncConnection,
    table: ReflectedTable,
    items: Sequence[M],
    apply: Apply[M],
    *,
    atomic: bool,
    reads: bool = True,
) -> list[ItemResult]:
    """Apply items one after another, each undone if it is refused; with `atomic` all or none.

    `apply` is given the record that is there, which `reads` locks and reads. All are applied in one
    savepoint; if one is refused, all are applied again, each in a savepoint of its own.
    """
    if len(items) > 1:
        try:
            return await _apply_all(connection, table, items, apply, atomic=atomic, reads=reads)
        except RecordError:
            pass
        except exc.DBAPIError as error:
            if not is_refusal(error):
                raise

    async def apply_one(item: M, old: Record | None) -> ItemResult:
        return await _in_savepoint(connection, table, item, apply, old)

    return await _apply_all(connection, table, items, apply_one, atomic=atomic, reads=reads)


async def _apply_all(
    connection: AsyncConnection,
    table: ReflectedTable,
    items: Sequence[M],
    apply: Apply[M],
    *,
    atomic: bool,
    reads: bool,
) -> list[ItemResult]:
    results: list[ItemResult] = []
    try:
        async with connection.begin_nested() if len(items) > 1 else contextlib.nullcontext():
            repeats = has_repeated_ids(items)
            before: dict[str, Record] = {}
            if reads and not repeats:
                before = await read_by_ids(connection, table, [item.id for item in items], lock=True)
            for item in items:
                if repeats and reads:
                    before = await read_by_ids(connection, table, [item.id], lock=True)
                results.append(await apply(item, before.get(item.id)))
            refused = refuse_batch(items, results) if atomic else None
            if refused is not None:
                raise _BatchRefusedError(refused)
    except _BatchRefusedError as batch:
        return batch.results
    return results


class _UndoneError(Exception):
    """An item is refused after a statement of it; leaving its savepoint by this undoes that."""


async def _in_savepoint(
    connection: AsyncConnection, table: ReflectedTable, item: M, apply: Apply[M], old: Record | None
) -> ItemResult:
    result: ItemResult = False
    try:
        async with connection.begin_nested():
            try:
                result = await apply(item, old)
            except RecordError as error:
                if error.record_id is None and not item.own_id:
                    error.record_id = item.id
                result = error
                raise _UndoneError from error
    except _UndoneError:
        pass
    except exc.DBAPIError as error:
        if not is_refusal(error):
            raise
        result = refusal_of(error, table, None if item.store_makes_id else item.id, creates=old is None)
        result.__cause__ = error
    return result


async def _write_one(
    connection: AsyncConnection,
    table: ReflectedTable,
    kind: WriteKind,
    mutation: Mutation,
    row: Row,
    old: Record | None,
) -> ItemResult:
    if kind is WriteKind.CREATE:
        return await insert_row(connection, table, row)
    for _ in range(_ATTEMPTS):
        error = refusal(kind, mutation, None if old is None else old.version or NO_VERSION)
        if error is not None:
            return error
        if kind is WriteKind.DELETE:
            if old is not None:
                await delete_rows(connection, table, [mutation.id])
            return old is not None
        if old is not None:
            values = row.canonical if kind is WriteKind.UPDATE else whole_row(table, row)
            return await update_row(connection, table, old, values, row.fixed)
        try:
            async with connection.begin_nested():
                return await _insert_version(connection, table, row)
        except exc.DBAPIError as clash:
            old = None
            if is_unique_refusal(clash):  # of the key, by another writer
                old = (await read_by_ids(connection, table, [mutation.id], lock=True)).get(mutation.id)
            if old is None:
                raise
    return not_found(mutation.id)


async def _delete_together(
    connection: AsyncConnection, table: ReflectedTable, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult] | None:
    """Delete rows by a statement for each 500; None if the store refused one."""
    try:
        async with connection.begin_nested():
            before = await read_by_ids(connection, table, [item.id for item in mutations], lock=True)
            results: list[ItemResult] = []
            for item in mutations:
                old = before.get(item.id)
                version = None if old is None else old.version or NO_VERSION
                results.append(refusal(WriteKind.DELETE, item, version) or old is not None)
            refused = refuse_batch(mutations, results) if atomic else None
            if refused is not None:
                return refused
            found = [item.id for item, result in zip(mutations, results, strict=True) if result is True]
            for part in chunks(found):
                await delete_rows(connection, table, part)
    except exc.DBAPIError as error:
        if not is_refusal(error):
            raise
        return None
    return results


async def _insert_version(connection: AsyncConnection, table: ReflectedTable, row: Row) -> ItemResult:
    id = await insert_row(connection, table, row)
    if table.table.version is None:
        return NO_VERSION
    record = (await read_by_ids(connection, table, [id])).get(id)
    return (record and record.version) or NO_VERSION


async def _insert_together(
    connection: AsyncConnection, table: ReflectedTable, rows: Sequence[Prepared], *, atomic: bool
) -> list[ItemResult] | None:
    """Insert rows, neighbours with the same columns by one statement; None if the store refused one."""
    if atomic and any(isinstance(row, RecordError) for row in rows):
        return None
    results: list[ItemResult] = []
    try:
        async with connection.begin_nested():
            for columns, group in groupby(rows, key=lambda row: _columns_in_common(table, row)):
                if columns is not None:
                    results += await insert_rows(connection, table, [r for r in group if isinstance(r, Row)])
                    continue
                for row in group:
                    results.append(await insert_row(connection, table, row) if isinstance(row, Row) else row)
    except exc.DBAPIError as error:
        if not is_refusal(error):
            raise
        return None
    except RecordError:
        return None
    return results


def _columns_in_common(table: ReflectedTable, row: Prepared) -> tuple[str, ...] | None:
    """Return the columns of a row that can be inserted with others; None for one that is inserted alone."""
    if isinstance(row, RecordError) or is_inserted_alone(table, row):
        return None
    return tuple(sorted(row.values))
