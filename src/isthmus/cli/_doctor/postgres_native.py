"""Checks of a PostgreSQL table that others made: what is written, what is exact, which index would serve."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from isthmus.backends._tables.column import Kind, TableColumn
from isthmus.cli._doctor.finding import Finding, ok, warning

if TYPE_CHECKING:
    from isthmus.backends.postgres.drivers.protocol import Connection
    from isthmus.backends.postgres.native.catalog import NativeTable


async def check_native(connection: Connection, table: NativeTable) -> AsyncIterator[Finding]:
    """Say how a table is served, what of it is evaluated client-side, and which index would serve."""
    from isthmus.backends._tables.indexes import Use
    from isthmus.backends.postgres.native.indexes import index_of, read_served

    key, columns = ", ".join(table.table.key), table.table.columns
    if table.table.read_only:
        yield ok("table", f"read-only, {table.table.read_only}; its key is {key}")
    else:
        version = table.table.version or "the server's row version"
        yield ok("table", f"made by others; its key is {key}, the version of a row {version}")
    unwritten = [column.name for column in columns if column.kind is Kind.OTHER]
    if unwritten:
        yield ok("columns", f"read as text and not written: {', '.join(unwritten)}")
    evaluated = [column.name for column in columns if _is_evaluated_here(column)]
    if evaluated:
        yield ok("queries", f"conditions on these are evaluated client-side: {', '.join(evaluated)}")
    served = await read_served(connection, table)
    slow = {
        column.name: statement
        for column in columns
        if column.kind is Kind.TEXT and not column.code_point_order
        if (statement := index_of(table, column, Use.RANGE)) and Use.RANGE not in served.get(column.name, ())
    }
    if slow:
        yield warning(
            "indexes",
            f"no index has the order of these texts, by code point: {', '.join(slow)};"
            " = and in use any index",
            f"for ranges, prefixes and sorting: {next(iter(slow.values()))}",
        )


def _is_evaluated_here(column: TableColumn) -> bool:
    return column.type == "json" or column.zone is not None or column.numeric == "float"
