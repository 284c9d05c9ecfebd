"""Mutations of records as values of columns, checked against the table (meaning §8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus._core.executor import Mutation, WriteKind
from isthmus._ids import check_id
from isthmus._query.changes import FieldChange, apply_changes
from isthmus._record import Record
from isthmus._values import JSON, decode, encode, same
from isthmus.backends._tables.binding import (
    bind_value,
)
from isthmus.backends._tables.column import Kind, Table, TableColumn
from isthmus.backends._tables.keys import check_key, id_of
from isthmus.errors import InvalidRecordError, UnsupportedError


@dataclass(slots=True)
class Row:
    """A checked mutation.

    `values` are bound values by column, for a create and an upsert with those of the key. `fixed` are
    canonical values of columns that the store computes or that isthmus does not write: an existing row
    must have them already, a new one afterwards.
    """

    id: str | None
    """The record's id; None if the store makes the key, which has to be read back."""
    key: tuple[JSON, ...] | None
    values: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, JSON] = field(default_factory=dict)
    canonical: dict[str, JSON] = field(default_factory=dict)
    """The canonical JSON of `values`."""


def refuse_read_only(table: Table) -> None:
    """Raise `UnsupportedError` for a table that cannot be written."""
    if table.read_only:
        raise UnsupportedError(f"{table.name!r} is read-only: {table.read_only}", capability="writes")


def prepare_row(table: Table, kind: WriteKind, mutation: Mutation) -> Row:
    """Return a mutation as a row. A delete needs none of this: `keys.key_of` finds its key.

    Raises `InvalidRecordError` for metadata, a name that is no column, a value that a column cannot
    hold, and a key that disagrees with the id.
    """
    data = mutation.decode()
    if mutation.encode_metadata() != b"{}":
        raise InvalidRecordError(
            "metadata: a table of its own columns has no place for metadata", path="metadata"
        )
    for name in data:
        if name not in table.by_name:
            raise InvalidRecordError(f"data.{name}: the table has no column {name!r}", path=f"data.{name}")
    if kind is WriteKind.CREATE and mutation.own_id:
        row = _own_key(table, mutation, data)
    else:
        row = Row(mutation.id, check_key(table, mutation.id, data))
    if row.key is not None:
        data.update(zip(table.key, row.key, strict=True))
    for name, value in data.items():
        column = table.by_name[name]
        if name in table.key and kind not in (WriteKind.CREATE, WriteKind.UPSERT):
            continue
        if column.generated or (column.kind is Kind.OTHER and kind is not WriteKind.CREATE):
            row.fixed[name] = value
            continue
        row.values[name] = bind_value(column, value)
        row.canonical[name] = value
    return row


def values_after(table: Table, record: Record, changes: Sequence[FieldChange]) -> dict[str, JSON]:
    """Return the canonical values that changes give a record in place of others.

    Raises `InvalidRecordError` for a name that is no column, and for one that no change may alter.
    """
    after = decode(encode(apply_changes(record.data, tuple(changes))))
    values: dict[str, JSON] = {}
    for name in {**record.data, **after}:
        if same(after.get(name), record.data.get(name)):
            continue
        column = table.by_name.get(name)
        if column is None:
            raise InvalidRecordError(f"data.{name}: the table has no column {name!r}", path=f"data.{name}")
        if name in table.key:
            raise column.refuse("is part of the key, which no change may alter")
        if column.generated or name == table.version:
            raise column.refuse("is written by the table or with each write, and by no change")
        values[name] = after.get(name)
    return values


def _own_key(table: Table, mutation: Mutation, data: dict[str, JSON]) -> Row:
    """Return the row of a create without an id: its key is in the data, or the store's, or ours."""
    missing = [column for column in table.key_columns if data.get(column.name) is None]
    if not missing:
        key = tuple(data[name] for name in table.key)
        return Row(check_id(id_of(key)), key)
    if all(column.has_default or column.generated for column in missing):
        for column in missing:
            data.pop(column.name, None)
        return Row(None, None)
    if len(table.key) == 1 and _takes_own_id(missing[0]):
        return Row(mutation.id, (mutation.id,))
    column = next(column for column in missing if not column.has_default)
    raise InvalidRecordError(
        f"data.{column.name}: the key column {column.name!r} has no default: a record needs a value",
        path=f"data.{column.name}",
    )


def _takes_own_id(column: TableColumn) -> bool:
    """Return whether a key column can hold the ids that isthmus makes, which are UUIDs."""
    if column.kind is Kind.UUID:
        return True
    long_enough = column.max_length is None or column.max_length >= 36
    return column.kind in (Kind.TEXT, Kind.CELL) and column.labels is None and long_enough
