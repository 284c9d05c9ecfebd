"""Conditions and orders on declared columns.

A condition is split by row: the tree on columns for rows that are not odd, and the exact tree for the odd
ones (docs/decisions/0020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isthmus._core.executor import PageRequest
from isthmus._path import Path
from isthmus._query.ast import AnyObject, EqualList, Exists, Leaf, Not, Predicate, SortKey, leaves
from isthmus._query.order import BOOL, NUMBER, TEXT, Position, is_id
from isthmus.backends.sqlite.columns import ODD, StoredColumn
from isthmus.backends.sqlite.filter import ROW, FilterCompiler
from isthmus.backends.sqlite.order import Ordering, OrderKey, rank_of_missing
from isthmus.backends.sqlite.schema import Table
from isthmus.backends.sqlite.statement import Binder

RANKS = {"bool": BOOL, "number": NUMBER, "text": TEXT}
IS_ODD = f"{ODD} = 1"
NOT_ODD = f"{ODD} IS NULL"


def condition(table: Table, predicate: Predicate, binder: Binder) -> str:
    """Return a condition that is true for exactly the matching rows; it may be NULL for others."""
    if not has_columns(table, predicate):
        return FilterCompiler(binder, table.indexed).sql(predicate)
    usual, odd = by_row(table, predicate, binder)
    return f"(({usual} AND {NOT_ODD}) OR ({IS_ODD} AND {odd}))"


def by_row(table: Table, predicate: Predicate, binder: Binder) -> tuple[str, str]:
    """Return the condition of a predicate on rows that are not odd, and the one on those that are."""
    return usual_rows(table, predicate, binder), FilterCompiler(binder, frozenset()).sql(predicate)


def usual_rows(table: Table, predicate: Predicate, binder: Binder) -> str:
    """Return the condition of a predicate on rows that are not odd."""
    return _ColumnFilter(binder, table.indexed, table.columns).sql(predicate)


def has_columns(table: Table, predicate: Predicate) -> bool:
    """Return whether a predicate has a leaf on a column that no index serves."""
    return bool(table.columns) and any(
        leaf.path in table.columns and leaf.path not in table.indexed for leaf in leaves(predicate)
    )


def explain_columns(table: Table, request: PageRequest) -> list[str]:
    """Return the fields of a request that have a declared column, and no index in its place."""
    paths = [*(leaf.path for leaf in leaves(request.where)), *(key.path for key in request.order or ())]
    used = [path for path in dict.fromkeys(paths) if path in table.columns and path not in table.indexed]
    return [str(path) for path in used]


def all_columns(table: Table, paths: Sequence[Path]) -> bool:
    """Return whether there are paths and each has a column."""
    return bool(paths) and bool(table.columns) and all(path in table.columns for path in paths)


class _ColumnFilter(FilterCompiler):
    """Compiles predicates for rows that are not odd: leaves on declared paths are conditions on columns."""

    def __init__(
        self, binder: Binder, indexed: frozenset[Path], columns: Mapping[Path, StoredColumn]
    ) -> None:
        super().__init__(binder, indexed)
        self._columns = columns

    def _condition(self, predicate: Predicate) -> str:
        if isinstance(predicate, Not) or (found := self._on_column(predicate)) is None:
            return super()._condition(predicate)
        return found

    def _two_valued(self, predicate: Predicate) -> str:
        found = self._on_column(predicate)
        return super()._two_valued(predicate) if found is None else f"({found} IS TRUE)"

    def _on_column(self, predicate: Predicate) -> str | None:
        """Return the condition of a leaf on a column; None for anything else, and where an index serves."""
        path = getattr(predicate, "path", None)
        stored = None if path is None or path in self._indexed else self._columns.get(path)
        return None if stored is None else self._leaf_on(predicate, stored)  # type: ignore[arg-type]

    def _leaf_on(self, leaf: Leaf, stored: StoredColumn) -> str:
        x = stored.sql
        if isinstance(leaf, Exists):
            return f"{x} IS NOT NULL"
        if isinstance(leaf, EqualList | AnyObject):
            return "0"
        bound = self._binder.bound()
        cases = self._cases(leaf, x)
        if stored.column.kind == "bool":
            self._binder.unbind(bound)
            values = [number for number, kind in ((1, "true"), (0, "false")) if kind in cases]
            return f"{x} IN ({', '.join(map(str, values))})" if values else "0"
        found = cases.get("integer" if stored.column.kind == "number" else "text")
        if found is None or len(cases) > (2 if stored.column.kind == "number" else 1):
            # Operands of other types are bound too: bind again those that the column can have.
            self._binder.unbind(bound)
            found = None if found is None else self._own_operands(leaf, stored)
        if found is None:
            return "0"
        if found == "1":
            return f"{x} IS NOT NULL"
        return f"({x} IS NOT NULL AND {found})" if "isthmus_" in found else found

    def _own_operands(self, leaf: Leaf, stored: StoredColumn) -> str:
        """Return the condition of `in` with the operands of the column's kind alone."""
        is_text = stored.column.kind == "text"
        values = getattr(leaf, "values", ())
        own = [
            value for value in values if (isinstance(value, str) if is_text else type(value) in (int, float))
        ]
        return f"{stored.sql} IN {self._list(own)}"


class _ColumnOrdering(Ordering):
    """An order by columns, of rows that are not odd."""

    def __init__(
        self, order: tuple[SortKey, ...], binder: Binder, columns: Mapping[Path, StoredColumn]
    ) -> None:
        self._columns = columns
        super().__init__(order, binder)

    def _key(self, key: SortKey) -> OrderKey:
        stored = self._columns.get(key.path)
        if stored is None:  # the id
            return super()._key(key)
        none = rank_of_missing(key)
        rank = f"CASE WHEN {stored.sql} IS NULL THEN {none} ELSE {RANKS[stored.column.kind]} END"
        return OrderKey(rank, stored.sql, key.descending, none)


def orders_by_columns(table: Table, order: tuple[SortKey, ...]) -> bool:
    """Return whether each key of an order has a column, apart from the id, and no index serves the first."""
    keys = []
    for key in order:
        if is_id(key.path):
            break
        keys.append(key.path)
    return all_columns(table, keys) and keys[0] not in table.indexed


def page_by_columns(
    table: Table,
    order: tuple[SortKey, ...],
    where: Predicate,
    after: Position | None,
    rows: str,
    limit: str,
    binder: Binder,
) -> str:
    """Return the select of a page in an order of columns; `rows` is how many of each part can be in it."""
    parts = by_row(table, where, binder)
    orderings = (_ColumnOrdering(order, binder, table.columns), Ordering(order, binder))
    arms = []
    for part, test, ordering in zip(parts, (NOT_ODD, IS_ODD), orderings, strict=True):
        selected = f"{test} AND {part}" if after is None else f"{test} AND {part} AND {ordering.after(after)}"
        values = "".join(
            f", {key.type_rank or 0} AS r{n}, {key.value} AS v{n}" for n, key in enumerate(ordering.keys)
        )
        arms.append(
            f"SELECT * FROM (SELECT {ROW}{values} FROM {table.source} WHERE {selected}"
            f" ORDER BY {ordering.by()} LIMIT {rows})"
        )
    terms = []
    for n, key in enumerate(orderings[1].keys):
        terms += [f"r{n}{key.direction}", f"v{n}{key.direction}"]
    return f"SELECT {ROW} FROM ({' UNION ALL '.join(arms)}) ORDER BY {', '.join([*terms, 'id'])} {limit}"
