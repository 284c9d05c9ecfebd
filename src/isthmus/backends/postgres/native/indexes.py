"""The indexes of a native table, and those that would serve a page and are not there."""

from __future__ import annotations

from isthmus._core.executor import PageRequest
from isthmus.backends._tables.column import Kind, TableColumn
from isthmus.backends._tables.indexes import Use, uses_of
from isthmus.backends._tables.leaves import canonical_kind
from isthmus.backends.postgres.drivers.protocol import Connection
from isthmus.backends.postgres.native.catalog import CODE_POINT, READ_ONLY, NativeTable
from isthmus.backends.postgres.native.columns import has_ordered_index, is_comparable
from isthmus.backends.postgres.sql.statement import quote

_INDEXES = """
SELECT a.attname::text, m.amname = 'btree', o.collname::text, right(p.opcname::text, 11) = 'pattern_ops'
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
JOIN pg_opclass p ON p.oid = x.indclass[0] LEFT JOIN pg_collation o ON o.oid = x.indcollation[0]
WHERE x.indrelid = $1::text::regclass AND x.indisvalid AND x.indpred IS NULL
  AND m.amname IN ('btree', 'hash')"""
_EVERY_USE = frozenset(Use)


async def read_served(connection: Connection, table: NativeTable) -> dict[str, frozenset[Use]]:
    """Return for what the first column of each index is served by it; one query."""
    served: dict[str, frozenset[Use]] = {}
    for name, is_sorted, collation, by_pattern in await connection.fetch(_INDEXES, table.sql):
        column = table.table.by_name.get(name)
        if column is not None:
            uses = _uses(column, collation, is_sorted=is_sorted, by_pattern=by_pattern)
            served[name] = served.get(name, frozenset()) | uses
    return served


def _uses(column: TableColumn, collation: str | None, *, is_sorted: bool, by_pattern: bool) -> frozenset[Use]:
    if not is_sorted:
        return frozenset({Use.EQUALITY})
    if column.kind is not Kind.TEXT:
        return _EVERY_USE
    if by_pattern:
        return frozenset({Use.EQUALITY, Use.PREFIX})
    if collation in CODE_POINT or (collation == "default" and column.code_point_order):
        return _EVERY_USE
    return frozenset({Use.EQUALITY})


def index_of(table: NativeTable, column: TableColumn, use: Use) -> str | None:
    """Return the statement of the index that would serve a use of a column; None if none could."""
    if table.table.read_only in (READ_ONLY["v"], READ_ONLY["f"]):
        return None
    is_text = column.kind is Kind.TEXT
    possible = {
        Use.EQUALITY: is_comparable(column) and column.kind is not Kind.INTERVAL,
        Use.RANGE: has_ordered_index(column) or column.kind is Kind.NUMERIC or is_text,
        Use.PREFIX: is_text,
        Use.ORDER: has_ordered_index(column) or is_text,
    }
    if canonical_kind(column) is None or column.kind is Kind.OTHER or not possible[use]:
        return None
    if is_text and use is not Use.EQUALITY and column.labels is not None:
        return None
    collation = ' COLLATE "C"' if is_text and use is not Use.EQUALITY and not column.code_point_order else ""
    return f"CREATE INDEX ON {table.sql} ({quote(column.name)}{collation})"


async def missing_indexes(connection: Connection, table: NativeTable, request: PageRequest) -> list[str]:
    """Return the statements of indexes that would serve a page; one query."""
    served = await read_served(connection, table)
    wanted: dict[str, None] = {}
    for column, use in uses_of(table.table, request.where, request.order):
        statement = index_of(table, column, use)
        if statement is not None and use not in served.get(column.name, ()):
            wanted[statement] = None
    return list(wanted)
