"""Texts of statements and their bound values."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from sqlalchemy import CursorResult, text

NO_ROW, EVERY_ROW = "(1 = 0)", "(1 = 1)"


class Statement(NamedTuple):
    """A text with `:name` for each bound value."""

    text: str
    values: dict[str, Any]


class ValueBinder:
    """Collects the values that a statement binds."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def bind(self, value: Any) -> str:
        """Bind a value and return what stands for it."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def statement(self, text: str) -> Statement:
        """Return a statement with the values that were bound."""
        return Statement(text, self.values)


def escape_colons(name: str) -> str:
    """Return SQL of names or literals, in which a colon marks no bound value."""
    return name.replace(":", "\\:")


async def execute(connection: AsyncConnection, statement: Statement) -> CursorResult[Any]:
    """Run a statement."""
    return await connection.execute(text(statement.text), statement.values)
