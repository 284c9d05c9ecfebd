"""SQL statements: text, parameters and quoting."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

# The protocol allows 65,535 placeholders, asyncpg half of them; a few more are needed for arrays.
_SINGLE = 20_000


class Statement(NamedTuple):
    """SQL with `$1`, `$2` …, and the values of these in order."""

    text: str
    args: Sequence[Any]


class Parameter:
    """A value that is bound when it is first formatted into a statement.

    The server refuses a statement with a value that no placeholder uses, and not every form of a
    leaf that is prepared is used.
    """

    __slots__ = ("_params", "_placeholder", "_type", "_value")

    def __init__(self, params: Parameters, value: Any, type: str) -> None:
        self._params = params
        self._value = value
        self._type = type
        self._placeholder: str | None = None

    def __str__(self) -> str:
        if self._placeholder is None:
            self._placeholder = self._params.bind(self._value, self._type)
        return self._placeholder


class Parameters:
    """Collects the values of a statement; each is formatted as its placeholder and type."""

    __slots__ = ("_json_array", "_packed", "args")

    def __init__(self, json_array: str = "jsonb[]") -> None:
        self._json_array = json_array
        self.args: list[Any] = []
        self._packed: dict[str, tuple[int, list[Any]]] = {}

    def bind(self, value: Any, type: str) -> str:
        """Bind a value and return its placeholder."""
        if len(self.args) >= _SINGLE and not type.endswith("[]"):
            return self._pack(value, type)
        self.args.append(value)
        # The cast tells the server the parameter's type; no value is ever cast while rows are read.
        return f"${len(self.args)}::{type}"

    def _pack(self, value: Any, type: str) -> str:
        """Bind a value as an element of an array, since placeholders are limited."""
        if type not in self._packed:
            values: list[Any] = []
            self.args.append(values)
            self._packed[type] = (len(self.args), values)
        index, values = self._packed[type]
        values.append(value)
        return f"(${index}::{type}[])[{len(values)}]"

    def text(self, value: str) -> Parameter:
        """Bind text."""
        return Parameter(self, value, "text")

    def texts(self, values: Sequence[str]) -> Parameter:
        """Bind a list of texts."""
        return Parameter(self, list(values), "text[]")

    def integer(self, value: int) -> Parameter:
        """Bind an integer of 32 bits."""
        return Parameter(self, value, "int4")

    def bigint(self, value: int) -> Parameter:
        """Bind an integer of 64 bits."""
        return Parameter(self, value, "int8")

    def numeric(self, value: float) -> Parameter:
        """Bind a number as the decimal that its JSON text is."""
        return Parameter(self, Decimal(orjson.dumps(value).decode()), "numeric")

    def numerics(self, values: Sequence[float]) -> Parameter:
        """Bind a list of numbers."""
        texts = [orjson.dumps(value).decode() for value in values]
        if self._json_array == "jsonb[]":
            return Parameter(self, list(map(Decimal, texts)), "numeric[]")
        return Parameter(self, texts, "text[]::numeric[]")

    def bool(self, value: bool) -> Parameter:
        """Bind a truth value."""
        return Parameter(self, value, "boolean")

    def float8(self, value: float) -> Parameter:
        """Bind a double."""
        return Parameter(self, value, "float8")

    def json(self, value: Any) -> Parameter:
        """Bind a JSON value."""
        return Parameter(self, orjson.dumps(value).decode(), "jsonb")

    def jsons(self, values: Sequence[Any]) -> Parameter:
        """Bind a list of JSON values."""
        return Parameter(self, [orjson.dumps(value).decode() for value in values], self._json_array)


def quote(name: str) -> str:
    """Return the name of a table, schema or index as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return text as an SQL literal, valid under either `standard_conforming_strings`."""
    doubled = text.replace("'", "''")
    if "\\" in doubled:
        return "E'" + doubled.replace("\\", "\\\\") + "'"
    return f"'{doubled}'"


def jsonpath_key(key: str) -> str:
    """Return a key as a jsonpath accessor."""
    # jsonpath understands the escapes of JSON.
    return "." + orjson.dumps(key).decode()
