"""A table or view with what its statements need: each column as SQL, whatever the dialect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from isthmus._values import JSON
from isthmus.backends._tables.column import Kind, Table, TableColumn
from isthmus.backends.sqlalchemy.native.statement import ValueBinder
from isthmus.errors import ConfigError

Bind: TypeAlias = Callable[[ValueBinder, Any], str]
"""Binds a value as `binding.bind_value` gives it and returns what stands for it."""
VIEW = "it is a view"
"""Why a view is read-only."""
_VERSION_KINDS = (Kind.INTEGER, Kind.TEXT, Kind.UUID)


@dataclass(frozen=True, slots=True)
class ColumnSQL:
    """One column in statements.

    `value` is the canonical value, by which rows are sorted and compared exactly, text as bytes; it is NULL
    where there is none, and None if the store cannot compute it.
    """

    column: TableColumn
    source: str
    """The column itself: what its indexes serve."""
    read: str
    """What is selected."""
    bind: Bind
    """For a comparison with `source`, and for an assignment."""
    value: str | None = None
    bind_canonical: Bind = lambda binder, value: binder.bind(value)
    """For a comparison with `value`."""
    valid: str | None = None
    """The condition that a value that is not NULL has a canonical form; None: each has."""
    decode: Callable[[Any], JSON] | None = None
    """Returns the canonical JSON of what was selected; raises `NoCanonicalFormError`. None: it is that."""
    serves: bool = True
    """Whether `source` compared with a bound is exact, or finds candidates for it if `column.exact_equality`
    is false, so that an index serves it."""
    is_checked: bool = False
    """Whether the store may alter what it is given, so that it has to be read back."""
    max_bytes: int | None = None
    """The bytes that a text or bytes may have."""
    min_bytes: int = 0
    """The bytes below which the store fills bytes up."""
    is_narrow: bool = False
    """Whether a text outside ASCII may be altered or refused: the column has another character set."""

    @property
    def name(self) -> str:
        """The column's name."""
        return self.column.name

    def refuse_unfit(self, value: JSON) -> None:
        """Raise `InvalidRecordError` for a canonical value that the store would cut, fill or renumber."""
        column = self.column
        if value is None:
            return
        if isinstance(value, int | float) and column.unsigned and value < 0:
            raise column.refuse(f"cannot hold {value}: it is out of range")
        if column.kind not in (Kind.TEXT, Kind.BYTES, Kind.JSON) or not isinstance(value, str):
            return
        if column.kind is Kind.BYTES:
            size = len(value) // 4 * 3 - value[-2:].count("=")
        else:
            size = len(value.encode())
        if self.max_bytes is not None and size > self.max_bytes:
            raise column.refuse(f"cannot hold {size} bytes")
        if size < self.min_bytes:
            raise column.refuse(f"fills {size} bytes up to {self.min_bytes}")


@dataclass(frozen=True, slots=True)
class ReflectedTable:
    """A table with what its statements need."""

    table: Table
    sql: str
    """The table's name in statements."""
    columns: tuple[ColumnSQL, ...]
    unique: Mapping[str, tuple[str, ...]]
    """The columns of each unique index but the primary key's, by the index's name."""
    indexes: Mapping[str, tuple[str, ...]]
    """The columns of each index."""
    is_keyed: bool
    """Whether the store keeps the key unique."""
    numbered: str | None = None
    """The column whose missing value is the next number."""
    returns: bool = False
    """Whether an INSERT returns the key that the store made; else only that of `numbered` is known."""
    by_name: dict[str, ColumnSQL] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {column.name: column for column in self.columns})

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.table.name

    @property
    def keys(self) -> tuple[ColumnSQL, ...]:
        """The key columns, in key order."""
        return tuple(self.by_name[name] for name in self.table.key)


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
    if column.kind not in _VERSION_KINDS or column.labels is not None:
        raise ConfigError(
            f"sqlalchemy: the version column {column.name!r} must hold integers, text or UUIDs; it is"
            f" {column.type}"
        )
