"""Batches of mutations: the fastest statement for each kind and size, and each item's result.

A plain batch (every id once, no `if_version`) is one statement or one COPY. A batch that depends on
versions or on its own earlier items goes to `locked_write`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import repeat
from typing import Any

from isthmus._core.apply import already_exists, not_found, refuse_batch, reject_invalid
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.mutation_batch import MutationBatch
from isthmus._ids import new_version
from isthmus._values import encode
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.errors import is_unique_violation
from isthmus.backends.postgres.locked_write import write_locked
from isthmus.backends.postgres.single_write import single_write
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import InvalidRecordError

COPY_FROM = 100
"""The number of creates from which COPY is faster than `unnest`."""
STAGE_ABOVE = 2_000
"""The number of upserts or updates above which a COPY to a temporary table is faster than `unnest`."""
COUNT_FROM = 500
"""The number of deletions from which returning the deleted ids costs more than counting them."""

_STAGE_NAME = "isthmus_stage"
_STAGE = f"pg_temp.{_STAGE_NAME}"
_COLUMNS = ("id", "data", "metadata", "version")
# Sources of rows `u` with and without metadata: most records have none, and what is not sent is
# neither parsed nor merged. $1 is the version.
_UNNEST = {
    True: "unnest($2::text[], $3::{json_array}, $4::{json_array}) AS u(id, data, metadata)",
    False: "unnest($2::text[], $3::{json_array}) AS u(id, data)",
}
_METADATA = {True: "u.metadata", False: "'{}'::jsonb"}
_SET = {
    (WriteKind.REPLACE, True): "data = u.data, metadata = u.metadata",
    (WriteKind.REPLACE, False): "data = u.data, metadata = '{}'::jsonb",
    (WriteKind.UPDATE, True): "data = t.data || u.data, metadata = t.metadata || u.metadata",
    (WriteKind.UPDATE, False): "data = t.data || u.data",
}


class _RollbackError(Exception):
    """Leaves a transaction that is to be rolled back."""


async def write(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    """Apply mutations as if one after another; return one result for each, in order.

    With `atomic` all are applied or none, by a savepoint inside a transaction.
    """
    if not mutations:
        return []
    if len(mutations) == 1:
        return [await single_write(connection, table, kind, mutations[0])]
    plain = None
    if isinstance(mutations, MutationBatch) or all(mutation.if_version is None for mutation in mutations):
        batch = MutationBatch.of(mutations)
        if len(set(batch.ids)) == len(batch):
            plain = batch
    if not atomic:
        return await _write_valid(connection, table, kind, mutations, is_plain=plain is not None)
    try:
        if plain is None:
            return await _write_locked(connection, table, kind, mutations)
        return await _PLAIN_ATOMIC[kind](connection, table, kind, plain)
    except InvalidRecordError:
        results = reject_invalid(mutations)
        if results is None:
            raise
        return results


async def _write_valid(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, is_plain: bool
) -> list[ItemResult]:
    """Write the items that can be stored and report the others."""
    invalid = {} if kind is WriteKind.DELETE else _find_invalid(mutations)
    valid = [mutation for index, mutation in enumerate(mutations) if index not in invalid]
    batch = MutationBatch.of(valid)
    results: list[ItemResult]
    if not valid:
        results = []
    elif not is_plain:
        async with connection.transaction():
            results = await write_locked(connection, table, kind, valid)
    elif kind is WriteKind.CREATE:
        results = await _create_free(connection, table, batch)
    elif kind is WriteKind.DELETE:
        results = await _delete(connection, table, kind, batch)
    else:
        results = await _write_rows(connection, table, kind, batch)
    return _insert_invalid(invalid, results, len(mutations)) if invalid else results


def _find_invalid(mutations: Sequence[Mutation]) -> dict[int, InvalidRecordError]:
    """Return the errors of the items that cannot be stored, by index."""
    invalid: dict[int, InvalidRecordError] = {}
    for index, mutation in enumerate(mutations):
        try:
            if mutation.raw is None:
                mutation.raw = encode(mutation.data)  # kept, since it is sent later
            mutation.encode_metadata()
        except InvalidRecordError as error:
            error.record_id = mutation.id
            invalid[index] = error
    return invalid


def _insert_invalid(
    invalid: dict[int, InvalidRecordError], results: Sequence[ItemResult], count: int
) -> list[ItemResult]:
    rest = iter(results)
    return [invalid[index] if index in invalid else next(rest) for index in range(count)]


def _savepoint(connection: Connection) -> AbstractAsyncContextManager[Any]:
    """Return a savepoint inside a transaction; outside, a statement is rolled back as a whole anyway."""
    return connection.transaction() if connection.is_in_transaction() else nullcontext()


# --- create --------------------------------------------------------------------------------------


async def _create(
    connection: Connection, table: Table, kind: WriteKind, batch: MutationBatch
) -> list[ItemResult]:
    """Insert all or none; which ids are taken is looked up only after a conflict."""
    if await _insert_all(connection, table, batch, by_copy=len(batch) >= COPY_FROM):
        return list(batch.ids)
    rows = await connection.fetch(
        f"SELECT t.id FROM {table.sql} AS t WHERE t.id = ANY($1::text[])", batch.ids
    )
    taken = {row[0] for row in rows}
    refused = refuse_batch(batch, [already_exists(id) if id in taken else id for id in batch.ids])
    # The conflicting records may have been deleted or rolled back since.
    return refused or await _create(connection, table, kind, batch)


async def _insert_all(connection: Connection, table: Table, batch: MutationBatch, *, by_copy: bool) -> bool:
    """Insert all rows and return True, or none and return False if an id is taken."""
    try:
        async with _savepoint(connection):
            if by_copy:
                await _copy(connection, table, batch)
            else:
                await connection.execute(*_insert_statement(table, batch))
    except Exception as error:
        # The class of the exception depends on the driver; its SQLSTATE does not.
        if not is_unique_violation(error):
            raise
        return False
    return True


async def _create_free(connection: Connection, table: Table, batch: MutationBatch) -> list[ItemResult]:
    """Insert the items whose id is free."""
    if len(batch) >= COPY_FROM and await _insert_all(connection, table, batch, by_copy=True):
        return list(batch.ids)
    results: list[ItemResult] = []
    for start in range(0, len(batch), STAGE_ABOVE):
        part = MutationBatch.of(batch[start : start + STAGE_ABOVE])
        inserted = await _insert_free(connection, table, part)
        results.extend(id if id in inserted else already_exists(id) for id in part.ids)
    return results


def _insert_statement(table: Table, batch: MutationBatch) -> tuple[Any, ...]:
    """Return the statement that inserts rows, and its arguments."""
    has_metadata, columns = _columns(batch)
    return (
        _insert_from(table, _source(table, has_metadata=has_metadata), has_metadata=has_metadata),
        new_version(),
        *columns,
    )


async def _insert_free(connection: Connection, table: Table, batch: MutationBatch) -> set[str]:
    """Insert the rows whose id is free; return their ids."""
    text, *columns = _insert_statement(table, batch)
    rows = await connection.fetch(f"{text} ON CONFLICT (id) DO NOTHING RETURNING t.id", *columns)
    return {row[0] for row in rows}


async def insert_coalesced(
    connection: Connection, table: Table, mutations: Sequence[Mutation]
) -> list[ItemResult]:
    """Apply creates of several callers by one statement; each has its own result, ids may repeat."""
    if len(mutations) == 1:
        return [await single_write(connection, table, WriteKind.CREATE, mutations[0])]
    invalid = _find_invalid(mutations)
    valid = [mutation for index, mutation in enumerate(mutations) if index not in invalid]
    inserted = await _insert_free(connection, table, MutationBatch.of(valid)) if valid else set()
    results: list[ItemResult] = []
    for mutation in valid:
        results.append(mutation.id if mutation.id in inserted else already_exists(mutation.id))
        inserted.discard(mutation.id)  # of several with one id the first was inserted
    return _insert_invalid(invalid, results, len(mutations))


# --- upsert, replace, update -----------------------------------------------------------------------


async def _write_rows(
    connection: Connection, table: Table, kind: WriteKind, batch: MutationBatch
) -> list[ItemResult]:
    """Upsert all, or replace or update those that exist."""
    is_nested = connection.is_in_transaction()
    async with connection.transaction() if len(batch) > STAGE_ABOVE else nullcontext():
        version, found = await _apply_rows(connection, table, kind, batch, drop_stage=is_nested)
    return _row_results(batch, version, found)


async def _update_all(
    connection: Connection, table: Table, kind: WriteKind, batch: MutationBatch
) -> list[ItemResult]:
    """Replace or update all, or none if one is missing."""
    is_nested = connection.is_in_transaction()
    try:
        async with connection.transaction():
            version, found = await _apply_rows(connection, table, kind, batch, drop_stage=is_nested)
            results = _row_results(batch, version, found)
            refused = refuse_batch(batch, results) if found is not None else None
            if refused is not None:
                raise _RollbackError
    except _RollbackError:
        assert refused is not None
        return refused
    return results


def _row_results(batch: MutationBatch, version: str, found: set[str] | None) -> list[ItemResult]:
    if found is None:
        return [version] * len(batch)
    return [version if id in found else not_found(id) for id in batch.ids]


async def _apply_rows(
    connection: Connection, table: Table, kind: WriteKind, batch: MutationBatch, *, drop_stage: bool
) -> tuple[str, set[str] | None]:
    """Write the rows; return their version, and the ids that existed, None if all did.

    Many rows go through a temporary table, in the transaction or savepoint that the caller has begun.
    `drop_stage`: the transaction goes on afterwards, so the temporary table has to be dropped.
    """
    # In the order of their ids, so that two batches never wait for each other in a circle.
    ordered = batch.by_id()
    # One version for all: it only has to tell writes of one record apart, and is not sent with each row.
    version = new_version()
    if len(batch) <= STAGE_ABOVE:
        has_metadata, columns = _columns(ordered)
        text = _write_from(table, kind, _source(table, has_metadata=has_metadata), has_metadata=has_metadata)
        rows = await connection.fetch(f"{text} RETURNING t.id", version, *columns)
        return str(version), None if len(rows) == len(batch) else {row[0] for row in rows}
    has_metadata = await _stage(connection, ordered)
    text = _write_from(table, kind, f"{_STAGE} AS u", has_metadata=has_metadata)
    status = await connection.execute(text, version)
    found = None
    if _row_count(status) < len(batch):  # rare
        rows = await connection.fetch(
            f"SELECT t.id FROM {_STAGE} AS u JOIN {table.sql} AS t USING (id) WHERE t.version = $1", version
        )
        found = {row[0] for row in rows}
    if drop_stage:
        await connection.execute(f"DROP TABLE {_STAGE}")
    return str(version), found


def _source(table: Table, *, has_metadata: bool) -> str:
    return _UNNEST[has_metadata].format(json_array=table.json_array)


def _write_from(table: Table, kind: WriteKind, source: str, *, has_metadata: bool) -> str:
    if kind is WriteKind.UPSERT:
        return (
            f"{_insert_from(table, source, has_metadata=has_metadata)}"
            " ON CONFLICT (id) DO UPDATE SET data = excluded.data, metadata = excluded.metadata,"
            f" version = excluded.version, {table.touch}"
        )
    return (
        f"UPDATE {table.sql} AS t SET {_SET[kind, has_metadata]}, version = $1::int8, {table.touch}"
        f" FROM {source} WHERE t.id = u.id"
    )


def _insert_from(table: Table, source: str, *, has_metadata: bool) -> str:
    return (
        f"INSERT INTO {table.sql} AS t (id, data, metadata, version)"
        f" SELECT u.id, u.data, {_METADATA[has_metadata]}, $1::int8 FROM {source}"
    )


def _row_count(status: str) -> int:
    return int(status.rpartition(" ")[2])


async def _stage(connection: Connection, batch: MutationBatch) -> bool:
    """COPY the rows into a temporary table; return whether they have metadata."""
    # One name for all, so that one prepared statement serves them; DROP and ON COMMIT DROP free it.
    await connection.execute(
        f"CREATE TEMPORARY TABLE {_STAGE_NAME}"
        ' (id text COLLATE "C", data jsonb, metadata jsonb) ON COMMIT DROP'
    )
    columns: list[Iterator[str] | list[str]] = [batch.ids, batch.texts()]
    metadata = batch.metadata_texts()
    if metadata is not None:
        columns.append(metadata)
    await connection.copy_records_to_table(
        _STAGE_NAME,
        schema_name="pg_temp",
        columns=_COLUMNS[: len(columns)],
        records=zip(*columns, strict=True),
    )
    return metadata is not None


# --- delete ----------------------------------------------------------------------------------------


async def _delete(
    connection: Connection, table: Table, kind: WriteKind, batch: MutationBatch
) -> list[ItemResult]:
    """Delete those that exist."""
    text, ids = f"DELETE FROM {table.sql} WHERE id = ANY($1::text[])", batch.ids
    if len(ids) >= COUNT_FROM:
        try:
            async with connection.transaction():
                if _row_count(await connection.execute(text, ids)) < len(ids):
                    raise _RollbackError
        except _RollbackError:
            pass  # once more, to learn which ids existed
        else:
            return [True] * len(ids)
    rows = await connection.fetch(f"{text} RETURNING id", ids)
    deleted = {row[0] for row in rows}
    return [id in deleted for id in ids]


# --- versions and repeated ids ---------------------------------------------------------------------


async def _write_locked(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation]
) -> list[ItemResult]:
    """Apply all mutations one after another, or none if one is refused."""
    try:
        async with connection.transaction():
            results = await write_locked(connection, table, kind, mutations)
            refused = refuse_batch(mutations, results)
            if refused is not None:
                raise _RollbackError
    except _RollbackError:
        assert refused is not None
        return refused
    return results


_PLAIN_ATOMIC = {
    WriteKind.CREATE: _create,
    WriteKind.REPLACE: _update_all,
    WriteKind.UPDATE: _update_all,
    WriteKind.UPSERT: _write_rows,
    WriteKind.DELETE: _delete,
}


# --- encoding --------------------------------------------------------------------------------------


async def _copy(connection: Connection, table: Table, batch: MutationBatch) -> None:
    """COPY the rows, each encoded while the server works on the ones before."""
    metadata: Iterator[str] = batch.metadata_texts() or repeat("{}")
    await connection.copy_records_to_table(
        table.name,
        schema_name=table.schema,
        columns=_COLUMNS,
        # The first two are finite.
        records=zip(batch.ids, batch.texts(), metadata, repeat(new_version()), strict=False),
    )


def _columns(batch: MutationBatch) -> tuple[bool, list[Any]]:
    """Return the arrays for `unnest`, and whether the metadata is one of them."""
    columns = [batch.ids, list(batch.texts())]
    metadata = batch.metadata_texts()
    if metadata is not None:
        columns.append(list(metadata))
    return metadata is not None, columns
