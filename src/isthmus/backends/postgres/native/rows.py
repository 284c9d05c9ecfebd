"""Statements that write single rows of a native table, and rows of the same columns together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isthmus._core.executor import ItemResult
from isthmus._values import JSON, same
from isthmus.backends._tables.column import Kind, TableColumn
from isthmus.backends._tables.writes import Row
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.backends.postgres.native.columns import as_text, source, version_of
from isthmus.backends.postgres.native.filter import NativeFilter
from isthmus.backends.postgres.native.record import RowReader
from isthmus.backends.postgres.native.select import select_by_key
from isthmus.backends.postgres.sql.statement import Parameters, quote
from isthmus.errors import InvalidRecordError

# How an insert gives the version column a value; another type is left to the table's trigger.
_FIRST_VERSION = {
    Kind.INTEGER: "1",
    Kind.TIMESTAMPTZ: "clock_timestamp()",
    Kind.TIMESTAMP: "clock_timestamp() AT TIME ZONE 'UTC'",
    Kind.UUID: "gen_random_uuid()",
}
_NEXT_VERSION = {**_FIRST_VERSION, Kind.INTEGER: "COALESCE({0}, 0) + 1"}


async def insert_row(connection: Connection, table: NativeTable, row: Row) -> tuple[str, str | None]:
    """Insert a row and return its id and version."""
    params = Parameters()
    first = _first_version(table, row)
    names = [name for name in row.values if name not in first]
    values = [_assignment(params, table.table.by_name[name], row.values[name]) for name in names]
    names, values = [*names, *first], [*values, *first.values()]
    columns = f"({', '.join(map(quote, names))}) VALUES ({', '.join(values)})" if names else "DEFAULT VALUES"
    rereads = [*row.fixed, *reread(table, row)]
    reader = RowReader(table, rereads, versioned=not table.is_partitioned)
    found = await connection.fetchrow(
        f"INSERT INTO {table.sql} AS t {columns} RETURNING {reader.select}", *params.args
    )
    if found is None:
        raise _trigger_error(table, row.id)
    _check(table, reader.data(found)[0], row, rereads)
    id = reader.id(found)
    if table.is_partitioned:  # the server does not return the version there
        return id, None
    return id, reader.version(found)


async def insert_rows(
    connection: Connection, table: NativeTable, columns: Sequence[str], rows: Sequence[Row]
) -> list[ItemResult]:
    """Insert rows with the same columns by one statement and return their ids."""
    params = Parameters()
    arrays, values = [], []
    for place, name in enumerate(columns):
        column = table.table.by_name[name]
        texts = [None if row.values[name] is None else as_text(row.values[name]) for row in rows]
        arrays.append(str(params.texts(texts)))  # type: ignore[arg-type]
        values.append(f"u.c{place}::{column.type}")
    names = ", ".join(f"c{place}" for place in range(len(columns)))
    # Rows whose version is given as NULL are inserted alone.
    first = _first_version(table, rows[0])
    written, values = [*columns, *first], [*values, *first.values()]
    reader = RowReader(table, ())
    found = await connection.fetch(
        f"INSERT INTO {table.sql} AS t ({', '.join(map(quote, written))}) SELECT {', '.join(values)}"
        f" FROM unnest({', '.join(arrays)}) WITH ORDINALITY AS u({names}, place) ORDER BY u.place"
        f" RETURNING {reader.select}",
        *params.args,
    )
    if len(found) != len(rows):
        raise _trigger_error(table, rows[0].id)
    made: list[ItemResult] = [reader.id(row) for row in found]
    return made


def _first_version(table: NativeTable, row: Row) -> dict[str, str]:
    """Return the version column and its value for an insert that gives it none, where it has no default."""
    column = table.table.by_name.get(table.table.version or "")
    if column is None or column.has_default or row.values.get(column.name) is not None:
        return {}
    return {column.name: _FIRST_VERSION[column.kind]} if column.kind in _FIRST_VERSION else {}


async def update_row(
    connection: Connection, table: NativeTable, row: Row, if_version: str | None, *, whole: bool
) -> str | None:
    """Change the columns of a row, `whole`: all of them, and return its new version; None if no row is it."""
    unchanged: set[str] = set()
    if needs_stored(table, row):
        stored = await _lock(connection, table, row)
        if stored is None:
            return None
        unchanged = {name for name in lossy(table, row) if same(stored.get(name), row.canonical[name])}
    params = Parameters()
    values: dict[str, str] = {}
    for column in table.table.columns:
        if column.name in table.table.key or column.generated:
            continue
        if column.name == table.table.version and column.kind in _NEXT_VERSION:
            values[column.name] = _NEXT_VERSION[column.kind].format(source(column))
        elif column.name in unchanged:
            continue
        elif column.name in row.values:
            values[column.name] = _assignment(params, column, row.values[column.name])
        elif whole and column.name not in row.fixed and column.name != table.table.version:
            values[column.name] = "NULL"
    if not values:  # a new version nevertheless
        written = [column.name for column in table.table.columns if not column.generated]
        if not written:
            return await read_version(connection, table, row)
        values = {name: f"t.{quote(name)}" for name in written[:1]}
    assignments = ", ".join(f"{quote(name)} = {value}" for name, value in values.items())
    where = _this_row(table, params, row, if_version)
    reader = RowReader(table, reread(table, row), versioned=not table.is_partitioned)
    found = await connection.fetchrow(
        f"UPDATE {table.sql} AS t SET {assignments} WHERE {where} RETURNING {reader.select}", *params.args
    )
    if found is None:
        return None
    _check(table, reader.data(found)[0], row, reread(table, row))
    return await read_version(connection, table, row) if table.is_partitioned else reader.version(found)


async def delete_row(connection: Connection, table: NativeTable, row: Row, if_version: str | None) -> bool:
    """Delete a row; return whether there was one at the version."""
    params = Parameters()
    where = _this_row(table, params, row, if_version)
    found = await connection.fetchval(f"DELETE FROM {table.sql} AS t WHERE {where} RETURNING 1", *params.args)
    return found is not None


async def lock_rows(connection: Connection, table: NativeTable, rows: Sequence[Row]) -> None:
    """Lock rows in the order of their keys, so that two batches never wait for each other in a circle."""
    keys = list({row.id: row.key for row in rows if row.key is not None}.values())
    if len(keys) > 1:
        reader = RowReader(table, (), versioned=False)
        text, args = select_by_key(table, reader, keys, for_update=True)
        await connection.execute(text, *args)


async def read_version(connection: Connection, table: NativeTable, row: Row) -> str | None:
    """Return the version of the row that is there; None if there is none."""
    params = Parameters()
    where = _this_row(table, params, row, None)
    version: str | None = await connection.fetchval(
        f"SELECT COALESCE({version_of(table)}, '') FROM {table.sql} AS t WHERE {where}", *params.args
    )
    return version


async def key_is_taken(connection: Connection, table: NativeTable, row: Row) -> bool:
    """Return whether a row has a key that the server's own equality takes for this one."""
    if row.key is None:
        return False
    params = Parameters()
    where = NativeFilter(table, params).by_key([row.key])
    return (
        await connection.fetchval(f"SELECT 1 FROM {table.sql} AS t WHERE {where}", *params.args) is not None
    )


