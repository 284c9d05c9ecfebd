"""Columns of SQLite: their affinity, the cells that they hold, and which values they hold exactly."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Any

from isthmus._values import INT_MAX, INT_MIN, JSON
from isthmus.backends._tables.binding import (
    parse_bytes,
)
from isthmus.backends._tables.column import Kind, TableColumn
from isthmus.backends._tables.values import (
    NoCanonicalFormError,
    read_value,
)
from isthmus.backends.sqlite.statement import quote_name


class Affinity(enum.Enum):
    """What SQLite makes of a value that is stored in a column, by the column's declared type."""

    TEXT = "text"
    """Numbers become text."""
    INTEGER = "integer"
    """Texts that are numbers become numbers, and integral reals integers; `NUMERIC` too."""
    REAL = "real"
    """Numbers, and texts that are numbers, become reals."""
    NONE = "none"
    """Nothing is changed: declared BLOB, ANY of a strict table, or without a type."""


# What SQLite's sqlite3AtoF takes for a number.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t\n\v\f\r]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class SQLiteColumn(TableColumn):
    """One column of a table or view."""

    affinity: Affinity = Affinity.NONE
    strict: bool = False
    """Whether the table refuses cells that are not of the declared type."""
    stored: bool = True
    """Whether the column is a table's own, so that its affinity applies to every cell."""
    boolean: bool = False
    """Declared BOOLEAN: 0 and 1 are booleans."""
    bytes_only: bool = False
    """Declared BLOB: a text that is written is base64, of bytes."""
    rowid: bool = False
    """INTEGER PRIMARY KEY: the table's rowid, an integer."""
    collation: str = "BINARY"
    """The collation of the index that serves comparisons of texts, or BINARY."""

    @property
    def sql(self) -> str:
        """The column in a statement; with its table, since SQLite takes an unknown name alone for a text."""
        return "t." + quote_name(self.name)

    @property
    def holds_bytes(self) -> bool:
        """Whether there may be blobs in it."""
        return not self.rowid and not (self.strict and self.affinity is not Affinity.NONE)


def affinity_of(declared: str, *, strict: bool) -> Affinity:
    """Return the affinity of a declared type, by SQLite's own rules."""
    name = declared.upper()
    if strict and name == "ANY":
        return Affinity.NONE
    if "INT" in name:
        return Affinity.INTEGER
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return Affinity.TEXT
    if not name or "BLOB" in name:
        return Affinity.NONE
    if any(part in name for part in ("REAL", "FLOA", "DOUB")):
        return Affinity.REAL
    return Affinity.INTEGER


def kind_of_column(declared: str, affinity: Affinity, *, rowid: bool) -> Kind:
    """Return the kind of the values that may be written, and of the key that an id names."""
    if rowid:
        return Kind.INTEGER
    if declared.upper() == "BOOLEAN":
        return Kind.BOOL
    return Kind.TEXT if affinity is Affinity.TEXT else Kind.CELL


def read_cell(column: SQLiteColumn, cell: Any) -> JSON:
    """Return the canonical JSON of a cell; raises `NoCanonicalFormError`."""
    if column.boolean and type(cell) is int and cell in (0, 1):
        return bool(cell)
    if isinstance(cell, InvalidText):
        raise NoCanonicalFormError("a text that is not UTF-8")
    return read_value(_CELL, cell)


_CELL = TableColumn("", Kind.CELL)


class InvalidText(bytes):
    """A cell that is a text by its type and no text by its bytes."""


def read_text(value: bytes) -> str | InvalidText:
    """Return a text cell; a connection's `text_factory` where a text that is not UTF-8 was met."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return InvalidText(value)


def bind_cell(column: SQLiteColumn, value: JSON) -> Any:
    """Return what is bound for a canonical value, so that the cell reads as the same value.

    Raises `InvalidRecordError` for a value that the column would turn into another one or refuse.
    """
    if value is None:
        return None
    if isinstance(value, list | dict):
        raise column.refuse("holds numbers and text, neither lists nor objects")
    if column.boolean:
        if not isinstance(value, bool):
            raise column.refuse(f"holds true and false, not {value!r:.60}")
        return int(value)
    if isinstance(value, bool):
        raise column.refuse("is not declared BOOLEAN: it would hold 1 or 0, which read as numbers")
    return _bind_text(column, value) if isinstance(value, str) else _bind_number(column, value)


def _bind_text(column: SQLiteColumn, value: str) -> Any:
    if column.bytes_only:
        found = parse_bytes(value)
        if found is None:
            raise column.refuse(f"holds bytes as base64 text, not {value!r:.60}")
        return found
    if column.affinity in (Affinity.INTEGER, Affinity.REAL):
        if column.strict or column.rowid:
            raise column.refuse(f"holds numbers, not {value!r:.60}")
        if _NUMBER.fullmatch(value):
            raise column.refuse(f"would turn the text {value!r:.60} into a number")
    return value


def _bind_number(column: SQLiteColumn, value: int | float) -> int | float:
    match column.affinity:
        case Affinity.TEXT:
            raise column.refuse(f"holds text, not {value!r}")
        case Affinity.REAL:
            if float(value) != value:
                raise column.refuse(f"cannot hold {value} exactly")
            return float(value)
        case Affinity.INTEGER if value == int(value) and INT_MIN <= value <= INT_MAX:
            return int(value)
        case Affinity.INTEGER if column.strict or column.rowid:
            raise column.refuse(f"holds integers, not {value!r}")
        case Affinity.NONE if column.strict and column.bytes_only:
            raise column.refuse(f"holds bytes as base64 text, not {value!r}")
    return value
