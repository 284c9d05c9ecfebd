"""SQL functions over cells, where SQLite's own take what is no text for one, or have no equivalent."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from isthmus._query.find import end_turn
from isthmus._query.order import NUMBER, TEXT
from isthmus.backends._tables.column import Kind
from isthmus.backends._tables.keys import id_of
from isthmus.backends._tables.values import NoCanonicalFormError
from isthmus.backends.sqlite.functions import Functions
from isthmus.backends.sqlite.native.columns import InvalidText, SQLiteColumn, read_cell, read_text

# Cells that one call of `isthmus_cells` takes: SQLite's functions have at most 127 arguments.
_CELLS = 60


class CellFunctions(Functions):
    """The functions of a connection to a file of native tables.

    A text is passed as the bytes that it consists of: what is no UTF-8 would fail the statement.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._kept: list[list[Any]] = []
        for name, arguments, function in (
            ("isthmus_text", 2, self._text),
            ("isthmus_utf8", 1, _is_text),
            ("isthmus_base64", 1, _base64),
            ("isthmus_cells", -1, self._keep),
            ("isthmus_row", -1, self._row),
            ("isthmus_key", -1, _key),
            ("isthmus_key_rank", 1, _key_rank),
            ("isthmus_key_value", 1, _key_value),
        ):
            connection.create_function(name, arguments, function, deterministic=True)

    def _text(self, number: int, value: Any) -> int:
        text = read_text(value) if isinstance(value, bytes) else value
        if not isinstance(text, str) or "\0" in text:
            return 0
        return super()._text(number, text)

    def _keep(self, *arguments: Any) -> int:
        """Keep cells, each given as its type and its value, for the call whose argument this is."""
        self._kept.append(read_cells(arguments))
        return len(self._kept)

    def _row(self, number: int, *_: int) -> int:
        """Evaluate a row by a predicate that has no form in SQL."""
        cells = [cell for part in self._kept for cell in part]
        self._kept.clear()
        try:
            return int(bool(self._tests[number](cells)))
        finally:
            end_turn()


def _is_text(value: Any) -> int:
    """Return 1 for bytes that are a text."""
    try:
        value.decode()
    except (AttributeError, UnicodeDecodeError):
        return 0
    return 0 if 0 in value else 1


def _base64(value: Any) -> str | None:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else None


def read_cells(arguments: Sequence[Any]) -> list[Any]:
    """Return cells from their types and values in turn, texts as they are read from a row."""
    return [
        read_text(value) if kind == "text" else value
        for kind, value in zip(arguments[::2], arguments[1::2], strict=True)
    ]


def cell_arguments(columns: Sequence[SQLiteColumn]) -> str:
    """Return the types and values of cells as arguments of a function."""
    return ", ".join(
        f"typeof({c.sql}), CASE typeof({c.sql}) WHEN 'text' THEN CAST({c.sql} AS BLOB) ELSE {c.sql} END"
        for c in columns
    )


def row_arguments(columns: Sequence[SQLiteColumn]) -> str:
    """Return the arguments of `isthmus_row`, any number of cells in calls of some each."""
    parts = (columns[start : start + _CELLS] for start in range(0, len(columns), _CELLS))
    return ", ".join(f"isthmus_cells({cell_arguments(part)})" for part in parts)


def _key(flags: str, *arguments: Any) -> str | None:
    """Return the id of a key, or the canonical text of a part of it; None if it has none.

    `flags` has a character for each key column.
    """
    values = []
    for flag, cell in zip(flags, read_cells(arguments), strict=True):
        if cell is None or (isinstance(cell, bytes) and not isinstance(cell, InvalidText) and flag != "n"):
            return None
        try:
            value = read_cell(_BOOLEAN if flag == "b" else _PLAIN, cell)
        except NoCanonicalFormError:
            return None
        values.append(value)
    return id_of(values)


_PLAIN, _BOOLEAN = SQLiteColumn("", Kind.CELL), SQLiteColumn("", Kind.BOOL, boolean=True)


def _key_rank(part: Any) -> int | None:
    """Return the type rank of the canonical text of a key's part: a number if it looks like one."""
    return None if part is None else (TEXT if key_number(part) is None else NUMBER)


def _key_value(part: Any) -> Any:
    number = None if part is None else key_number(part)
    return part if number is None else number


def key_number(text: str) -> int | float | None:
    """Return the number whose canonical text this is; None if it is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or id_of((value,)) != text:
        return None
    return value
