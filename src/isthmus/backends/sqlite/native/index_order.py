"""Pages in the order of a column that has an index: one part for each type, in the order of types.

SQLite's own order of cells is numbers, texts, blobs; within a type it is that of meaning §4 where a text is
compared by code point. So an index yields each type's rows in order, and no page sorts the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from isthmus._core.executor import PageRequest
from isthmus._path import Root
from isthmus._query.ast import And, Between, Equal, In, Like, Ordered, Predicate, StartsWith
from isthmus._query.order import BOOL, NONE, NUMBER, TEXT, is_id
from isthmus.backends._tables.indexes import Use, uses_of
from isthmus.backends.sqlite.native.columns import Affinity, SQLiteColumn
from isthmus.backends.sqlite.native.filter import CellFilter, finite, is_text
from isthmus.backends.sqlite.native.order import CellOrdering
from isthmus.backends.sqlite.native.table import SQLiteTable
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.backends.sqlite.statement import Binder, Statement, quote_name

# Above this number of rows, which the parts before a page may have, one plain sort costs less.
_MAX_OFFSET = 5_000
_SELECTIVE = (Equal, In, Ordered, Between, StartsWith, Like)


def find_order_column(table: SQLiteTable, request: PageRequest) -> SQLiteColumn | None:
    """Return the column by whose index a page is best read; None if a plain sort is better."""
    if not request.order or request.size is None or request.offset > _MAX_OFFSET:
        return None
    path = request.order[0].path
    column = table.column(path.keys[0]) if path.root is Root.DATA and len(path.keys) == 1 else None
    if column is None or not column.stored or not (column.rowid or column.name in table.leading):
        return None
    where = request.where
    terms = where.terms if isinstance(where, And) else (where,)
    return None if any(_has_better_index(table, column, term) for term in terms) else column


def _has_better_index(table: SQLiteTable, column: SQLiteColumn, term: Predicate) -> bool:
    if not isinstance(term, _SELECTIVE):
        return False
    if is_id(term.path):
        return True
    name = term.path.keys[0] if len(term.path.keys) == 1 else ""
    return name != column.name and (name in table.leading or name == table.key[0])


def missing_indexes(table: SQLiteTable, request: PageRequest) -> list[str]:
    """Return the statements of indexes that would serve a page and that the table's owner has not made."""
    begun = {columns[0] for _, columns in table.indexes if columns}
    wanted: dict[str, None] = {}
    for column, use in uses_of(table, request.where, request.order):
        served = begun if use is Use.EQUALITY else table.leading
        if not isinstance(column, SQLiteColumn) or not column.stored or column.rowid or column.name in served:
            continue
        collation = "" if column.affinity is Affinity.INTEGER else " COLLATE BINARY"
        wanted[f"CREATE INDEX … ON {quote_name(table.name)} ({quote_name(column.name)}{collation})"] = None
    return list(wanted)


def read_in_order(
    session: SQLiteSession, table: SQLiteTable, column: SQLiteColumn, request: PageRequest
) -> Iterator[Statement]:
    """Yield the statements whose rows, one after another, are a page and its next row, after the offset.

    The caller takes no more of them than it needs rows. They must see one state of the database.
    """
    assert request.order
    first = request.order[0]
    ranks = [BOOL, NUMBER, TEXT] if column.boolean else [NUMBER, TEXT]
    if column.affinity is Affinity.TEXT:
        ranks.remove(NUMBER)
    if first.descending:
        ranks.reverse()
    ranks.insert(0 if first.nulls_first else len(ranks), NONE)
    position = None if request.after is None else request.after.position
    start = 0 if position is None else _start(ranks, position[0][0])
    for number, rank in enumerate(ranks[start:]):
        yield _part(session, table, column, request, rank, resumes=position is not None and number == 0)


def _start(ranks: list[int], rank: int) -> int:
    return ranks.index(rank) if rank in ranks else len(ranks)


def _part(
    session: SQLiteSession,
    table: SQLiteTable,
    column: SQLiteColumn,
    request: PageRequest,
    rank: int,
    *,
    resumes: bool,
) -> Statement:
    """Return the statement of the rows whose cell has this type rank; with `resumes` after the position."""
    assert request.order
    binder = Binder()
    conditions = [CellFilter(table, binder).sql(request.where)]
    limit = f"LIMIT {binder.value((request.size or 0) + request.offset + 1)}"
    after = request.after.position if resumes and request.after is not None else None
    position = None if after is None else tuple(after)
    cell = column.sql if column.rowid else f"{column.sql} COLLATE BINARY"
    if rank == NONE or (rank == TEXT and _has_bytes(session, table, column)):
        # Few rows, or in another order than SQLite's: they are sorted.
        ordering = CellOrdering(table, request.order, binder)
        has_text = f"typeof({column.sql}) IN ('text', 'blob') AND {_valid(column)}"
        conditions.append(_lacks_value(column) if rank == NONE else has_text)
        if position is not None:
            conditions.append(ordering.after(position))
        by = ordering.by()
    else:
        ordering = CellOrdering(table, request.order[1:], binder)
        conditions.append(_of_rank(column, rank))
        if position is not None:
            value: Any = position[0][1]
            bound = binder.value(int(value) if isinstance(value, bool) else value)
            sign = "<" if request.order[0].descending else ">"
            following = ordering.after(position[1:])
            # The second term implies the first, which is the one that the index can seek.
            conditions += [f"{cell} {sign}= {bound}", f"({cell} {sign} {bound} OR {following})"]
        by = f"{cell}{' DESC' if request.order[0].descending else ''}, {ordering.by()}"
    where = " AND ".join(conditions)
    return binder.statement(f"SELECT {table.row} FROM {table.source} WHERE {where} ORDER BY {by} {limit}")


def _has_bytes(session: SQLiteSession, table: SQLiteTable, column: SQLiteColumn) -> bool:
    """Return whether a cell holds bytes, which sort as base64 text; the index tells at once."""
    if not column.holds_bytes:
        return False
    text = f"SELECT 1 FROM {table.source} WHERE {column.sql} >= x'' LIMIT 1"
    return session.execute(text).fetchone() is not None


def _of_rank(column: SQLiteColumn, rank: int) -> str:
    """Return the condition of a type rank, with a range for the index."""
    cell = column.sql
    if rank == BOOL:
        return f"{cell} BETWEEN 0 AND 1 AND typeof({cell}) = 'integer'"
    if rank == TEXT:
        return f"{cell} COLLATE BINARY >= '' AND {cell} < x'' AND {is_text(column)}"
    if column.rowid:
        return "1"
    plain = f"{cell} < '' AND {finite('+' + cell)}"
    return f"{plain} AND {cell} NOT IN (0, 1)" if column.boolean else plain


def _lacks_value(column: SQLiteColumn) -> str:
    return f"({column.sql} IS NULL OR NOT {_valid(column)})" if not column.rowid else "0"


def _valid(column: SQLiteColumn) -> str:
    """Return the condition that a cell, if it is not NULL, has a canonical value."""
    return (
        f"CASE typeof({column.sql}) WHEN 'real' THEN {finite('+' + column.sql)}"
        f" WHEN 'text' THEN {is_text(column)} ELSE 1 END"
    )
