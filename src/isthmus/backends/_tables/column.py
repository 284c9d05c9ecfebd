"""The description of a table and its columns, whatever store it is in."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from isthmus.errors import InvalidRecordError


class Kind(enum.Enum):
    """What a column holds; each kind has one canonical JSON form (meaning §8)."""

    INTEGER = "integer"
    NUMERIC = "numeric"
    FLOAT = "float"
    BOOL = "bool"
    TEXT = "text"
    """Enums too: `TableColumn.labels`."""
    UUID = "uuid"
    DATE = "date"
    TIMESTAMP = "timestamp"
    """Without a zone: text without one, unless `TableColumn.zone` says whose it is."""
    TIMESTAMPTZ = "timestamptz"
    INTERVAL = "interval"
    BYTES = "bytes"
    JSON = "json"
    ARRAY = "array"
    CELL = "cell"
    """Whatever the cell holds: a number, a text or bytes (SQLite)."""
    OTHER = "other"
    """Read as the server's text, never written."""


NUMBERS = frozenset({Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT})
TEXTS = frozenset(
    {
        Kind.TEXT,
        Kind.UUID,
        Kind.DATE,
        Kind.TIMESTAMP,
        Kind.TIMESTAMPTZ,
        Kind.INTERVAL,
        Kind.BYTES,
        Kind.OTHER,
    }
)
"""The kinds whose canonical form is text."""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column. The defaults are those of a plain nullable column."""

    name: str
    kind: Kind
    type: str = ""
    """The store's name of the type, for statements and messages."""
    nullable: bool = True
    has_default: bool = False
    """Whether the store gives a missing value: a default, an identity, a rowid."""
    generated: bool = False
    """Computed by the store, never written: `GENERATED ALWAYS AS (…)`, or an identity that is always so."""
    bits: int = 64
    """The size of an integer, or of a float."""
    unsigned: bool = False
    precision: int | None = None
    """Digits of a numeric; fractional digits of a second of a time."""
    scale: int | None = None
    """Digits after the point of a numeric."""
    max_length: int | None = None
    """Characters of a text."""
    labels: tuple[str, ...] | None = None
    """The texts that an enum admits."""
    padded: bool = False
    """char(n): filled with blanks, which are not part of the value."""
    exact_equality: bool = True
    """Whether the store's own `=` on this column compares texts by code point: no case, no blanks ignored."""
    code_point_order: bool = False
    """Whether the store's own order of this column, and so its plain index, is by code point."""
    element: TableColumn | None = None
    """Of an array, what its elements are."""
    numeric: str = "exact"
    """How a numeric is read: `exact`, `float` or `text`."""
    zone: str | None = None
    """The zone of a timestamp without one."""

    @property
    def path(self) -> str:
        """The column as the path of an error."""
        return f"data.{self.name}"

    def refuse(self, reason: str) -> InvalidRecordError:
        """Return the error of a value that this column cannot hold."""
        declared = f" ({self.type})" if self.type else ""
        return InvalidRecordError(f"{self.path}: the column {self.name!r}{declared} {reason}", path=self.path)


@dataclass(frozen=True, slots=True)
class Table:
    """One table or view, as it was when the collection was opened."""

    name: str
    columns: tuple[TableColumn, ...]
    key: tuple[str, ...]
    """The names of the key columns, in key order."""
    version: str | None = None
    """The column that the setting `version` names; None: the store's own version, or none."""
    read_only: str = ""
    """Why records cannot be written; empty if they can."""
    by_name: dict[str, TableColumn] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {column.name: column for column in self.columns})

    @property
    def key_columns(self) -> tuple[TableColumn, ...]:
        """The key columns, in key order."""
        return tuple(self.by_name[name] for name in self.key)
