"""Conditions on declared columns (docs/decisions/0020).

A condition is split by row: the tree on columns for rows that are not odd, and the exact tree for the
odd ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus._core.executor import PageRequest
from isthmus._path import Path
from isthmus._query.ast import (
    FALSE,
    AnyObject,
    Between,
    Equal,
    EqualList,
    Exists,
    In,
    Leaf,
    Ordered,
    Predicate,
    leaves,
)
from isthmus._query.split import Pushdown
from isthmus._values import kind_of
from isthmus.backends.postgres.sql.columns import IS_ODD, NOT_ODD, StoredColumn
from isthmus.backends.postgres.sql.filter import ALL, NOTHING, Filter
from isthmus.backends.postgres.sql.leaf import KIND, only_kind, pushdown
from isthmus.backends.postgres.sql.like import inner_pattern
from isthmus.backends.postgres.sql.statement import Parameter, Parameters
from isthmus.backends.postgres.sql.table import IndexedPaths, Table, is_indexed

# The server hashes a list of rows of this length; `= ANY` scans the list for every row.
_HASHED = 200


def condition(
    table: Table, predicate: Predicate, params: Parameters, assumed: tuple[Path, str] | None = None
) -> str:
    """Return the condition of a predicate on any row; `assumed` is as in `Filter`."""
    if not has_columns(table, predicate):
        return Filter(params, table.indexed, assumed).condition(predicate)
    usual, odd = by_row(table, predicate, params, assumed)
    if usual == odd == NOTHING:
        return NOTHING
    return f"(({both(usual, NOT_ODD)}) OR ({both(IS_ODD, odd)}))"


def by_row(
    table: Table, predicate: Predicate, params: Parameters, assumed: tuple[Path, str] | None = None
) -> tuple[str, str]:
    """Return the condition of a predicate on rows that are not odd, and the one on those that are."""
    usual = _ColumnFilter(params, table.indexed, table.columns, assumed).condition(predicate)
    # The odd rows are found by an index of their own.
    return usual, Filter(params, IndexedPaths(), assumed).condition(predicate)


def has_columns(table: Table, predicate: Predicate) -> bool:
    """Return whether a predicate has a leaf on a declared column."""
    return bool(table.columns) and any(leaf.path in table.columns for leaf in leaves(predicate))


def explain_columns(table: Table, request: PageRequest) -> list[str]:
    """Return the fields of a request that have a declared column."""
    paths = [*(leaf.path for leaf in leaves(request.where)), *(key.path for key in request.order or ())]
    return [str(path) for path in dict.fromkeys(paths) if path in table.columns]


def all_columns(table: Table, paths: Sequence[Path]) -> bool:
    """Return whether there are paths and each has a column."""
    return bool(paths) and bool(table.columns) and all(path in table.columns for path in paths)


class _ColumnFilter(Filter):
    """Compiles predicates for rows that are not odd: leaves on declared paths are conditions on columns."""

    def __init__(
        self,
        params: Parameters,
        use_index: IndexedPaths,
        columns: Mapping[Path, StoredColumn],
        assumed: tuple[Path, str] | None,
    ) -> None:
        super().__init__(params, use_index, assumed)
        self._columns = columns

    def _constant(self, leaf: Leaf) -> Predicate:
        stored = self._columns.get(leaf.path)
        if stored is None:
            return super()._constant(leaf)
        if isinstance(leaf, AnyObject | EqualList):
            return FALSE
        if isinstance(leaf, In):
            kind = stored.column.kind
            return leaf if any(kind_of(operand) == kind for operand in leaf.values) else FALSE
        return leaf if only_kind(leaf) in (None, KIND[stored.column.kind]) else FALSE

    def _has_rare_types(self, path: Path) -> bool:
        return path not in self._columns and super()._has_rare_types(path)

    def _reads_document(self, leaf: Leaf) -> bool:
        return leaf.path not in self._columns and super()._reads_document(leaf)

    def _shares(self, leaf: Leaf, use_index: bool) -> bool:
        return leaf.path not in self._columns and super()._shares(leaf, use_index)

    def _leaf(self, leaf: Leaf, use_index: bool) -> str:
        stored = self._columns.get(leaf.path)
        if stored is None:
            return super()._leaf(leaf, use_index)
        if self._constant(leaf) == FALSE:  # within `any`, whose conditions are not folded before
            return NOTHING
        if use_index and self._has_other_index(leaf, stored):
            return super()._leaf(leaf, use_index)
        if isinstance(leaf, Exists):
            return f"({stored.sql} IS NOT NULL)"
        if stored.column.kind == "text":
            return self._on_text(leaf, stored, use_index)
        return self._on_scalar(leaf, stored.sql, stored.column.kind)

    def _has_other_index(self, leaf: Leaf, stored: StoredColumn) -> bool:
        """Return whether an index on the data serves a leaf, and none on the column does."""
        path, indexed = leaf.path, self._indexed
        if is_indexed(indexed, stored):
            return False
        if isinstance(leaf, Equal | In):
            return indexed.every_element or path in indexed.elements
        return path in indexed.substrings and inner_pattern(leaf) is not None

    def _on_text(self, leaf: Leaf, stored: StoredColumn, use_index: bool) -> str:
        if isinstance(leaf, In):
            leaf = In(leaf.path, tuple(value for value in leaf.values if isinstance(value, str)))
        if pushdown(leaf) is not Pushdown.EXACT:
            return f"({stored.sql} IS NOT NULL)"
        exact = self._on_attribute(leaf, stored.sql)
        prefix = self._compiler.compile(leaf).text_prefix
        if not use_index or prefix is None or leaf.path not in self._indexed.texts:
            return exact
        return f"({prefix(stored.text_prefix)} AND {exact})"

    def _on_scalar(self, leaf: Leaf, column: str, kind: str) -> str:
        """Return the condition on a column of numbers or truth values."""
        is_number = kind == "number"

        def bind(value: Any) -> Parameter:
            return self._params.numeric(value) if is_number else self._params.bool(value)

        match leaf:
            case Equal(_, operand):
                return f"({column} = {bind(operand)})"
            case In(_, operands):
                values: list[Any] = [operand for operand in operands if kind_of(operand) == kind]
                if not is_number:
                    return f"({' OR '.join(f'{column} = {bind(value)}' for value in dict.fromkeys(values))})"
                array = self._params.numerics(values)
                one_of = f"= ANY({array})" if len(values) <= _HASHED else f"IN (SELECT unnest({array}))"
                return f"({column} {one_of})"
            case Ordered(_, op, operand):
                return f"({column} {op.value} {bind(operand)})"
            case Between(_, low, high):
                return f"({column} >= {bind(low)} AND {column} <= {bind(high)})"
            case _:
                raise AssertionError(f"{type(leaf).__name__} has no operand of kind {kind}")


def both(first: str, *others: str) -> str:
    """Return the conjunction of conditions, without those that are always true."""
    # What is false stays: the others may have bound operands, each of which needs its placeholder.
    return " AND ".join(part for part in (first, *others) if part != ALL) or ALL
