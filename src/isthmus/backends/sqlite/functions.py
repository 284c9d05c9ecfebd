"""Our SQL functions: the evaluator's meaning where JSON1 has another one or none.

They are deterministic, take whatever a row may hold, and are never part of an index, so that
other programs can open the file. A call names its test by number in the statement's list.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from isthmus._query.order import NONE, SortValue
from isthmus._record import Record
from isthmus.backends.sqlite.statement import Test


class Functions:
    """The functions of one connection; `use` gives those of the statement that runs next."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._tests: tuple[Test, ...] = ()
        self._asked: tuple[int, str] | None = None
        self._best: SortValue = (NONE, None)
        for name, arguments, function in (
            ("isthmus_text", 2, self._text),
            ("isthmus_json", 2, self._json),
            ("isthmus_bracket", 2, self._type_rank),
            ("isthmus_value", 2, self._value),
            ("isthmus_record", 7, self._record),
        ):
            connection.create_function(name, arguments, function, deterministic=True)
        connection.create_aggregate("isthmus_sum", 1, ExactSum)  # type: ignore[arg-type]

    def use(self, tests: tuple[Test, ...]) -> None:
        """Take the tests of the statement that runs next."""
        self._tests = tests
        self._asked = None

    def _text(self, number: int, value: Any) -> int:
        """Judge a text."""
        return int(isinstance(value, str) and bool(self._tests[number](value)))

    def _json(self, number: int, value: Any) -> int:
        """Judge a list, an object or a whole record, given as JSON."""
        return int(isinstance(value, str) and bool(self._tests[number](orjson.loads(value))))

    def _type_rank(self, number: int, value: Any) -> int:
        """Return the type's place of the value that a list sorts by."""
        return self._sort_value(number, value)[0]

    def _value(self, number: int, value: Any) -> Any:
        """Return the value that a list sorts by; None for none and for an object."""
        return self._sort_value(number, value)[1]

    def _sort_value(self, number: int, value: Any) -> SortValue:
        if not isinstance(value, str):
            return (NONE, None)
        if self._asked != (number, value):  # asked twice for each row
            self._best = self._tests[number](orjson.loads(value))
            self._asked = (number, value)
        return self._best

    def _record(self, number: int, *row: Any) -> int:
        """Judge a whole record by a predicate that has no form in SQL."""
        id, data, metadata, version, created, updated = row
        record = Record.stored(id, data, metadata, str(version), created, updated)
        return int(bool(self._tests[number](record)))


class ExactSum:
    """The exact sum of floats; SQLite's own loses digits when large terms cancel, and overflows."""

    def __init__(self) -> None:
        # Numerators by denominator, which is a power of two: at most some 1,100 of them.
        self._parts: dict[int, int] = {}
        self._any = False

    def step(self, value: Any) -> None:
        """Add a float; anything else is passed over."""
        if isinstance(value, float):
            numerator, denominator = value.as_integer_ratio()
            self._parts[denominator] = self._parts.get(denominator, 0) + numerator
            self._any = True

    def finalize(self) -> str | None:
        """Return the exact sum as `numerator/denominator`, None if there was no float."""
        if not self._any:
            return None
        common = max(self._parts)
        total = sum(n * (common // d) for d, n in self._parts.items())
        return f"{total}/{common}"
