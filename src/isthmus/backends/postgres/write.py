"""Batches of changes: the quickest statement for what they ask, and each item's result.

Plain batches (no id twice, no `if_version`) are one statement, or a COPY. What depends on the
rows' versions or on an earlier item of the batch goes by `careful`, which locks first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from isthmus._executor import Change, Kind, Result, not_written, refused
from isthmus._values import encode, new_version
from isthmus.backends.postgres.careful import apply_carefully
from isthmus.backends.postgres.driver import Connection
from isthmus.backends.postgres.failures import sqlstate_of
from isthmus.backends.postgres.table import Table
from isthmus.backends.postgres.write_one import write_one
from isthmus.errors import AlreadyExistsError, InvalidRecordError, IsthmusError, NotFoundError

COPIED = 100
"""From so many creates on, COPY is quicker than `unnest`."""
STAGED = 2_000
"""From so many upserts or updates on, a COPY to a temporary table is quicker than `unnest`."""
_UNIQUE = "23505"
_STAGED_NAME = "isthmus_stage"
_STAGE = f"pg_temp.{_STAGED_NAME}"
_ROW = ("id", "data", "metadata", "version")
_UNNEST = "unnest($1::text[], $2::jsonb[], $3::jsonb[], $4::int8[]) AS u(id, data, metadata, version)"

_SET = {
    Kind.REPLACE: "data = u.data, metadata = u.metadata",
    Kind.UPDATE: "data = t.data || u.data, metadata = t.metadata || u.metadata",
}


async def write(
    connection: Connection, table: Table, kind: Kind, changes: Sequence[Change], *, atomic: bool
) -> list[Result]:
    """Apply changes as if one after another; one result for each, in order."""
    if not changes:
        return []
    if len(changes) == 1:
        return [await write_one(connection, table, kind, changes[0])]
    plain = all(change.if_version is None for change in changes)
    quick = plain and len({change.id for change in changes}) == len(changes)
    if not atomic:
        return await _each(connection, table, kind, changes, quick=quick)
    try:
        if not quick:
            return await _carefully(connection, table, kind, changes)
        return await _QUICK[kind](connection, table, kind, changes)
    except InvalidRecordError:
        results = refused(changes)
        if results is None:
            raise
        return results


async def _each(
    connection: Connection, table: Table, kind: Kind, changes: Sequence[Change], *, quick: bool
) -> list[Result]:
    """Write the good items and report the others."""
    invalid = {} if kind is Kind.DELETE else _invalid(changes)
    good = [change for place, change in enumerate(changes) if place not in invalid] if invalid else changes
    if not good:
        written: list[Result] = []
    elif not quick:
        async with connection.transaction():
            written = await apply_carefully(connection, table, kind, good)
    elif kind is Kind.CREATE:
        written = await _create_each(connection, table, good)
    elif kind is Kind.DELETE or kind is Kind.UPSERT:
        written = await _QUICK[kind](connection, table, kind, good)
    else:
        written = _existing(good, *await _changed(connection, table, kind, good))
    if not invalid:
        return written
    rest = iter(written)
    return [invalid[place] if place in invalid else next(rest) for place in range(len(changes))]


def _invalid(changes: Sequence[Change]) -> dict[int, InvalidRecordError]:
    """Return the items that cannot be stored, by their places."""
    found: dict[int, InvalidRecordError] = {}
    for place, change in enumerate(changes):
        try:
            if change.raw is None:
                change.raw = encode(change.data)  # kept: what is checked now is sent later
            change.encoded_metadata()
        except InvalidRecordError as error:
            error.record_id = change.id
            found[place] = error
    return found


def _undoable(connection: Connection) -> AbstractAsyncContextManager[Any]:
    """Return a savepoint inside of a transaction; outside, one statement is undone as a whole anyway."""
    return connection.transaction() if connection.is_in_transaction() else nullcontext()


def _failed(changes: Sequence[Change], errors: dict[str, IsthmusError]) -> list[Result]:
    return [errors.get(change.id) or not_written(change) for change in changes]


# --- create --------------------------------------------------------------------------------------


async def _create(
    connection: Connection, table: Table, kind: Kind, changes: Sequence[Change]
) -> list[Result]:
    """Insert all or none; who clashes is asked only after a clash."""
    ids: list[Result] = [change.id for change in changes]
    try:
        async with _undoable(connection):
            if len(changes) >= COPIED:
                await _copy(connection, table.name, table.schema, changes)
            else:
                await connection.execute(
                    f"INSERT INTO {table.sql} (id, data, metadata, version)"
                    f" SELECT u.id, u.data, u.metadata, u.version FROM {_UNNEST}",
                    *_columns(changes),
                )
    except Exception as error:
        # The driver's class depends on the driver; the SQLSTATE does not.
        if sqlstate_of(error) != _UNIQUE:
            raise
    else:
        return ids
    taken = await _taken(connection, table, changes)
    if not taken:  # who clashed with us has been deleted or rolled back since
        return await _create(connection, table, kind, changes)
    return _failed(changes, {id: _exists(id) for id in taken})


async def _create_each(connection: Connection, table: Table, changes: Sequence[Change]) -> list[Result]:
    """Insert those whose id is free."""
    if len(changes) >= COPIED:
        try:
            async with _undoable(connection):
                await _copy(connection, table.name, table.schema, changes)
        except Exception as error:
            if sqlstate_of(error) != _UNIQUE:
                raise
        else:
            return [change.id for change in changes]
    results: list[Result] = []
    for start in range(0, len(changes), STAGED):
        part = changes[start : start + STAGED]
        made = await insert_free(connection, table, part)
        results.extend(change.id if change.id in made else _exists(change.id) for change in part)
    return results


async def insert_free(connection: Connection, table: Table, changes: Sequence[Change]) -> set[str]:
    """Insert the rows whose id is free; return their ids."""
    rows = await connection.fetch(
        f"INSERT INTO {table.sql} (id, data, metadata, version)"
        f" SELECT u.id, u.data, u.metadata, u.version FROM {_UNNEST}"
        " ON CONFLICT (id) DO NOTHING RETURNING id",
        *_columns(changes),
    )
    return {row[0] for row in rows}


async def insert_merged(connection: Connection, table: Table, changes: Sequence[Change]) -> list[Result]:
    """Insert single creates that came together; each has its own result."""
    if len(changes) == 1:
        return [await write_one(connection, table, Kind.CREATE, changes[0])]
    invalid = _invalid(changes)
    good = [change for place, change in enumerate(changes) if place not in invalid]
    made = await insert_free(connection, table, good) if good else set()
    results: list[Result] = []
    for place, change in enumerate(changes):
        if place in invalid:
            results.append(invalid[place])
        elif change.id in made:
            made.discard(change.id)  # of two with one id the first was inserted
            results.append(change.id)
        else:
            results.append(_exists(change.id))
    return results


async def _taken(connection: Connection, table: Table, changes: Sequence[Change]) -> set[str]:
    rows = await connection.fetch(
        f"SELECT t.id FROM {table.sql} AS t WHERE t.id = ANY($1::text[])", [change.id for change in changes]
    )
    return {row[0] for row in rows}


def _exists(id: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"a record with id {id!r} exists", record_id=id)


# --- upsert, replace, update -----------------------------------------------------------------------


async def _upsert(
    connection: Connection, table: Table, kind: Kind, changes: Sequence[Change]
) -> list[Result]:
    """Insert or overwrite all."""

    def statement(source: str) -> str:
        return (
            f"INSERT INTO {table.sql} AS t (id, data, metadata, version)"
            f" SELECT u.id, u.data, u.metadata, u.version FROM {source}"
            " ON CONFLICT (id) DO UPDATE SET data = excluded.data, metadata = excluded.metadata,"
            " version = excluded.version, updated_at = now()"
        )

    versions, _ = await _by_rows(connection, table, statement, changes)
    return [str(version) for version in versions]


async def _existing_only(
    connection: Connection, table: Table, kind: Kind, changes: Sequence[Change]
) -> list[Result]:
    """Replace or update all, or none if one is missing."""
    try:
        async with connection.transaction():
            versions, found = await _changed(connection, table, kind, changes)
            if len(found) != len(changes):
                raise _UndoneError
    except _UndoneError:
        return _failed(changes, {c.id: _missing(c.id) for c in changes if c.id not in found})
    return [str(version) for version in versions]


class _UndoneError(Exception):
    """Rolls a transaction back."""


async def _changed(
    connection: Connection, table: Table, kind: Kind, changes: Sequence[Change]
) -> tuple[list[int], set[str]]:
    def statement(source: str) -> str:
        return (
            f"UPDATE {table.sql} AS t SET {_SET[kind]}, version = u.version, updated_at = now()"
            f" FROM {source} WHERE t.id = u.id"
        )

    return await _by_rows(connection, table, statement, changes)


def _existing(changes: Sequence[Change], versions: list[int], found: set[str]) -> list[Result]:
    return [
        str(version) if change.id in found else _missing(change.id)
        for change, version in zip(changes, versions, strict=True)
    ]


def _missing(id: str) -> NotFoundError:
    return NotFoundError(f"no record has the id {id!r}", record_id=id)


async def _by_rows(
    connection: Connection, table: Table, statement: Callable[[str], str], changes: Sequence[Change]
) -> tuple[list[int], set[str]]:
    """Run a statement with the changes as its source; return their versions and the ids it changed."""
    # In the order of their ids, so that two batches never wait for each other in a circle.
    ordered = sorted(changes, key=lambda change: change.id)
    versions = {change.id: new_version() for change in changes}
    if len(changes) <= STAGED:
        rows = await connection.fetch(
            f"{statement(_UNNEST)} RETURNING t.id", *_columns(ordered, [versions[c.id] for c in ordered])
        )
        found = {row[0] for row in rows}
    else:
        async with connection.transaction():
            await _stage(connection, ordered, versions)
            status = await connection.execute(statement(f"{_STAGE} AS u"))
            found = set(versions)
            if int(status.rpartition(" ")[2]) < len(found):  # most often none is missing
                rows = await connection.fetch(
                    f"SELECT t.id FROM {_STAGE} AS u JOIN {table.sql} AS t USING (id)"
                    " WHERE t.version = u.version"
                )
                found = {row[0] for row in rows}
            await connection.execute(f"DROP TABLE {_STAGE}")
    return [versions[change.id] for change in changes], found


async def _stage(connection: Connection, changes: Sequence[Change], versions: dict[str, int]) -> None:
    """COPY the changes into a temporary table."""
    # One name for all, so that one prepared statement serves them; DROP and ON COMMIT DROP free it.
    await connection.execute(
        f"CREATE TEMPORARY TABLE {_STAGED_NAME}"
        ' (id text COLLATE "C", data jsonb, metadata jsonb, version int8) ON COMMIT DROP'
    )
    await connection.copy_records_to_table(
        _STAGED_NAME, schema_name="pg_temp", columns=_ROW, records=_rows(changes, versions)
    )


# --- delete ----------------------------------------------------------------------------------------


async def _delete(
    connection: Connection, table: Table, kind: Kind, changes: Sequence[Change]
) -> list[Result]:
    rows = await connection.fetch(
        f"DELETE FROM {table.sql} WHERE id = ANY($1::text[]) RETURNING id", [change.id for change in changes]
    )
    gone = {row[0] for row in rows}
    return [change.id in gone for change in changes]


# --- by versions or with an id twice ---------------------------------------------------------------


async def _carefully(
    connection: Connection, table: Table, kind: Kind, changes: Sequence[Change]
) -> list[Result]:
    """Apply changes that depend on versions or on each other; all or none."""
    try:
        async with connection.transaction():
            results = await apply_carefully(connection, table, kind, changes)
            if any(isinstance(result, IsthmusError) for result in results):
                raise _UndoneError
    except _UndoneError:
        return [
            result if isinstance(result, IsthmusError) else not_written(change)
            for result, change in zip(results, changes, strict=True)
        ]
    return results


_QUICK = {
    Kind.CREATE: _create,
    Kind.REPLACE: _existing_only,
    Kind.UPDATE: _existing_only,
    Kind.UPSERT: _upsert,
    Kind.DELETE: _delete,
}


# --- encoding --------------------------------------------------------------------------------------


async def _copy(connection: Connection, name: str, schema: str | None, changes: Sequence[Change]) -> None:
    await connection.copy_records_to_table(name, schema_name=schema, columns=_ROW, records=_rows(changes))


def _rows(changes: Sequence[Change], versions: dict[str, int] | None = None) -> Iterator[tuple[Any, ...]]:
    """Yield rows, each encoded as it is sent, while the server works on the ones before."""
    for change in changes:
        raw = change.raw
        yield (
            change.id,
            # bytes are let go of at once: keeping them costs more than encoding.
            (encode(change.data) if raw is None else raw).decode(),
            change.encoded_metadata().decode() if change.metadata or change.raw_metadata else "{}",
            new_version() if versions is None else versions[change.id],
        )


def _columns(changes: Sequence[Change], versions: list[int] | None = None) -> tuple[list[Any], ...]:
    return (
        [change.id for change in changes],
        [change.encoded().decode() for change in changes],
        [change.encoded_metadata().decode() for change in changes],
        [new_version() for _ in changes] if versions is None else versions,
    )
