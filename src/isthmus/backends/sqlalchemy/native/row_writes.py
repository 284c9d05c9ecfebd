"""Statements that write single rows of a table, and rows of the same columns together."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.executor import ItemResult
from isthmus._ids import new_version
from isthmus._record import Record
from isthmus._values import JSON, same
from isthmus.backends._tables.binding import bind_value
from isthmus.backends._tables.column import Kind
from isthmus.backends._tables.keys import id_of, key_of
from isthmus.backends._tables.writes import Row
from isthmus.backends.sqlalchemy.native.filter import ColumnFilter
from isthmus.backends.sqlalchemy.native.read import read_by_ids
from isthmus.backends.sqlalchemy.native.statement import ValueBinder, execute
from isthmus.backends.sqlalchemy.native.table import ColumnSQL, ReflectedTable
from isthmus.backends.sqlalchemy.statements import chunks
from isthmus.errors import InvalidRecordError
from sqlalchemy import text

NO_VERSION = ""
"""What a write returns in place of the new version where the table has none."""


def check_row(table: ReflectedTable, row: Row) -> None:
    """Raise `InvalidRecordError` for a value that the store would cut, fill or renumber."""
    for name, value in row.canonical.items():
        table.by_name[name].refuse_unfit(value)
    if table.numbered is not None and row.canonical.get(table.numbered) == 0:
        raise table.by_name[table.numbered].column.refuse("cannot hold 0: the store would number the row")


def is_inserted_alone(table: ReflectedTable, row: Row) -> bool:
    """Return whether a row's stored values have to be looked at, or its key."""
    return bool(row.fixed or row.key is None or not row.values or _values_to_check(table, row.canonical))


