"""The five kinds of writes, as if item after item; run inside a transaction on the lane's thread."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat

import orjson

from isthmus._core.apply import not_written, reject_invalid
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.mutation_batch import MutationBatch
from isthmus._ids import new_version
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.session import Session
from isthmus.backends.sqlite.statement import quoted
from isthmus.errors import AlreadyExistsError, ConflictError, InvalidRecordError, IsthmusError, NotFoundError

# How often a long batch looks whether its caller is still there.
_CHECK_EVERY = 1_000


class NothingWrittenError(Exception):
    """An atomic batch failed: the transaction is undone, and these are its results."""

    def __init__(self, results: list[ItemResult]) -> None:
        super().__init__("an item of an atomic batch failed")
        self.results = results


def write(
    session: Session, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    """Return one result for each change; raises `NothingWrittenError` if an atomic batch failed."""
    whole = _WHOLE.get(kind) if atomic and len(mutations) > 1 else None
    if whole and (
        isinstance(mutations, MutationBatch) or all(mutation.if_version is None for mutation in mutations)
    ):
        return whole(session, table, MutationBatch.of(mutations))
    one = _ONE[kind]
    statements = _Statements(session, table)
    results: list[ItemResult] = []
    failed = False
    for number, mutation in enumerate(mutations):
        if number % _CHECK_EVERY == 0:
            session.check()
        try:
            results.append(one(statements, mutation))
        except InvalidRecordError as error:
            error.record_id = mutation.id
            results.append(error)
            failed = True
            if atomic:
                raise NothingWrittenError(reject_invalid(mutations) or results) from None
        except IsthmusError as error:
            results.append(error)
            failed = True
    if failed and atomic:
        raise NothingWrittenError(_blamed(mutations, results))
    return results


def _blamed(mutations: Sequence[Mutation], results: Sequence[ItemResult]) -> list[ItemResult]:
    return [
        result if isinstance(result, IsthmusError) else not_written(mutation)
        for mutation, result in zip(mutations, results, strict=True)
    ]


def _now() -> int:
    return time.time_ns() // 1000


def _rows(
    session: Session, mutations: MutationBatch, versions: Iterable[int]
) -> Iterator[tuple[object, ...]]:
    """Yield rows to insert, each encoded when SQLite asks for it, so that memory stays flat."""
    now = _now()
    metadata: Iterator[str] = mutations.metadata_texts() or repeat("{}")
    # The first three have an end.
    rows = zip(mutations.ids, mutations.texts(), metadata, versions, repeat(now), repeat(now), strict=False)
    for _ in range(0, len(mutations), _CHECK_EVERY):
        session.check()
        yield from islice(rows, _CHECK_EVERY)


def _versions(mutations: MutationBatch) -> range:
    """Return a new version for each change: a token that no other write of a record has."""
    first = new_version()
    return range(first, first + len(mutations))


def _create_all(session: Session, table: Table, mutations: MutationBatch) -> list[ItemResult]:
    text = f"INSERT INTO {quoted(table.name)} VALUES (?, ?, ?, ?, ?, ?)"
    session.execute("SAVEPOINT isthmus_batch")
    try:
        session.run_many(text, _rows(session, mutations, _versions(mutations)))
    except sqlite3.IntegrityError:
        # The rows before the clash must not be taken for the clashing ones.
        session.execute("ROLLBACK TO isthmus_batch")
        raise NothingWrittenError(_clashes(session, table, mutations)) from None
    except InvalidRecordError:
        results = reject_invalid(mutations)
        if results is None:
            raise
        raise NothingWrittenError(results) from None
    session.execute("RELEASE isthmus_batch")
    return list(mutations.ids)


def _clashes(session: Session, table: Table, mutations: MutationBatch) -> list[ItemResult]:
    """Return the results of a batch in which some ids are taken, or occur twice."""
    taken = _present(session, table, mutations)
    results: list[ItemResult] = []
    for mutation in mutations:
        results.append(_exists_already(mutation) if mutation.id in taken else not_written(mutation))
        taken.add(mutation.id)
    return results


def _present(session: Session, table: Table, mutations: MutationBatch) -> set[str]:
    ids = orjson.dumps(mutations.ids).decode()
    found = session.execute(
        f"SELECT id FROM {quoted(table.name)} WHERE id IN (SELECT value FROM json_each(?1))", (ids,)
    )
    return {id for (id,) in found}


def _upsert_all(session: Session, table: Table, mutations: MutationBatch) -> list[ItemResult]:
    versions = _versions(mutations)
    try:
        session.run_many(_upsert_text(table), _rows(session, mutations, versions))
    except InvalidRecordError:
        results = reject_invalid(mutations)
        if results is None:
            raise
        raise NothingWrittenError(results) from None
    return list(map(str, versions))


def _upsert_text(table: Table) -> str:
    return (
        f"INSERT INTO {quoted(table.name)} VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET"
        " data = excluded.data, metadata = excluded.metadata, version = excluded.version,"
        " updated_at = excluded.updated_at"
    )


class _Statements:
    """The statements of single items on one table."""

    def __init__(self, session: Session, table: Table) -> None:
        self._run = session.execute
        self._name = quoted(table.name)
        self._upsert = _upsert_text(table)
        self._now = _now()

    def insert(self, id: str, data: bytes, metadata: bytes, *, replacing: bool) -> int | None:
        """Insert a row and return its version; None if the id is taken and not to be replaced."""
        version = new_version()
        text = (
            self._upsert
            if replacing
            else f"INSERT INTO {self._name} VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        now = self._now
        cursor = self._run(text, (id, data.decode(), metadata.decode(), version, now, now))
        return version if cursor.rowcount else None

    def set(self, id: str, data: bytes, metadata: bytes, expected: str | None) -> int | None:
        """Set a row's data and metadata and return its version; None if no row has the id and version."""
        version = new_version()
        text = f"UPDATE {self._name} SET data = ?, metadata = ?, version = ?, updated_at = ? WHERE id = ?"
        args = (data.decode(), metadata.decode(), version, self._now, id)
        if expected is None:
            cursor = self._run(text, args)
        else:
            cursor = self._run(text + " AND CAST(version AS TEXT) = ?", (*args, expected))
        return version if cursor.rowcount else None

    def delete(self, id: str, expected: str | None) -> bool:
        """Delete a row and return whether there was one of the id and version."""
        text = f"DELETE FROM {self._name} WHERE id = ?"
        if expected is None:
            return bool(self._run(text, (id,)).rowcount)
        return bool(self._run(text + " AND CAST(version AS TEXT) = ?", (id, expected)).rowcount)

    def find(self, id: str) -> tuple[str, str, str] | None:
        """Return a row's data, metadata and version."""
        row = self._run(f"SELECT data, metadata, version FROM {self._name} WHERE id = ?", (id,)).fetchone()
        return None if row is None else (row[0], row[1], str(row[2]))


