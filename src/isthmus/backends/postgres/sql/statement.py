"""A statement: its text and the values bound to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

# The protocol has room for 65,535 placeholders, asyncpg for half of that; arrays take a few more.
_SINGLE = 20_000


class Statement(NamedTuple):
    """SQL with `$1`, `$2` …, and their values in order."""

    text: str
    args: Sequence[Any]


class Value:
    """A value that is bound when its placeholder is first written into a statement.

    The server refuses values that no placeholder stands for, and a leaf may be compiled to less
    than all of its forms.
    """

    __slots__ = ("_bound", "_placeholder", "_type", "_value")

    def __init__(self, bound: Bound, value: Any, type: str) -> None:
        self._bound = bound
        self._value = value
        self._type = type
        self._placeholder: str | None = None

    def __str__(self) -> str:
        if self._placeholder is None:
            self._placeholder = self._bound.place(self._value, self._type)
        return self._placeholder


class Bound:
    """Collects values; formatted into a statement, each becomes its placeholder and its type."""

    __slots__ = ("_packed", "args")

    def __init__(self) -> None:
        self.args: list[Any] = []
        self._packed: dict[str, tuple[int, list[Any]]] = {}

    def place(self, value: Any, type: str) -> str:
        """Bind a value and return its placeholder."""
        if len(self.args) >= _SINGLE and not type.endswith("[]"):
            return self._pack(value, type)
        self.args.append(value)
        # The cast tells the server the parameter's type; no value is ever cast while rows are read.
        return f"${len(self.args)}::{type}"

    def _pack(self, value: Any, type: str) -> str:
        """Bind a value as an element of an array, as the protocol's placeholders run out."""
        if type not in self._packed:
            values: list[Any] = []
            self.args.append(values)
            self._packed[type] = (len(self.args), values)
        place, values = self._packed[type]
        values.append(value)
        return f"(${place}::{type}[])[{len(values)}]"

    def text(self, value: str) -> Value:
        """Bind text."""
        return Value(self, value, "text")

    def texts(self, values: Sequence[str]) -> Value:
        """Bind a list of texts."""
        return Value(self, list(values), "text[]")

    def integer(self, value: int) -> Value:
        """Bind an integer of 32 bits."""
        return Value(self, value, "int4")

    def big(self, value: int) -> Value:
        """Bind an integer of 64 bits."""
        return Value(self, value, "int8")

    def json(self, value: Any) -> Value:
        """Bind a JSON value."""
        return Value(self, orjson.dumps(value).decode(), "jsonb")

    def jsons(self, values: Sequence[Any]) -> Value:
        """Bind a list of JSON values."""
        return Value(self, [orjson.dumps(value).decode() for value in values], "jsonb[]")


def quoted(name: str) -> str:
    """Return a table's, schema's or index's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return text as an SQL constant; right whatever `standard_conforming_strings` says."""
    doubled = text.replace("'", "''")
    if "\\" in doubled:
        return "E'" + doubled.replace("\\", "\\\\") + "'"
    return f"'{doubled}'"


def path_key(key: str) -> str:
    """Return a key as a jsonpath accessor."""
    # jsonpath takes the escapes of JSON; U+007F and the rest may stand as they are.
    return "." + orjson.dumps(key).decode()