def _values_to_check(table: ReflectedTable, canonical: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the values that the store may alter, which have to be read back."""
    return {name: value for name, value in canonical.items() if _may_alter(table.by_name[name], value)}


def _may_alter(column: ColumnSQL, value: JSON) -> bool:
    if value is None:
        return False
    return column.is_checked or (column.is_narrow and isinstance(value, str) and not value.isascii())


async def insert_row(connection: AsyncConnection, table: ReflectedTable, row: Row) -> str:
    """Insert a row and return its id; columns that are absent have their defaults."""
    values = _with_first_version(table, row)
    binder = ValueBinder()
    names = ", ".join(table.by_name[name].source for name in values)
    placed = ", ".join(_assign(table, binder, name, value) for name, value in values.items())
    made = [column for column in table.keys if column.name not in values]
    statement = f"INSERT INTO {table.sql} {f'({names}) VALUES ({placed})' if values else _NO_VALUES}"
    if row.key is None and table.returns:
        statement += f" RETURNING {', '.join(column.read for column in table.keys)}"
    elif row.key is None and [column.name for column in made] != [table.numbered]:
        raise made[0].column.refuse("has a default that this server does not return: a record needs a value")
    result = await execute(connection, binder.statement(statement))
    if row.key is not None:
        id = row.id or ""
    elif table.returns:
        stored = result.one()
        id = id_of([_decode(column, value) for column, value in zip(table.keys, stored, strict=True)])
    else:
        id = id_of([row.canonical.get(column.name, result.lastrowid) for column in table.keys])
    await check_stored(connection, table, id, {**row.fixed, **_values_to_check(table, row.canonical)})
    return id


_NO_VALUES = "() VALUES ()"


def _decode(column: ColumnSQL, value: Any) -> JSON:
    return value if column.decode is None else column.decode(value)


async def insert_rows(
    connection: AsyncConnection, table: ReflectedTable, rows: Sequence[Row]
) -> list[ItemResult]:
    """Insert rows with the same columns by one statement for each 500, and return their ids."""
    for part in chunks(rows):
        statement, values = "", []
        for row in part:
            binder = ValueBinder()
            written = _with_first_version(table, row)
            names = sorted(written)
            placed = ", ".join(_assign(table, binder, name, written[name]) for name in names)
            columns = ", ".join(table.by_name[name].source for name in names)
            statement = f"INSERT INTO {table.sql} ({columns}) VALUES ({placed})"
            values.append(binder.values)
        await connection.execute(text(statement), values)
    return [row.id or "" for row in rows]


def _assign(table: ReflectedTable, binder: ValueBinder, name: str, value: Any) -> str:
    """Return a bound value to assign; NULL too, so that rows of the same columns have one statement."""
    return binder.bind(None) if value is None else table.by_name[name].bind(binder, value)


def _with_first_version(table: ReflectedTable, row: Row) -> dict[str, Any]:
    name = table.table.version
    if name is None or row.values.get(name) is not None or table.by_name[name].column.has_default:
        return row.values
    first = {Kind.INTEGER: 1, Kind.UUID: uuid.uuid4()}
    return {**row.values, name: first.get(table.by_name[name].column.kind, str(new_version()))}


def whole_row(table: ReflectedTable, row: Row) -> dict[str, JSON]:
    """Return the canonical values that a replace sets: NULL for those that are absent.

    Raises `InvalidRecordError` for one that does not admit NULL.
    """
    values: dict[str, JSON] = {}
    for column in table.table.columns:
        if column.name in table.table.key or column.generated or column.name in row.fixed:
            continue
        if column.name in row.canonical:
            values[column.name] = row.canonical[column.name]
        elif column.name != table.table.version:
            values[column.name] = None
            if not column.nullable:
                raise column.refuse("does not admit NULL")
    return values


async def update_row(
    connection: AsyncConnection,
    table: ReflectedTable,
    old: Record,
    values: Mapping[str, JSON],
    fixed: Mapping[str, JSON],
) -> str:
    """Set columns of the row of a record to canonical values and return its new version.

    `fixed` are values of columns that isthmus does not write: the row must have them.
    """
    assert old.id is not None
    before, version = old._queried, table.table.version
    given = None if version is None else values.get(version)
    if given is not None and not same(given, before.get(version or "")):
        raise InvalidRecordError(
            f"data.{version}: the version column may be given only the value it has", path=f"data.{version}"
        )
    binder = ValueBinder()
    sets = [
        f"{table.by_name[name].source} = {_assign(table, binder, name, _bound(table, name, value))}"
        for name, value in values.items()
        if name != version and not _is_kept(table.by_name[name], before.get(name), value)
    ]
    if version is not None:
        sets.append(f"{table.by_name[version].source} = {_next_version(table.by_name[version], binder)}")
    if sets:
        where = _these_rows(table, binder, [old.id])
        await execute(connection, binder.statement(f"UPDATE {table.sql} SET {', '.join(sets)} WHERE {where}"))
    await check_stored(connection, table, old.id, {**fixed, **_values_to_check(table, values)})
    if version is None:
        return NO_VERSION
    record = (await read_by_ids(connection, table, [old.id])).get(old.id)
    return (record and record.version) or NO_VERSION


def _bound(table: ReflectedTable, name: str, value: JSON) -> Any:
    return bind_value(table.by_name[name].column, value)


def _is_kept(column: ColumnSQL, before: JSON, value: JSON) -> bool:
    """Return whether a column may hold more than its canonical value, which stays as it is.

    So a record that was read and changed elsewhere is written back without rounding a number.
    """
    kind = column.column.kind
    holds_more = kind is Kind.JSON or (kind is Kind.NUMERIC and column.column.numeric != "exact")
    return holds_more and same(before, value)


async def check_stored(
    connection: AsyncConnection, table: ReflectedTable, id: str, given: Mapping[str, JSON]
) -> None:
    """Raise `InvalidRecordError` unless a row has these values, on which the store decides."""
    if not given:
        return
    record = (await read_by_ids(connection, table, [id])).get(id)
    data = {} if record is None else record._queried
    for name, value in given.items():
        if not same(value, data.get(name)):
            error = table.by_name[name].column.refuse(
                f"holds {data.get(name)!r}, and cannot be given the value {value!r}"
            )
            error.record_id = id
            raise error


def _next_version(column: ColumnSQL, binder: ValueBinder) -> str:
    match column.column.kind:
        case Kind.INTEGER:
            return f"COALESCE({column.source}, 0) + 1"
        case Kind.UUID:
            return column.bind(binder, uuid.uuid4())
    return column.bind(binder, str(new_version()))


async def delete_rows(connection: AsyncConnection, table: ReflectedTable, ids: Sequence[str]) -> None:
    """Delete rows that are locked."""
    binder = ValueBinder()
    where = _these_rows(table, binder, ids)
    await execute(connection, binder.statement(f"DELETE FROM {table.sql} WHERE {where}"))


def _these_rows(table: ReflectedTable, binder: ValueBinder, ids: Sequence[str]) -> str:
    """Return the condition of rows that are locked: no other has a key that the store takes for theirs."""
    keys = [key for id in ids if (key := key_of(table.table, id)) is not None]
    return ColumnFilter(table, binder).by_key(keys)