def _create(statements: _Statements, mutation: Mutation) -> ItemResult:
    version = statements.insert(mutation.id, mutation.encoded(), mutation.encoded_metadata(), replacing=False)
    if version is None:
        raise _exists_already(mutation)
    return mutation.id


def _replace(statements: _Statements, mutation: Mutation) -> ItemResult:
    version = statements.set(
        mutation.id, mutation.encoded(), mutation.encoded_metadata(), mutation.if_version
    )
    if version is None:
        found = statements.find(mutation.id)
        raise _missing(mutation) if found is None else _conflict(mutation)
    return str(version)


def _upsert(statements: _Statements, mutation: Mutation) -> ItemResult:
    data, metadata = mutation.encoded(), mutation.encoded_metadata()
    if mutation.if_version is None:
        version = statements.insert(mutation.id, data, metadata, replacing=True)
    else:
        version = statements.set(mutation.id, data, metadata, mutation.if_version)
    if version is None:
        raise _conflict(mutation)
    return str(version)


def _update(statements: _Statements, mutation: Mutation) -> ItemResult:
    data, metadata = mutation.encoded(), mutation.encoded_metadata()
    found = statements.find(mutation.id)
    if found is None:
        raise _missing(mutation)
    if mutation.if_version is not None and found[2] != mutation.if_version:
        raise _conflict(mutation)
    # The writer's lock is held: nobody comes between the read and the write.
    version = statements.set(mutation.id, _merged(found[0], data), _merged(found[1], metadata), None)
    return str(version)


def _merged(stored: str, given: bytes) -> bytes:
    """Return a stored object with the given top-level keys set; canonical, as both are."""
    if given == b"{}":
        return stored.encode()
    if stored == "{}":
        return given
    return orjson.dumps({**orjson.loads(stored), **orjson.loads(given)})


def _delete(statements: _Statements, mutation: Mutation) -> ItemResult:
    deleted = statements.delete(mutation.id, mutation.if_version)
    if not deleted and mutation.if_version is not None:
        raise _conflict(mutation)
    return deleted


_WHOLE = {WriteKind.CREATE: _create_all, WriteKind.UPSERT: _upsert_all}
_ONE: dict[WriteKind, Callable[[_Statements, Mutation], ItemResult]] = {
    WriteKind.CREATE: _create,
    WriteKind.REPLACE: _replace,
    WriteKind.UPDATE: _update,
    WriteKind.UPSERT: _upsert,
    WriteKind.DELETE: _delete,
}


def _exists_already(mutation: Mutation) -> AlreadyExistsError:
    return AlreadyExistsError(f"a record with id {mutation.id!r} exists", record_id=mutation.id)


def _missing(mutation: Mutation) -> NotFoundError:
    return NotFoundError(f"no record has id {mutation.id!r}", record_id=mutation.id)


def _conflict(mutation: Mutation) -> ConflictError:
    return ConflictError(
        f"record {mutation.id!r} is not at version {mutation.if_version!r}: somebody changed or deleted it",
        record_id=mutation.id,
    )
