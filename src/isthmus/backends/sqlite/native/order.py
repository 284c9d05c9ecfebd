"""Orders of rows: by the cells of columns, and by id as the key columns sort."""

from __future__ import annotations

from isthmus._path import Path, Root
from isthmus._query.ast import SortKey
from isthmus._query.order import BOOL, NUMBER, TEXT, Position, is_id
from isthmus.backends.sqlite.native.columns import SQLiteColumn
from isthmus.backends.sqlite.native.filter import finite, is_text, version_sql
from isthmus.backends.sqlite.native.keys import order_steps, order_terms
from isthmus.backends.sqlite.native.table import SQLiteTable
from isthmus.backends.sqlite.order import OrderKey, Step, rank_of_missing
from isthmus.backends.sqlite.statement import Binder


class CellOrdering:
    """The order of one statement; the id is always its last key."""

    def __init__(self, table: SQLiteTable, order: tuple[SortKey, ...], binder: Binder) -> None:
        # Ids are unique: the keys after one are irrelevant.
        ids = [index for index, key in enumerate(order) if is_id(key.path)]
        self._order = order[: ids[0]] if ids else order
        self._by_id_descending = bool(ids) and order[ids[0]].descending
        self._table = table
        self._binder = binder
        self._keys = [_order_key(table, key) for key in self._order]

    def by(self, *, sorts: bool = False) -> str:
        """Return the ORDER BY terms; with `sorts` in a form that the key's own index cannot serve."""
        direction = " DESC" if self._by_id_descending else ""
        sign = "+" if sorts else ""
        ids = [sign + term + direction for term in order_terms(self._table)]
        return ", ".join([term for key in self._keys for term in key.terms()] + ids)

    def after(self, position: Position) -> str:
        """Return the condition of coming after a position."""
        steps: list[Step] = []
        for key, bound in zip(self._keys, position, strict=False):
            steps += key.steps(tuple(bound), self._binder)
        steps += order_steps(self._table, str(position[-1]), self._binder, descending=self._by_id_descending)
        alternatives = []
        for index, (value, sign, operand) in enumerate(steps):
            same = [f"{equal} = {other}" for equal, _, other in steps[:index]]
            alternatives.append(" AND ".join([*same, f"{value} {sign} {operand}"]))
        return "(" + " OR ".join(alternatives) + ")" if alternatives else "0"


def _order_key(table: SQLiteTable, key: SortKey) -> OrderKey:
    none = rank_of_missing(key)
    rank, value = _rank_and_value(table, key.path, str(none))
    return OrderKey(rank, value, key.descending, none)


def _rank_and_value(table: SQLiteTable, path: Path, none: str) -> tuple[str | None, str]:
    if path.root is Root.VERSION and (version := version_sql(table)) is not None:
        return f"CASE WHEN {version} IS NULL THEN {none} ELSE {TEXT} END", version
    column = table.column(path.keys[0]) if path.root is Root.DATA and len(path.keys) == 1 else None
    if column is None:
        return None, "NULL"
    return rank_sql(column, none), value_sql(column)


def rank_sql(column: SQLiteColumn, none: str) -> str:
    """Return the type rank of a cell as SQL, `none` where it has no canonical value."""
    cell = column.sql
    whole = f"CASE WHEN {cell} IN (0, 1) THEN {BOOL} ELSE {NUMBER} END" if column.boolean else str(NUMBER)
    return (
        f"CASE typeof({cell}) WHEN 'integer' THEN {whole}"
        f" WHEN 'real' THEN CASE WHEN {finite('+' + cell)} THEN {NUMBER} ELSE {none} END"
        f" WHEN 'text' THEN CASE WHEN {is_text(column)} THEN {TEXT} ELSE {none} END"
        f" WHEN 'blob' THEN {TEXT} ELSE {none} END"
    )


def value_sql(column: SQLiteColumn) -> str:
    """Return the canonical value of a cell as SQL, NULL where it has none."""
    cell = column.sql
    return (
        f"CASE typeof({cell}) WHEN 'integer' THEN {cell}"
        f" WHEN 'real' THEN CASE WHEN {finite('+' + cell)} THEN {cell} END"
        f" WHEN 'text' THEN CASE WHEN {is_text(column)} THEN {cell} END"
        f" WHEN 'blob' THEN isthmus_base64({cell}) END"
    )
