"""Explains a page of a table: its statement, the server's plan, the indexes, and those that would serve."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.executor import NativePlan, PageRequest
from isthmus.backends._tables.column import Kind
from isthmus.backends._tables.indexes import Use, uses_of
from isthmus.backends.sqlalchemy.native.read import page_statement
from isthmus.backends.sqlalchemy.native.statement import Statement, execute
from isthmus.backends.sqlalchemy.native.table import VIEW, ColumnSQL, ReflectedTable


async def explain(connection: AsyncConnection, table: ReflectedTable, request: PageRequest) -> NativePlan:
    """Return the SQL of a page, the server's plan for it and the index that it uses."""
    statement = page_statement(table, request)
    plan = await execute(connection, Statement(f"EXPLAIN {statement.text}", statement.values))
    steps = [dict(row) for row in plan.mappings()]
    used = next((step["key"] for step in steps if step.get("key")), None)
    index = "primary key" if used == "PRIMARY" else used
    details = {
        "plan": steps,
        "table": {name: list(columns) for name, columns in table.indexes.items()},
        "would_serve": _missing_indexes(table, request),
        "arguments": len(statement.values),
    }
    return NativePlan(statement.text, index, details)


def _missing_indexes(table: ReflectedTable, request: PageRequest) -> list[str]:
    """Return the statements of indexes that would serve a page and that the table's owner has not made."""
    if table.table.read_only == VIEW:
        return []
    begun = {columns[0] for columns in table.indexes.values()}
    wanted: dict[str, None] = {}
    for column, use in uses_of(table.table, request.where, request.order):
        sql = table.by_name[column.name]
        if column.name not in begun and can_serve(sql, use):
            length = "(100)" if column.type.endswith(("text", "blob")) else ""
            wanted[f"ALTER TABLE {table.sql} ADD INDEX ({sql.source}{length})"] = None
    return list(wanted)


def can_serve(column: ColumnSQL, use: Use) -> bool:
    """Return whether an index of a column can serve a use of it."""
    kind = column.column.kind
    if column.value is None or not column.serves or kind in (Kind.JSON, Kind.OTHER):
        return False
    match use:
        case Use.EQUALITY:
            return True
        case Use.RANGE:
            return kind not in (Kind.TEXT, Kind.UUID, Kind.BYTES)
        case Use.PREFIX:
            return kind is Kind.TEXT
        case Use.ORDER:
            return column.value == column.source and not column.column.nullable
