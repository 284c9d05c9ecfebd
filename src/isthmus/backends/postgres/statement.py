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


class Bound:
    """Collects values; each call returns the placeholder, with its type, that stands for one."""

    __slots__ = ("_packed", "args")

    def __init__(self) -> None:
        self.args: list[Any] = []
        self._packed: dict[str, tuple[int, list[Any]]] = {}

    def _add(self, value: Any, type: str) -> str:
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

    def text(self, value: str) -> str:
        """Bind text."""
        return self._add(value, "text")

    def texts(self, values: Sequence[str]) -> str:
        """Bind a list of texts."""
        return self._add(list(values), "text[]")

    def integer(self, value: int) -> str:
        """Bind an integer of 32 bits."""
        return self._add(value, "int4")

    def big(self, value: int) -> str:
        """Bind an integer of 64 bits."""
        return self._add(value, "int8")

    def json(self, value: Any) -> str:
        """Bind a JSON value."""
        return self._add(orjson.dumps(value).decode(), "jsonb")

    def jsons(self, values: Sequence[Any]) -> str:
        """Bind a list of JSON values."""
        return self._add([orjson.dumps(value).decode() for value in values], "jsonb[]")