def _this_row(table: NativeTable, params: Parameters, row: Row, if_version: str | None) -> str:
    where = NativeFilter(table, params).has_key(row.key or ())
    if if_version is None:
        return where
    return f"{where} AND {version_of(table)} = {params.text(if_version)}"


def _assignment(params: Parameters, column: TableColumn, value: Any) -> str:
    """Return a value to assign. The type has no length, so that what is too long is refused and not cut."""
    if value is None:
        return "NULL"
    bound = str(params.text(as_text(value)))
    return f"{bound}::{column.type}"


def reread(table: NativeTable, row: Row) -> list[str]:
    """Return the columns whose stored value has to be compared with what was written.

    An interval is stored in the server's own form, and a `name` cut to 63 bytes: whether that is the text
    that was given shows there.
    """
    return [name for name in row.values if _is_rewritten(table.table.by_name[name])]


def _is_rewritten(column: TableColumn) -> bool:
    inner = column.element or column
    return inner.kind is Kind.INTERVAL or inner.type == "name"


def lossy(table: NativeTable, row: Row) -> list[str]:
    """Return the columns that may hold more than their canonical value: those stay if it is the same.

    So a record that was read and changed elsewhere is written back without rounding a number.
    """
    return [name for name in row.values if _holds_more(table.table.by_name[name])]


def _holds_more(column: TableColumn) -> bool:
    return column.kind is Kind.JSON or (column.kind is Kind.NUMERIC and column.numeric != "exact")


def needs_stored(table: NativeTable, row: Row) -> bool:
    """Return whether an update has to look at the stored row first."""
    return bool(row.fixed or lossy(table, row))


async def _lock(connection: Connection, table: NativeTable, row: Row) -> dict[str, JSON] | None:
    """Lock the row, check the columns that cannot be written, and return what is there, or None."""
    params = Parameters()
    reader = RowReader(table, [*row.fixed, *lossy(table, row)])
    found = await connection.fetchrow(
        f"SELECT {reader.select} FROM {table.sql} AS t"
        f" WHERE {_this_row(table, params, row, None)} FOR UPDATE OF t",
        *params.args,
    )
    if found is None:
        return None
    stored = reader.data(found)[0]
    _check(table, stored, row, row.fixed)
    return stored


def _check(table: NativeTable, data: Mapping[str, JSON], row: Row, names: Iterable[str]) -> None:
    """Raise `InvalidRecordError` if a column that the store decides on differs from what was given."""
    for name in names:
        given = row.fixed[name] if name in row.fixed else row.canonical[name]
        if not same(data.get(name), given):
            column = table.table.by_name[name]
            error = column.refuse(f"holds {data.get(name)!r}, and cannot be given the value {given!r}")
            error.record_id = row.id
            raise error


def _trigger_error(table: NativeTable, id: str | None) -> InvalidRecordError:
    return InvalidRecordError(
        f"the table {table.name!r} refuses the record: a trigger or rule of the table dropped it",
        path="data",
        record_id=id,
    )
