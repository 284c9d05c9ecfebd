"""What a table's description must have, whatever catalog it is read from."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus.backends._tables.column import Kind, Table, TableColumn
from isthmus.errors import ConfigError

VERSION_KINDS = (Kind.INTEGER, Kind.TEXT, Kind.UUID)


def choose_key(
    name: str, primary: Sequence[str], given: Sequence[str], columns: Sequence[TableColumn]
) -> tuple[str, ...]:
    """Return the key columns: the primary key's, or those that the setting `key` names.

    Raises `ConfigError` if there are none, or a name that is no column.
    """
    if not given:
        if primary:
            return tuple(primary)
        raise ConfigError(
            f"sqlalchemy: {name!r} has no primary key; name the columns that tell its rows apart:"
            " key=['a', 'b'] (it can then be read, not written)"
        )
    names = {column.name for column in columns}
    for column in given:
        if column not in names:
            raise ConfigError(f"sqlalchemy: {name!r} has no column {column!r}, which `key` names")
    if primary and set(given) != set(primary):
        raise ConfigError(f"sqlalchemy: the primary key of {name!r} is {', '.join(primary)}; leave `key` out")
    return tuple(primary) or tuple(given)


def check_version(table: Table) -> None:
    """Raise `ConfigError` for a version column that is missing, or that a write cannot change."""
    if table.version is None:
        return
    column = table.by_name.get(table.version)
    if column is None:
        raise ConfigError(
            f"sqlalchemy: {table.name!r} has no column {table.version!r}, which `version` names"
        )
    if column.generated or column.name in table.key:
        raise ConfigError(
            f"sqlalchemy: the version column {column.name!r} must be neither generated nor the key"
        )
    if column.kind not in VERSION_KINDS or column.labels is not None:
        raise ConfigError(
            f"sqlalchemy: the version column {column.name!r} must hold integers, text or UUIDs; it is"
            f" {column.type}"
        )
