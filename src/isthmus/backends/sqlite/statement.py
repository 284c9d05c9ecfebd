"""Statements with their arguments: the only place where names are quoted and values bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isthmus._values import JSON

Test = Callable[[Any], Any]
"""A Python function of one value, which SQL calls by its number in the statement."""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text, the values of `?1`, `?2` …, and the tests that it calls by number."""

    text: str
    args: tuple[Any, ...] = ()
    tests: tuple[Test, ...] = ()

    def with_prefix(self, prefix: str) -> Statement:
        """Return the statement after a prefix such as `EXPLAIN `."""
        return Statement(prefix + self.text, self.args, self.tests)


class Binder:
    """Collects the arguments and tests of one statement while it is compiled."""

    def __init__(self) -> None:
        self._args: list[Any] = []
        self._numbers: dict[tuple[type, Any], int] = {}
        self._tests: list[Test] = []

    def value(self, value: JSON | bytes) -> str:
        """Bind a scalar and return its placeholder; equal scalars of one type share one."""
        key = (type(value), value)
        number = self._numbers.get(key)
        if number is None:
            self._args.append(value)
            number = self._numbers[key] = len(self._args)
        return f"?{number}"

    def bound(self) -> int:
        """Return the number of values bound so far."""
        return len(self._args)

    def unbind(self, keep: int) -> None:
        """Drop the values after the first `keep`: SQLite refuses values that the text does not use."""
        del self._args[keep:]
        self._numbers = {key: number for key, number in self._numbers.items() if number <= keep}

    def test(self, test: Test) -> str:
        """Register a test for our SQL functions and return its number as text."""
        self._tests.append(test)
        return str(len(self._tests) - 1)

    def statement(self, text: str) -> Statement:
        """Return the finished statement."""
        return Statement(text, tuple(self._args), tuple(self._tests))


def quote_name(name: str) -> str:
    """Return the name of a table or index as SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Return text as a SQL literal, for index expressions, which cannot have bound values."""
    return "'" + text.replace("'", "''") + "'"
