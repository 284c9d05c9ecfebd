"""Keys and ids: the values of a table's key columns as a record's id, and back (meaning §8)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import orjson

from isthmus._query.aggregate import as_integer
from isthmus._values import JSON, same
from isthmus.backends._tables.binding import (
    bind_key,
)
from isthmus.backends._tables.column import TEXTS, Kind, Table, TableColumn
from isthmus.errors import ConfigError, InvalidRecordError


def id_of(values: Sequence[JSON]) -> str:
    """Return the id of a key: one column's canonical text, or several as a JSON list."""
    # Equal numbers have one text, whatever type of column they are in.
    plain = [as_integer(value) if isinstance(value, float) else value for value in values]
    if len(plain) == 1 and isinstance(plain[0], str):
        return plain[0]
    return orjson.dumps(plain if len(plain) > 1 else plain[0]).decode()


def key_of(table: Table, id: str) -> tuple[JSON, ...] | None:
    """Return the canonical values of the key columns that an id names.

    None for a text that is not the canonical one of a key, such as `007` for an integer: no row has
    that id.
    """
    columns = table.key_columns
    values: tuple[JSON, ...]
    try:
        if len(columns) > 1:
            values = tuple(orjson.loads(id))
        elif columns[0].kind is Kind.CELL:
            values = (_cell_key(id),)
        else:
            text = columns[0].kind in TEXTS or (
                columns[0].kind is Kind.NUMERIC and columns[0].numeric == "text"
            )
            values = (id,) if text else (orjson.loads(id),)
    except (orjson.JSONDecodeError, TypeError):
        return None
    if len(values) != len(columns) or id_of(values) != id:
        return None
    with contextlib.suppress(InvalidRecordError):
        for column, value in zip(columns, values, strict=True):
            if value is None:
                return None
            bind_key(column, value)
        return values
    return None


def _cell_key(id: str) -> JSON:
    """Return the value of a key that may be a number or a text: the number whose text this is, if any."""
    with contextlib.suppress(orjson.JSONDecodeError):
        number = orjson.loads(id)
        if isinstance(number, int | float) and not isinstance(number, bool) and id_of((number,)) == id:
            return number
    return id


def check_key(table: Table, id: str, data: dict[str, JSON]) -> tuple[JSON, ...]:
    """Return the key of a record that is written under an id.

    Raises `InvalidRecordError` for an id that names no key, or a key column in the data that disagrees.
    """
    key = key_of(table, id)
    if key is None:
        names = ", ".join(table.key)
        raise InvalidRecordError(
            f"id: {id!r} is not the canonical text of a value of the key ({names})", path="id", record_id=id
        )
    for name, value in zip(table.key, key, strict=True):
        if name in data and not same(data[name], value):
            raise InvalidRecordError(
                f"data.{name}: the key column {name!r} and the record's id {id!r} disagree",
                path=f"data.{name}",
                record_id=id,
            )
    return key


def sort_key_of(table: Table, id: str) -> tuple[Any, ...]:
    """Return what an id of a table sorts by: numbers as numbers, else canonical text (meaning §4)."""
    values = key_of(table, id) or (id,)
    return tuple(
        (1, "", value)
        if isinstance(value, int | float) and not isinstance(value, bool)
        else (2, id_of((value,)), 0)
        for value in values
    )


def is_plain_key(column: TableColumn) -> bool:
    """Return whether the store's own text of such a key column is its canonical text."""
    return column.kind in (Kind.INTEGER, Kind.TEXT, Kind.UUID, Kind.BOOL, Kind.DATE)


def choose_key(
    backend: str, table: str, primary: Sequence[str], given: Sequence[str], columns: Sequence[TableColumn]
) -> tuple[str, ...]:
    """Return the key columns: the primary key's, or those that the setting `key` names.

    `table` is its name in messages. Raises `ConfigError` if there are none, for a name that is no column,
    for other columns than those of the primary key, and for a key of JSON or lists.
    """
    key = tuple(primary) or tuple(given)
    if not key:
        raise ConfigError(
            f"{backend}: {table} has no primary key; name the columns that tell its rows apart:"
            " key=['a', 'b'] (it can then be read, not written)"
        )
    by_name = {column.name: column for column in columns}
    for name in given:
        if name not in by_name:
            raise ConfigError(f"{backend}: {table} has no column {name!r}, which `key` names")
    if primary and given and set(given) != set(primary):
        raise ConfigError(f"{backend}: the primary key of {table} is {', '.join(primary)}; leave `key` out")
    for name in key:
        if by_name[name].kind in (Kind.JSON, Kind.ARRAY):
            raise ConfigError(f"{backend}: the key column {name!r} of {table} holds JSON or lists, not an id")
    return key
