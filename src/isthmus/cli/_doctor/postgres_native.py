"""Checks of a PostgreSQL table that others made: what is written, what is exact, which index would serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from isthmus.backends._tables.column import Kind, TableColumn
from isthmus.cli._doctor.finding import Finding, ok, warning

if TYPE_CHECKING:
    from isthmus.backends.postgres.native.catalog import NativeTable

INDEXED = """
SELECT array(SELECT DISTINCT a.attname::text FROM pg_index x
  JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
  JOIN pg_collation o ON o.oid = x.indcollation[0]
  WHERE x.indrelid = c.oid AND x.indisvalid AND o.collname = ANY('{C,POSIX,C.UTF-8,C.utf8,ucs_basic}'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2"""
"""The text columns whose index is by code point, whatever the column's own collation is."""


def check_native(table: NativeTable, indexed: Any) -> Iterator[Finding]:
    """Say how a table is served; `indexed` are the columns that `INDEXED` gives."""
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
    slow = [column for column in columns if column.kind is Kind.TEXT and _lacks_order(column, indexed or ())]
    if slow:
        names = ", ".join(column.name for column in slow)
        yield warning(
            "indexes",
            f"no index has the order of these texts, by code point: {names}; = and in use any index",
            f'for ranges, prefixes and sorting: CREATE INDEX ON {table.sql} ("{slow[0].name}" COLLATE "C")',
        )


def _is_evaluated_here(column: TableColumn) -> bool:
    return column.type == "json" or column.zone is not None or column.numeric == "float"


def _lacks_order(column: TableColumn, indexed: Any) -> bool:
    return column.labels is None and not column.code_point_order and column.name not in indexed
