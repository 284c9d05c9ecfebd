"""Writes of rows, inside a transaction that the caller has opened.

The writer's lock is held, so that nobody comes between the look-up of a row and its change. Each item
is a savepoint of its own: triggers and foreign keys of others may have effects beyond its row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from isthmus._core.apply import already_exists, not_found, not_written, refusal, refuse_batch
from isthmus._core.executor import ItemResult, Mutation, WriteKind
from isthmus._ids import new_version
from isthmus._record import Record
from isthmus._values import JSON, same
from isthmus.backends._tables.keys import key_of
from isthmus.backends._tables.writes import Row, prepare_row
from isthmus.backends.sqlite.native.columns import Affinity, bind_cell
from isthmus.backends.sqlite.native.constraints import refusal_of
from isthmus.backends.sqlite.native.keys import key_condition
from isthmus.backends.sqlite.native.read import read_by_ids
from isthmus.backends.sqlite.native.table import SQLiteTable, id_of_cells
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import Binder, Statement, quote_name
from isthmus.backends.sqlite.write import NothingWrittenError
from isthmus.errors import InvalidRecordError, RecordError

M = TypeVar("M", bound=Mutation)
NO_VERSION = ""
"""What a write returns in place of the new version where the table has none."""


def write(
    session: SQLiteSession,
    table: SQLiteTable,
    kind: WriteKind,
    mutations: Sequence[Mutation],
    *,
    atomic: bool,
) -> list[ItemResult]:
    """Apply mutations one after another and return one result for each.

    Raises `NothingWrittenError` if an item of an atomic batch failed, or a trigger undid all of them.
    """

    def apply(mutation: Mutation) -> ItemResult:
        return _write_one(session, table, kind, mutation)

    return apply_each(session, mutations, apply, atomic=atomic)


def apply_each(
    session: SQLiteSession,
    mutations: Sequence[M],
    apply: Callable[[M], ItemResult],
    *,
    atomic: bool,
) -> list[ItemResult]:
    """Apply items one after another, each undone if it is refused; see `write`."""
    results: list[ItemResult] = []
    for mutation in mutations:
        session.check()
        results.append(_in_savepoint(session, mutation, apply))
        if not session.connection.in_transaction:  # RAISE(ROLLBACK) of a trigger
            raise NothingWrittenError(
                [
                    results[-1] if index == len(results) - 1 else not_written(item)
                    for index, item in enumerate(mutations)
                ]
            )
    refused = refuse_batch(mutations, results) if atomic else None
    if refused is not None:
        raise NothingWrittenError(refused)
    return results


def _in_savepoint(session: SQLiteSession, item: M, apply: Callable[[M], ItemResult]) -> ItemResult:
    session.execute("SAVEPOINT isthmus_item")
    result: ItemResult = False
    try:
        result = apply(item)
    except RecordError as error:
        if error.record_id is None and not item.own_id:
            error.record_id = item.id
        result = error
    if session.connection.in_transaction:
        if isinstance(result, RecordError):
            session.execute("ROLLBACK TO isthmus_item")
        session.execute("RELEASE isthmus_item")
    return result


def _write_one(session: SQLiteSession, table: SQLiteTable, kind: WriteKind, mutation: Mutation) -> ItemResult:
    if kind is WriteKind.DELETE:
        return _delete(session, table, mutation)
    if kind in (WriteKind.REPLACE, WriteKind.UPDATE) and key_of(table, mutation.id) is None:
        mutation.encode()
        return not_found(mutation.id)
    row = prepare_row(table, kind, mutation)
    cells = {name: bind_cell(_column(table, name), value) for name, value in row.canonical.items()}
    if kind is WriteKind.CREATE:
        return _insert(session, table, row.id or "", row, cells)
    old = read_by_ids(session, table, [mutation.id]).get(mutation.id)
    error = refusal(kind, mutation, None if old is None else old.version or NO_VERSION)
    if error is not None:
        return error
    if old is None:
        for name, value in zip(table.key, row.key or (), strict=True):
            cells[name] = bind_cell(_column(table, name), value)
        _insert(session, table, mutation.id, row, cells)
        return _version(session, table, mutation.id)
    if kind is not WriteKind.UPDATE:
        cells = {name: cells.get(name) for name in _writable(table)}
    return update_row(session, table, old, cells, row.fixed)


def _column(table: SQLiteTable, name: str) -> Any:
    return table.by_name[name]


def _writable(table: SQLiteTable) -> list[str]:
    """Return the columns that a replace sets: all but the key, the version and generated ones."""
    return [
        column.name
        for column in table.columns
        if column.name not in table.key and column.name != table.version and not column.generated
    ]


def _delete(session: SQLiteSession, table: SQLiteTable, mutation: Mutation) -> ItemResult:
    binder = Binder()
    condition = key_condition(table, mutation.id, binder)
    if condition is None:
        return refusal(WriteKind.DELETE, mutation, None) or False
    if mutation.if_version is not None:
        old = read_by_ids(session, table, [mutation.id]).get(mutation.id)
        error = refusal(WriteKind.DELETE, mutation, None if old is None else old.version or NO_VERSION)
        if error is not None:
            return error
    text = f"DELETE FROM {table.source} WHERE {condition}"
    return bool(_run(session, table, mutation.id, binder.statement(text), {}))


def _insert(session: SQLiteSession, table: SQLiteTable, id: str, row: Row, cells: dict[str, Any]) -> str:
    """Insert a row; columns that are absent have their defaults. Returns the id."""
    if table.may_repeat and id and read_by_ids(session, table, [id]):  # 7 is there, and this is '7'
        raise already_exists(id)
    if table.version is not None and cells.get(table.version) is None:
        column = table.by_name[table.version]
        if not column.has_default:
            cells[table.version] = _first_version(table)
    names = ", ".join(map(quote_name, cells))
    values = f"({names}) VALUES ({', '.join(f'?{n + 1}' for n in range(len(cells)))})" if cells else ""
    keys = ", ".join(quote_name(name) for name in table.key)
    # OR ABORT: the constraint's own ON CONFLICT clause might replace or ignore.
    text = f"INSERT OR ABORT INTO {quote_name(table.name)} {values or 'DEFAULT VALUES'} RETURNING {keys}"
    try:
        inserted = session.execute(text, tuple(cells.values())).fetchall()
    except sqlite3.IntegrityError as error:
        raise refusal_of(session, table, error, id, cells) from error
    if not inserted:
        raise _ignore_error(table, id)
    if row.key is None:
        id = id_of_cells(table.keys, inserted[0])
    _check_fixed(session, table, id, row.fixed)
    return id


def update_row(
    session: SQLiteSession,
    table: SQLiteTable,
    old: Record,
    cells: dict[str, Any],
    fixed: Mapping[str, JSON],
) -> str:
    """Set cells of the row of a record and return its new version.

    `fixed` are values of columns that isthmus does not write: the row must have them.
    """
    assert old.id is not None
    cells = dict(cells)
    if table.version is not None and table.version in cells:
        fixed = {**fixed, table.version: cells.pop(table.version)}
    given = fixed.get(table.version or "")
    if given is not None and not same(given, old.data.get(table.version or "")):
        raise InvalidRecordError(
            f"data.{table.version}: the version column may be given only the value it has",
            path=f"data.{table.version}",
        )
    binder = Binder()
    # A text that is the record's own may be that of bytes, which stay bytes.
    kept = {
        name for name, value in cells.items() if isinstance(value, str) and old._queried.get(name) == value
    }
    sets = [
        f"{quote_name(name)} = {'t.' + quote_name(name) if name in kept else binder.value(value)}"
        for name, value in cells.items()
    ]
    if table.version is not None:
        sets.append(f"{quote_name(table.version)} = {_next_version(table, binder)}")
    if sets:
        condition = key_condition(table, old.id, binder)
        text = f"UPDATE OR ABORT {table.source} SET {', '.join(sets)} WHERE {condition}"
        if not _run(session, table, old.id, binder.statement(text), cells):
            raise _ignore_error(table, old.id)
    _check_fixed(session, table, old.id, {k: v for k, v in fixed.items() if k != table.version})
    return _version(session, table, old.id)


def _run(
    session: SQLiteSession, table: SQLiteTable, id: str, statement: Statement, cells: dict[str, Any]
) -> int:
    try:
        return session.run(statement)
    except sqlite3.IntegrityError as error:
        raise refusal_of(session, table, error, id, cells) from error


def _ignore_error(table: SQLiteTable, id: str) -> InvalidRecordError:
    return InvalidRecordError(
        f"{table.name!r} refuses the record: a trigger ignored the statement", path="data", record_id=id
    )


def _first_version(table: SQLiteTable) -> Any:
    return 1 if _counts(table) else str(new_version())


def _next_version(table: SQLiteTable, binder: Binder) -> str:
    assert table.version is not None
    name = f"t.{quote_name(table.version)}"
    return f"coalesce({name}, 0) + 1" if _counts(table) else binder.value(str(new_version()))


def _counts(table: SQLiteTable) -> bool:
    column = table.column(table.version or "")
    return column is not None and column.affinity is Affinity.INTEGER


def _version(session: SQLiteSession, table: SQLiteTable, id: str) -> str:
    """Return the version of a row that was just written, as triggers have left it."""
    if table.version is None:
        return NO_VERSION
    record = read_by_ids(session, table, [id]).get(id)
    return (record and record.version) or NO_VERSION


def _check_fixed(session: SQLiteSession, table: SQLiteTable, id: str, fixed: Mapping[str, JSON]) -> None:
    """Raise `InvalidRecordError` unless the row has the values that were given for columns of the store's."""
    if not fixed:
        return
    record = read_by_ids(session, table, [id]).get(id)
    data = {} if record is None else record.data
    for name, value in fixed.items():
        if not same(value, data.get(name)):
            raise InvalidRecordError(
                f"data.{name}: the table itself gives the column {name!r} {data.get(name)!r}, not {value!r}",
                path=f"data.{name}",
                record_id=id,
            )
