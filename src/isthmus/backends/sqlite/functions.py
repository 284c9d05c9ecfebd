"""Our SQL functions, which call the evaluator where JSON1 differs from it or has no equivalent.

They are deterministic, accept any value that a row may hold, and are never part of an index, so
that other programs can open the file. A call names its test by its number in the statement.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from isthmus._query.find import end_turn
from isthmus._query.order import NONE, SortValue
from isthmus._record import Record
from isthmus.backends.sqlite.statement import Test


class Functions:
    """The functions of one connection; `use` sets the tests of the statement that runs next."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._tests: tuple[Test, ...] = ()
        self._last: tuple[int, str] | None = None
        self._best: SortValue = (NONE, None)
        for name, arguments, function in (
            ("isthmus_text", 2, self._text),
            ("isthmus_json", 2, self._json),
            ("isthmus_type_rank", 2, self._type_rank),
            ("isthmus_value", 2, self._value),
            ("isthmus_record", 7, self._record),
        ):
            connection.create_function(name, arguments, function, deterministic=True)
        connection.create_aggregate("isthmus_sum", 1, ExactSum)  # type: ignore[arg-type]

    def use(self, tests: tuple[Test, ...]) -> None:
        """Set the tests that the next statement calls."""
        self._tests = tests
        self._last = None

    def _text(self, number: int, value: Any) -> int:
        """Evaluate a text."""
        if not isinstance(value, str):
            return 0
        try:
            return int(bool(self._tests[number](value)))
        finally:
            end_turn()

    def _json(self, number: int, value: Any) -> int:
        """Evaluate a list or an object, given as JSON."""
        if not isinstance(value, str):
            return 0
        try:
            return int(bool(self._tests[number](orjson.loads(value))))
        finally:
            end_turn()

    def _type_rank(self, number: int, value: Any) -> int:
        """Return the type rank of the value that a list sorts by."""
        return self._sort_value(number, value)[0]

    def _value(self, number: int, value: Any) -> Any:
        """Return the value that a list sorts by; None if it has none, or an object."""
        return self._sort_value(number, value)[1]

    def _sort_value(self, number: int, value: Any) -> SortValue:
        if not isinstance(value, str):
            return (NONE, None)
        if self._last != (number, value):  # both functions are called for each row
            self._best = self._tests[number](orjson.loads(value))
            self._last = (number, value)
        return self._best

    def _record(self, number: int, *row: Any) -> int:
        """Evaluate a whole record by a predicate that has no form in SQL."""
        id, data, metadata, version, created, updated = row
        record = Record.stored(id, data, metadata, str(version), created, updated)
        try:
            return int(bool(self._tests[number](record)))
        finally:
            end_turn()


class ExactSum:
    """The exact sum of floats; SQLite's own loses digits when large terms cancel, and overflows."""

    def __init__(self) -> None:
        # Numerators by denominator, which is a power of two: at most some 1,100 of them.
        self._parts: dict[int, int] = {}
        self._any = False

    def step(self, value: Any) -> None:
        """Add a float; any other value is skipped."""
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
