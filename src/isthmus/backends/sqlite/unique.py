"""Unique fields as unique indexes, and what to do when a statement violates one.

The declarations are kept in a table of the file and bind every handle. A trigger refuses values that
a unique field cannot have. A statement that violates either is undone, and its items are then
written one by one, to find out which of them is refused and because of which record.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

import orjson

from isthmus._core.apply import has_repeated_ids, merge_documents, refuse_batch
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._core.unique import MAX_TEXT, Duplicate, Key, Unique, clash, key_in, unique_from_json
from isthmus._path import Path
from isthmus._query.order import BOOL, NUMBER, OBJECT, TEXT
from isthmus._values import decode
from isthmus.backends.sqlite.fields import LIST, UNREACHABLE, JSONField, field_of, json_path
from isthmus.backends.sqlite.schema import CATALOG, DECLARED_FORMAT, UNIQUE_CATALOG, Table
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import quote_name
from isthmus.backends.sqlite.write import NothingWrittenError, write
from isthmus.errors import ConfigError, InvalidRecordError

T = TypeVar("T")

_REFUSED_VALUE = "isthmus: a value that a unique field cannot have"
_SCALARS = f"({BOOL}, {NUMBER}, {TEXT})"


class ViolatedError(Exception):
    """A statement violated a unique field; what the job has written is to be undone."""


def noting_violations(work: Callable[[], T]) -> T:
    """Run statements; raises `ViolatedError` for the driver's error of a violated unique field."""
    try:
        return work()
    except sqlite3.IntegrityError as error:
        if ".unique#" in str(error) or _REFUSED_VALUE in str(error):
            raise ViolatedError from error
        raise


def check_unique(unique: Unique) -> Unique:
    """Return a declaration; raises `ConfigError` for a key that SQLite's own functions cannot reach."""
    for path in unique.paths:
        if json_path(path.keys) is None:
            raise ConfigError(f"sqlite: {str(path)!r} cannot be unique: {UNREACHABLE}")
    return unique


def read_unique(connection: sqlite3.Connection, table: str) -> frozenset[Unique]:
    """Return the declarations that a collection has."""
    known = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1", (UNIQUE_CATALOG,)
    ).fetchone()
    if known is None:
        return frozenset()
    rows = connection.execute(f"SELECT fields FROM {UNIQUE_CATALOG} WHERE collection = ?1", (table,))
    return unique_from_json(orjson.loads(fields) for (fields,) in rows)


def add_unique(connection: sqlite3.Connection, table: str, unique: Unique) -> None:
    """Make fields unique, in the open transaction."""
    check_unique(unique)
    name = _name(table, unique)
    scalar, terms = unique_terms(unique)
    connection.execute(
        f"CREATE UNIQUE INDEX {quote_name(name)} ON {quote_name(table)} ({', '.join(terms)}) WHERE {scalar}"
    )
    invalid = " OR ".join(
        f"{_rank(path)} IN ({LIST}, {OBJECT})"
        f" OR ({_rank(path)} = {TEXT} AND length(CAST({_scalar(path)} AS BLOB)) > {MAX_TEXT})"
        for path in unique.paths
    )
    for event in ("INSERT", "UPDATE OF data"):
        connection.execute(
            f"CREATE TRIGGER {quote_name(f'{name}:{event}')} AFTER {event} ON {quote_name(table)} BEGIN"
            f" SELECT RAISE(ABORT, '{_REFUSED_VALUE}') FROM {quote_name(table)}"
            f" WHERE rowid = NEW.rowid AND ({invalid}); END"
        )
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {UNIQUE_CATALOG} (collection TEXT NOT NULL, fields TEXT NOT NULL)"
    )
    connection.execute(f"INSERT INTO {UNIQUE_CATALOG} VALUES (?1, ?2)", (table, _fields(unique)))
    connection.execute(f"UPDATE {CATALOG} SET format = ?2 WHERE name = ?1", (table, DECLARED_FORMAT))


def unique_terms(unique: Unique) -> tuple[str, list[str]]:
    """Return when a row takes part in a declaration, and the expressions that are unique together."""
    scalar = " AND ".join(f"{_rank(path)} IN {_SCALARS}" for path in unique.paths)
    return scalar, [term for path in unique.paths for term in (_rank(path), _scalar(path))]


def drop_unique(connection: sqlite3.Connection, table: str, unique: Unique) -> None:
    """End a declaration, in the open transaction; a missing one is not an error."""
    name = _name(table, unique)
    connection.execute(f"DROP INDEX IF EXISTS {quote_name(name)}")
    for event in ("INSERT", "UPDATE OF data"):
        connection.execute(f"DROP TRIGGER IF EXISTS {quote_name(f'{name}:{event}')}")
    if unique in read_unique(connection, table):
        connection.execute(
            f"DELETE FROM {UNIQUE_CATALOG} WHERE collection = ?1 AND fields = ?2", (table, _fields(unique))
        )


