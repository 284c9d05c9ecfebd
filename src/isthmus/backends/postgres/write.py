"""Batches of changes: the quickest statement for what they ask, and each item's result.

Plain batches (no id twice, no `if_version`) are one statement, or a COPY. What depends on the
rows' versions or on an earlier item of the batch goes by `careful`, which locks first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import repeat
from typing import Any

from isthmus._core.apply import not_written, reject_invalid
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.mutation_batch import MutationBatch
from isthmus._values import encode, new_version
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.failures import sqlstate_of
from isthmus.backends.postgres.locked_write import apply_carefully
from isthmus.backends.postgres.single_write import write_one
from isthmus.backends.postgres.sql.table import Table
from isthmus.errors import AlreadyExistsError, InvalidRecordError, IsthmusError, NotFoundError

COPIED = 100
"""From so many creates on, COPY is quicker than `unnest`."""
STAGED = 2_000
"""From so many upserts or updates on, a COPY to a temporary table is quicker than `unnest`."""
COUNTED = 500
"""From so many deletions on, asking for the ids of the deleted costs more than counting them."""
_UNIQUE = "23505"
_STAGED_NAME = "isthmus_stage"
_STAGE = f"pg_temp.{_STAGED_NAME}"
_ROW = ("id", "data", "metadata", "version")
# Sources of rows called `u`, with and without metadata: most records have none, and what is not
# sent is neither parsed nor merged. $1 is the version.
_UNNEST = {
    True: "unnest($2::text[], $3::jsonb[], $4::jsonb[]) AS u(id, data, metadata)",
    False: "unnest($2::text[], $3::jsonb[]) AS u(id, data)",
}
_METADATA = {True: "u.metadata", False: "'{}'::jsonb"}
_SET = {
    (WriteKind.REPLACE, True): "data = u.data, metadata = u.metadata",
    (WriteKind.REPLACE, False): "data = u.data, metadata = '{}'::jsonb",
    (WriteKind.UPDATE, True): "data = t.data || u.data, metadata = t.metadata || u.metadata",
    (WriteKind.UPDATE, False): "data = t.data || u.data",
}


async def write(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    """Apply changes as if one after another; one result for each, in order."""
    if not mutations:
        return []
    if len(mutations) == 1:
        return [await write_one(connection, table, kind, mutations[0])]
    quick = None
    if isinstance(mutations, MutationBatch) or all(mutation.if_version is None for mutation in mutations):
        columns = MutationBatch.of(mutations)
        if len(set(columns.ids)) == len(columns):
            quick = columns
    if not atomic:
        return await _each(connection, table, kind, mutations, quick=quick is not None)
    try:
        if quick is None:
            return await _carefully(connection, table, kind, mutations)
        return await _QUICK[kind](connection, table, kind, quick)
    except InvalidRecordError:
        results = reject_invalid(mutations)
        if results is None:
            raise
        return results


async def _each(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, quick: bool
) -> list[ItemResult]:
    """Write the good items and report the others."""
    invalid = {} if kind is WriteKind.DELETE else _invalid(mutations)
    good = [mutation for place, mutation in enumerate(mutations) if place not in invalid]
    columns = MutationBatch.of(good)
    if not good:
        written: list[ItemResult] = []
    elif not quick:
        async with connection.transaction():
            written = await apply_carefully(connection, table, kind, good)
    elif kind is WriteKind.CREATE:
        written = await _create_each(connection, table, columns)
    elif kind is WriteKind.DELETE or kind is WriteKind.UPSERT:
        written = await _QUICK[kind](connection, table, kind, columns)
    else:
        written = await _update_each(connection, table, kind, columns)
    if not invalid:
        return written
    rest = iter(written)
    return [invalid[place] if place in invalid else next(rest) for place in range(len(mutations))]


def _invalid(mutations: Sequence[Mutation]) -> dict[int, InvalidRecordError]:
    """Return the items that cannot be stored, by their places."""
    found: dict[int, InvalidRecordError] = {}
    for place, mutation in enumerate(mutations):
        try:
            if mutation.raw is None:
                mutation.raw = encode(mutation.data)  # kept: what is checked now is sent later
            mutation.encoded_metadata()
        except InvalidRecordError as error:
            error.record_id = mutation.id
            found[place] = error
    return found


def _undoable(connection: Connection) -> AbstractAsyncContextManager[Any]:
    """Return a savepoint inside of a transaction; outside, one statement is undone as a whole anyway."""
    return connection.transaction() if connection.is_in_transaction() else nullcontext()


def _failed(mutations: Sequence[Mutation], errors: dict[str, IsthmusError]) -> list[ItemResult]:
    return [errors.get(mutation.id) or not_written(mutation) for mutation in mutations]


# --- create --------------------------------------------------------------------------------------


async def _create(
    connection: Connection, table: Table, kind: WriteKind, mutations: MutationBatch
) -> list[ItemResult]:
    """Insert all or none; who clashes is asked only after a clash."""
    try:
        async with _undoable(connection):
            if len(mutations) >= COPIED:
                await _copy(connection, table, mutations)
            else:
                await connection.execute(*_insertion(table, mutations))
    except Exception as error:
        # The driver's class depends on the driver; the SQLSTATE does not.
        if sqlstate_of(error) != _UNIQUE:
            raise
    else:
        return list(mutations.ids)
    taken = await _taken(connection, table, mutations)
    if not taken:  # who clashed with us has been deleted or rolled back since
        return await _create(connection, table, kind, mutations)
    return _failed(mutations, {id: _exists(id) for id in taken})


async def _create_each(connection: Connection, table: Table, mutations: MutationBatch) -> list[ItemResult]:
    """Insert those whose id is free."""
    if len(mutations) >= COPIED:
        try:
            async with _undoable(connection):
                await _copy(connection, table, mutations)
        except Exception as error:
            if sqlstate_of(error) != _UNIQUE:
                raise
        else:
            return list(mutations.ids)
    results: list[ItemResult] = []
    for start in range(0, len(mutations), STAGED):
        part = MutationBatch.of(mutations[start : start + STAGED])
        made = await insert_free(connection, table, part)
        results.extend(id if id in made else _exists(id) for id in part.ids)
    return results


def _insertion(table: Table, mutations: MutationBatch) -> tuple[Any, ...]:
    """Return the statement that inserts rows, and its arguments."""
    metadata, columns = _columns(mutations)
    return _inserting(table, _UNNEST[metadata], metadata=metadata), new_version(), *columns


async def insert_free(connection: Connection, table: Table, mutations: MutationBatch) -> set[str]:
    """Insert the rows whose id is free; return their ids."""
    text, *columns = _insertion(table, mutations)
    rows = await connection.fetch(f"{text} ON CONFLICT (id) DO NOTHING RETURNING t.id", *columns)
    return {row[0] for row in rows}


async def insert_merged(
    connection: Connection, table: Table, mutations: Sequence[Mutation]
) -> list[ItemResult]:
    """Insert single creates that came together; each has its own result."""
    if len(mutations) == 1:
        return [await write_one(connection, table, WriteKind.CREATE, mutations[0])]
    invalid = _invalid(mutations)
    good = [mutation for place, mutation in enumerate(mutations) if place not in invalid]
    made = await insert_free(connection, table, MutationBatch.of(good)) if good else set()
    results: list[ItemResult] = []
    for place, mutation in enumerate(mutations):
        if place in invalid:
            results.append(invalid[place])
        elif mutation.id in made:
            made.discard(mutation.id)  # of two with one id the first was inserted
            results.append(mutation.id)
        else:
            results.append(_exists(mutation.id))
    return results


async def _taken(connection: Connection, table: Table, mutations: MutationBatch) -> set[str]:
    rows = await connection.fetch(
        f"SELECT t.id FROM {table.sql} AS t WHERE t.id = ANY($1::text[])", mutations.ids
    )
    return {row[0] for row in rows}


def _exists(id: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"a record with id {id!r} exists", record_id=id)


# --- upsert, replace, update -----------------------------------------------------------------------


async def _upsert(
    connection: Connection, table: Table, kind: WriteKind, mutations: MutationBatch
) -> list[ItemResult]:
    """Insert or overwrite all."""
    inside = connection.is_in_transaction()
    async with connection.transaction() if len(mutations) > STAGED else nullcontext():
        version, _ = await _by_rows(connection, table, kind, mutations, tidy=inside)
    return [version] * len(mutations)


async def _existing_only(
    connection: Connection, table: Table, kind: WriteKind, mutations: MutationBatch
) -> list[ItemResult]:
    """Replace or update all, or none if one is missing."""
    inside = connection.is_in_transaction()
    try:
        async with connection.transaction():
            version, found = await _by_rows(connection, table, kind, mutations, tidy=inside)
            if found is not None:
                raise _UndoneError
    except _UndoneError:
        return _failed(mutations, {id: _missing(id) for id in mutations.ids if id not in (found or ())})
    return [version] * len(mutations)


class _UndoneError(Exception):
    """Rolls a transaction back."""


async def _update_each(
    connection: Connection, table: Table, kind: WriteKind, mutations: MutationBatch
) -> list[ItemResult]:
    """Replace or update those that are there."""
    inside = connection.is_in_transaction()
    async with connection.transaction() if len(mutations) > STAGED else nullcontext():
        version, found = await _by_rows(connection, table, kind, mutations, tidy=inside)
    return [version if found is None or id in found else _missing(id) for id in mutations.ids]


def _missing(id: str) -> NotFoundError:
    return NotFoundError(f"no record has the id {id!r}", record_id=id)


async def _by_rows(
    connection: Connection, table: Table, kind: WriteKind, mutations: MutationBatch, *, tidy: bool
) -> tuple[str, set[str] | None]:
    """Write the changes; return their version, and the ids that were there, None if all were.

    Many go by a temporary table, in the transaction or savepoint that the caller has begun. `tidy`:
    that one does not end with this, so that the table has to be dropped.
    """
    # In the order of their ids, so that two batches never wait for each other in a circle.
    ordered = mutations.by_id()
    # One for all: a version tells writes of one record apart, and nobody has to send it with each row.
    version = new_version()
    if len(mutations) <= STAGED:
        metadata, columns = _columns(ordered)
        text = _write_rows(table, kind, _UNNEST[metadata], metadata=metadata)
        rows = await connection.fetch(f"{text} RETURNING t.id", version, *columns)
        return str(version), None if len(rows) == len(mutations) else {row[0] for row in rows}
    metadata = await _stage(connection, ordered)
    text = _write_rows(table, kind, f"{_STAGE} AS u", metadata=metadata)
    status = await connection.execute(text, version)
    found = None
    if int(status.rpartition(" ")[2]) < len(mutations):  # most often none is missing
        rows = await connection.fetch(
            f"SELECT t.id FROM {_STAGE} AS u JOIN {table.sql} AS t USING (id) WHERE t.version = $1", version
        )
        found = {row[0] for row in rows}
    if tidy:
        await connection.execute(f"DROP TABLE {_STAGE}")
    return str(version), found


def _write_rows(table: Table, kind: WriteKind, source: str, *, metadata: bool) -> str:
    if kind is WriteKind.UPSERT:
        return (
            f"{_inserting(table, source, metadata=metadata)}"
            " ON CONFLICT (id) DO UPDATE SET data = excluded.data, metadata = excluded.metadata,"
            " version = excluded.version, updated_at = now()"
        )
    return (
        f"UPDATE {table.sql} AS t SET {_SET[kind, metadata]}, version = $1::int8, updated_at = now()"
        f" FROM {source} WHERE t.id = u.id"
    )


def _inserting(table: Table, source: str, *, metadata: bool) -> str:
    return (
        f"INSERT INTO {table.sql} AS t (id, data, metadata, version)"
        f" SELECT u.id, u.data, {_METADATA[metadata]}, $1::int8 FROM {source}"
    )


async def _stage(connection: Connection, mutations: MutationBatch) -> bool:
    """COPY the changes into a temporary table; return whether they have metadata."""
    # One name for all, so that one prepared statement serves them; DROP and ON COMMIT DROP free it.
    await connection.execute(
        f"CREATE TEMPORARY TABLE {_STAGED_NAME}"
        ' (id text COLLATE "C", data jsonb, metadata jsonb) ON COMMIT DROP'
    )
    columns: list[Iterator[str] | list[str]] = [mutations.ids, mutations.texts()]
    metadata = mutations.metadata_texts()
    if metadata is not None:
        columns.append(metadata)
    await connection.copy_records_to_table(
        _STAGED_NAME,
        schema_name="pg_temp",
        columns=_ROW[: len(columns)],
        records=zip(*columns, strict=True),
    )
    return metadata is not None


# --- delete ----------------------------------------------------------------------------------------


async def _delete(
    connection: Connection, table: Table, kind: WriteKind, mutations: MutationBatch
) -> list[ItemResult]:
    """Delete those that are there."""
    text, ids = f"DELETE FROM {table.sql} WHERE id = ANY($1::text[])", mutations.ids
    if len(ids) >= COUNTED:
        try:
            async with connection.transaction():
                status = await connection.execute(text, ids)
                if int(status.rpartition(" ")[2]) < len(ids):
                    raise _UndoneError
        except _UndoneError:
            pass  # again, asking which
        else:
            return [True] * len(ids)
    rows = await connection.fetch(f"{text} RETURNING id", ids)
    gone = {row[0] for row in rows}
    return [id in gone for id in ids]


# --- by versions or with an id twice ---------------------------------------------------------------


async def _carefully(
    connection: Connection, table: Table, kind: WriteKind, mutations: Sequence[Mutation]
) -> list[ItemResult]:
    """Apply changes that depend on versions or on each other; all or none."""
    try:
        async with connection.transaction():
            results = await apply_carefully(connection, table, kind, mutations)
            if any(isinstance(result, IsthmusError) for result in results):
                raise _UndoneError
    except _UndoneError:
        return [
            result if isinstance(result, IsthmusError) else not_written(mutation)
            for result, mutation in zip(results, mutations, strict=True)
        ]
    return results


_QUICK = {
    WriteKind.CREATE: _create,
    WriteKind.REPLACE: _existing_only,
    WriteKind.UPDATE: _existing_only,
    WriteKind.UPSERT: _upsert,
    WriteKind.DELETE: _delete,
}


# --- encoding --------------------------------------------------------------------------------------


async def _copy(connection: Connection, table: Table, mutations: MutationBatch) -> None:
    """COPY the rows, each encoded while the server works on the ones before."""
    metadata: Iterator[str] = mutations.metadata_texts() or repeat("{}")
    await connection.copy_records_to_table(
        table.name,
        schema_name=table.schema,
        columns=_ROW,
        # The first two have an end.
        records=zip(mutations.ids, mutations.texts(), metadata, repeat(new_version()), strict=False),
    )


def _columns(mutations: MutationBatch) -> tuple[bool, list[Any]]:
    """Return the arrays for `unnest`, and whether the metadata is one of them."""
    columns = [mutations.ids, list(mutations.texts())]
    metadata = mutations.metadata_texts()
    if metadata is not None:
        columns.append(list(metadata))
    return metadata is not None, columns
