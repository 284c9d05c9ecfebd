"""Explains a page of a table: its statement, the server's plan and the indexes."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus._core.executor import NativePlan, PageRequest
from isthmus.backends.sqlalchemy.native.read import page_statement
from isthmus.backends.sqlalchemy.native.statement import Statement, execute
from isthmus.backends.sqlalchemy.native.table import ReflectedTable


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
        "arguments": len(statement.values),
    }
    return NativePlan(statement.text, index, details)