def find_duplicates(connection: sqlite3.Connection, source: str, unique: Unique) -> list[Duplicate]:
    """Return values that several records have, each with some of their ids; 20 values at most."""
    check_unique(unique)
    scalar, terms = unique_terms(unique)
    keys = ", ".join(terms)
    groups = connection.execute(
        f"SELECT min(id), json_group_array(id) FROM (SELECT * FROM {source} ORDER BY id)"
        f" WHERE {scalar} GROUP BY {keys} HAVING count(*) > 1 ORDER BY min(id) LIMIT 20"
    ).fetchall()
    found: list[Duplicate] = []
    for first, ids in groups:
        row = connection.execute(f"SELECT data FROM {source} WHERE id = ?1", (first,)).fetchone()
        found.append((list(key_in(decode(row[0]), unique) or ()), orjson.loads(ids)[:10]))
    return found


def write_unique(
    session: SQLiteSession, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    """Apply mutations as `write` does; one by one if a record is written twice under unique fields.

    Such a batch stores the last state of the record, and an earlier one may have to be refused.
    """
    if has_repeated_ids(mutations) and read_unique(session.connection, table.name):
        return write_apart(session, table, kind, mutations, atomic=atomic)
    return write(session, table, kind, mutations, atomic=atomic)


def write_apart(
    session: SQLiteSession, table: Table, kind: WriteKind, mutations: Sequence[Mutation], *, atomic: bool
) -> list[ItemResult]:
    """Apply mutations one after another, each alone; return one result for each, in order.

    Raises `NothingWrittenError` if an item of an atomic batch failed.
    """
    declared = sorted(read_unique(session.connection, table.name), key=str)
    results = []
    for mutation in mutations:
        session.check()
        results.append(_write_alone(session, table, kind, mutation, declared))
    refused = refuse_batch(mutations, results) if atomic else None
    if refused is not None:
        raise NothingWrittenError(refused)
    return results


def _write_alone(
    session: SQLiteSession, table: Table, kind: WriteKind, mutation: Mutation, declared: Sequence[Unique]
) -> ItemResult:
    session.execute("SAVEPOINT isthmus_item")
    try:
        [result] = noting_violations(lambda: write(session, table, kind, [mutation], atomic=False))
    except ViolatedError:
        session.execute("ROLLBACK TO isthmus_item")
        return _find_clash(session, table, kind, mutation, declared)
    finally:
        if session.connection.in_transaction:
            session.execute("RELEASE isthmus_item")
    return result


def _find_clash(
    session: SQLiteSession, table: Table, kind: WriteKind, mutation: Mutation, declared: Sequence[Unique]
) -> ItemResult:
    """Return why the record is refused. The writer's lock is held: nothing has changed since."""
    data = decode(mutation.encode())
    if kind is WriteKind.UPDATE:
        text = f"SELECT data FROM {quote_name(table.name)} WHERE id = ?1"
        [(stored,)] = session.execute(text, (mutation.id,)).fetchall()
        data = decode(merge_documents(decode(stored), {}, mutation.encode(), b"{}")[0])
    for unique in declared:
        try:
            key = key_in(data, unique)
        except InvalidRecordError as error:
            error.record_id = mutation.id
            return error
        other = None if key is None else _other_record(session, table, mutation.id, unique, key)
        if other is not None:
            return clash(unique, other)
    raise AssertionError("a unique field was violated, and no record has its value")


def _other_record(session: SQLiteSession, table: Table, id: str, unique: Unique, key: Key) -> str | None:
    terms, args = [], [id]
    for number, (path, value) in enumerate(zip(unique.paths, key, strict=True)):
        rank = BOOL if isinstance(value, bool) else TEXT if isinstance(value, str) else NUMBER
        terms.append(f"{_rank(path)} = {rank} AND {_scalar(path)} = ?{number + 2}")
        args.append(value)  # type: ignore[arg-type]
    text = f"SELECT id FROM {quote_name(table.name)} WHERE id <> ?1 AND {' AND '.join(terms)} LIMIT 1"
    rows = session.execute(text, args).fetchall()
    return rows[0][0] if rows else None


def _field(path: Path) -> JSONField:
    field = field_of(path)
    assert isinstance(field, JSONField)
    return field


def _rank(path: Path) -> str:
    return f"({_field(path).index_type_rank()})"


def _scalar(path: Path) -> str:
    return f"({_field(path).index_scalar()})"


def _fields(unique: Unique) -> str:
    return orjson.dumps(unique.to_json()).decode()


def _name(table: str, unique: Unique) -> str:
    digest = hashlib.blake2b(_fields(unique).encode(), digest_size=6).hexdigest()
    return f"{table}.unique#{digest}"
