"""Compiles predicates to SQL conditions (meaning §3).

A leaf is a condition on the one value at its path or, where a list is on the path, on any of the
values in the list. A condition may be NULL where it is false. Only under `NOT` does that matter, so
only there NULL becomes false; elsewhere this would keep the planner from using indexes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeGuard

from isthmus._path import Path, Root
from isthmus._query.ast import (
    FALSE,
    LEAVES,
    TRUE,
    And,
    AnyObject,
    Equal,
    EqualList,
    Exists,
    In,
    Leaf,
    Not,
    Or,
    Predicate,
    leaves,
)
from isthmus._query.normalize import normalize
from isthmus._query.split import positive_part
from isthmus._values import kind_of
from isthmus.backends.postgres.sql.fields import (
    MOST_CONTAINED_KEYS,
    ROW,
    FieldSQL,
    attribute,
    data_has_nested_list,
    field_of,
    nest,
    shapes_of,
)
from isthmus.backends.postgres.sql.leaf import LeafCompiler, LeafSQL, only_kind
from isthmus.backends.postgres.sql.like import inner_pattern
from isthmus.backends.postgres.sql.statement import Parameter, Parameters, literal
from isthmus.backends.postgres.sql.table import IndexedPaths, is_rare
from isthmus.backends.postgres.sql.unpacking import UnpackedRow

# Limits of one `@>` condition; each key of a path doubles the number of shapes to search for.
_MOST_CONTAINED = 50
_DEEPEST_CONTAINED = 3

# Each leaf unpacks the row's document again. Beyond these numbers it is unpacked once for all of them, which
# costs twice the time on short documents, and no index serves them (docs/decisions/0024).
MOST_LEAVES = 4
_MOST_INDEXED_LEAVES = 16

ALL = "TRUE"
NOTHING = "FALSE"


class Filter:
    """Compiles predicates and binds their operands.

    `assumed` is a path and the shape that every row is known to have there, so that conditions that
    cannot hold, or always hold, are left out. `row` stands before the column that holds the data;
    `unpacked` has the expressions of a path, if they are not of that column.
    """

    def __init__(
        self,
        params: Parameters,
        use_index: IndexedPaths,
        assumed: tuple[Path, str] | None = None,
        *,
        row: str = ROW,
        unpacked: UnpackedRow | None = None,
    ) -> None:
        self._params = params
        self._indexed = use_index
        self._compiler = LeafCompiler(params)
        self._assumed = assumed
        self._row = row
        self._unpacked = unpacked

    def condition(self, predicate: Predicate) -> str:
        """Return the SQL condition of a predicate."""
        # Constants first, before anything is bound: the server refuses values without a placeholder.
        folded = normalize(self._fold(predicate))
        inline, rest = self._split(folded.terms if isinstance(folded, And | Or) else (folded,))
        if not rest:
            return self._condition(folded, use_index=True)
        # An index serves a term of an AND, but no OR that has a term without one.
        is_or = isinstance(folded, Or)
        conditions = [self._condition(term, use_index=not is_or) for term in inline]
        conditions.append(self._unpack(Or(tuple(rest)) if is_or else And(tuple(rest))))
        return f"({(' OR ' if is_or else ' AND ').join(conditions)})"

    def _split(self, terms: Sequence[Predicate]) -> tuple[list[Predicate], list[Predicate]]:
        """Return the terms whose leaves may read the row as it is stored, and the others."""
        inline: list[Predicate] = []
        rest: list[Predicate] = []
        left = {True: _MOST_INDEXED_LEAVES, False: MOST_LEAVES}
        for term in terms:
            paths = self._paths_read(term)
            indexed = all(map(self._indexed.has, paths))
            if len(paths) <= left[indexed]:
                left[indexed] -= len(paths)
                inline.append(term)
            else:
                rest.append(term)
        return inline, rest

    def _unpack(self, predicate: Predicate) -> str:
        """Return the condition of a predicate on the unpacked row, which no index serves."""
        inner = copy.copy(self)
        row = inner._unpacked = UnpackedRow(self._paths_read(predicate), self._row)
        where = inner._condition(predicate, use_index=False)
        return f"EXISTS (SELECT 1 FROM {row.source()} WHERE {where})"

    def _paths_read(self, predicate: Predicate) -> list[Path]:
        """Return the paths into the documents, one for each leaf that reads them."""
        return [leaf.path for leaf in leaves(predicate) if self._reads_document(leaf)]

    def _reads_document(self, leaf: Leaf) -> bool:
        return bool(leaf.path.keys)

    def _fold(self, predicate: Predicate) -> Predicate:
        """Return the predicate with constants in place of leaves that are the same for every row."""
        match predicate:
            case And(terms):
                return And(tuple(map(self._fold, terms)))
            case Or(terms):
                return Or(tuple(map(self._fold, terms)))
            case Not(term):
                return Not(self._fold(term))
            case leaf:
                return self._constant(leaf)

    def _constant(self, leaf: Leaf) -> Predicate:
        kind = only_kind(leaf)
        if leaf.path.root is Root.SCORE:  # no record has one here
            return FALSE
        if attribute(leaf.path) is not None:  # never missing, always text
            if isinstance(leaf, Exists):
                return TRUE
            return FALSE if kind not in (None, "string") else leaf
        if not self._is_assumed(leaf.path):
            return leaf
        assert self._assumed is not None
        shape = self._assumed[1]
        return FALSE if shape == "null" or (shape != "array" and kind not in (None, shape)) else leaf

    def _condition(self, predicate: Predicate, use_index: bool) -> str:
        """Return the condition of a predicate; `use_index`: in the form that an index can serve."""
        match predicate:
            case And(terms):
                return f"({' AND '.join(self._condition(t, use_index) for t in terms)})" if terms else ALL
            case Or(terms):
                return f"({' OR '.join(self._some_of(terms, use_index))})" if terms else NOTHING
            case Not(Exists(path)) if use_index and self._has_rare_types(path) and not self._is_assumed(path):
                return self._is_null(self._field(path))
            case Not(term):
                return f"({self._condition(term, use_index=False)} IS NOT TRUE)"
            case leaf:
                return self._leaf(leaf, use_index)

    def _some_of(self, terms: Sequence[Predicate], use_index: bool) -> list[str]:
        """Return conditions of which one must hold; leaves on one path share their condition on lists."""
        # Some value satisfies one of the leaves exactly if one of the leaves is satisfied by some value.
        same_path: dict[Path, list[Leaf]] = {}
        parts: list[str] = []
        for term in terms:
            if isinstance(term, LEAVES) and self._shares(term, use_index):
                same_path.setdefault(term.path, []).append(term)
            else:
                parts.append(self._condition(term, use_index))
        for path, alternatives in same_path.items():
            if len(alternatives) == 1:
                parts.append(self._leaf(alternatives[0], use_index))
                continue
            field = self._field(path)
            compiled = [self._compiler.compile(leaf) for leaf in alternatives]
            parts += [
                self._scalar(*pair, field, use_index) for pair in zip(alternatives, compiled, strict=True)
            ]
            has_list = self._has_list(field, path, use_index)
            parts.append(f"({has_list} AND {self._any_value(field, *compiled)})")
        return parts

    def _shares(self, leaf: Leaf, use_index: bool) -> bool:
        """Return whether a leaf has the usual two conditions, on one value and on a list's values."""
        path, indexed = leaf.path, self._indexed
        if attribute(path) is not None or not path.keys or self._is_assumed(path):
            return False
        if use_index and (indexed.every_element or path in indexed.elements):
            return False
        return not isinstance(leaf, EqualList | AnyObject)

    def _has_list(self, field: FieldSQL, path: Path, use_index: bool) -> str:
        """Return the condition that a list is on the path, in the form that its index serves."""
        if use_index and self._indexed.has_rare_types(path):
            return f"({is_rare(field)} AND {field.shape} = 'array')"
        return field.has_list

    def _has_rare_types(self, path: Path) -> bool:
        return self._indexed.has_rare_types(path)

    def _is_assumed(self, path: Path) -> bool:
        return self._assumed is not None and self._assumed[0] == path

    def _field(self, path: Path) -> FieldSQL:
        return field_of(path, self._row) if self._unpacked is None else self._unpacked.field(path)

    def _any_object(self, leaf: AnyObject) -> str:
        """Return the condition that a predicate holds for one of the objects at a path."""
        inner = Filter(self._params, IndexedPaths(), row="o.").condition(leaf.where)
        # Without OFFSET the server would extract the object again for each condition on it. The values
        # come from outside of the scope of this `o`, so that they can come from another one.
        objects = (
            f"SELECT w.v AS data FROM {self._field(leaf.path).values()} AS w"
            " WHERE jsonb_typeof(w.v) = 'object' OFFSET 0"
        )
        return f"EXISTS (SELECT 1 FROM ({objects}) AS o WHERE {inner})"

    def _by_index_superset(self, leaf: AnyObject) -> str | None:
        """Return the condition on separate paths that an index serves; None if none does."""
        superset = positive_part(leaf)
        indexed = self._indexed
        paths = {inner.path for inner in leaves(superset)}
        if not indexed.every_element and not any(
            indexed.has_rare_types(path) or path in indexed.elements for path in paths
        ):
            return None
        return self._condition(superset, use_index=True)

    def _leaf(self, leaf: Leaf, use_index: bool) -> str:
        if isinstance(leaf, AnyObject):
            superset = self._by_index_superset(leaf) if use_index else None
            exact = self._any_object(leaf)
            return exact if superset is None else f"({superset} AND {exact})"
        path = leaf.path
        if isinstance(leaf, EqualList):
            return f"({self._field(path).value} = {self._params.json(leaf.value)})"
        text = attribute(path)
        if text is not None:
            return self._on_attribute(leaf, text)
        field = self._field(path)
        leaf_sql = self._compiler.compile(leaf)
        if self._is_assumed(path) and self._assumed is not None and self._assumed[1] == "array":
            return self._any_value(field, leaf_sql)
        if use_index and not self._is_assumed(path):
            condition = self._by_index_containment(leaf, field, leaf_sql)
            if condition is not None:
                return condition
            if leaf_sql.at_least is not None and field.keys and not self._indexed.has_rare_types(path):
                return self._above(leaf_sql, field, *leaf_sql.at_least(field.value, field.kind))
        one = self._scalar(leaf, leaf_sql, field, use_index)
        if self._is_assumed(path) or not field.keys:
            return one
        return f"({one} OR ({self._has_list(field, path, use_index)} AND {self._any_value(field, leaf_sql)}))"

    def _above(self, leaf_sql: LeafSQL, field: FieldSQL, bound: str, rest: str) -> str:
        """Return a range with a lower bound; a row that is below the bound costs one comparison."""
        any_value = self._any_value(field, leaf_sql)
        reached = f"({bound} AND (({rest}) OR ({field.kind} = 'array' AND {any_value})))"
        if len(field.keys) == 1:
            return reached
        return f"({reached} OR ({field.has_list_above} AND {any_value}))"

    def _by_index_containment(self, leaf: Leaf, field: FieldSQL, leaf_sql: LeafSQL) -> str | None:
        """Return the condition that a GIN index serves; None if none serves this leaf."""
        indexed = self._indexed
        operands: tuple[Any, ...] = ()
        match leaf:
            case Equal(_, value) if not isinstance(value, dict):
                operands = (value,)
            case In(_, values) if len(values) <= _MOST_CONTAINED:
                operands = values
        if not operands or not field.keys:
            return None
        if leaf.path in indexed.elements:
            # `@>` finds the value itself and elements of a list, one level deep.
            known = f"{field.value} @> ANY({self._params.jsons(operands)})"
            deeper = f"({field.has_list_above} OR {field.has_nested_list})"
            return f"({known} OR ({deeper} AND {self._any_value(field, leaf_sql)}))"
        if indexed.every_element and leaf.path.root is Root.DATA and len(field.keys) <= _DEEPEST_CONTAINED:
            shapes = [shape for operand in operands for shape in shapes_of(field.keys, operand)]
            known = f"{field.column} @> ANY({self._params.jsons(shapes)})"
            deeper = f"{data_has_nested_list()} AND {field.has_nested_list}"
            return f"({known} OR ({deeper} AND {self._any_deep_value(field, leaf_sql)}))"
        return None

    def _scalar(self, leaf: Leaf, leaf_sql: LeafSQL, field: FieldSQL, use_index: bool) -> str:
        """Return the condition on the value at the path, with the condition of its partial index."""
        indexed = self._indexed
        if use_index and isinstance(leaf, In) and leaf_sql.kind is None and indexed.has_rare_types(leaf.path):
            return self._by_kind(leaf, field)
        if self._by_containment(leaf, field, use_index):
            # Half the cost of extracting the value to compare it; as text, a list would be written out.
            return f"{field.column} @> {self._params.json(nest(field.keys, leaf.value))}"
        condition = leaf_sql.condition(field.value, field.text, field.kind)
        if not use_index:
            return condition
        more: list[str] = []
        if leaf.path in indexed.texts and leaf_sql.text_prefix is not None:
            more.append(f"{leaf_sql.text_prefix(field.text_prefix)} AND {field.kind} = 'string'")
        elif leaf_sql.kind == "number" and leaf.path in indexed.numbers:
            more.append(f"{field.kind} = 'number'")
        elif leaf_sql.kind in ("boolean", "object") and indexed.has_rare_types(leaf.path):
            more.append(f"{is_rare(field)} AND {field.shape} = '{leaf_sql.kind}'")
        if leaf.path in indexed.substrings and (inside := inner_pattern(leaf)) is not None:
            more.append(f"{field.text} LIKE {self._params.text(inside)} AND {field.kind} = 'string'")
        return "(" + " AND ".join([*more, condition]) + ")" if more else condition

    def _by_containment(self, leaf: Leaf, field: FieldSQL, use_index: bool) -> TypeGuard[Equal]:
        """Return whether containment decides a leaf: an equality with no object, which no index serves."""
        if not isinstance(leaf, Equal) or isinstance(leaf.value, dict) or not field.keys:
            return False
        return not (use_index and self._indexed.has_rare_types(leaf.path))

    def _by_kind(self, leaf: In, field: FieldSQL) -> str:
        """Return `in` as one condition for each type of its operands, since each type has its own index."""
        kinds: dict[str, list[Any]] = {}
        for operand in leaf.values:
            kinds.setdefault(kind_of(operand), []).append(operand)
        parts = [In(leaf.path, tuple(operands)) for operands in kinds.values()]
        conditions = [
            self._scalar(part, self._compiler.compile(part), field, use_index=True) for part in parts
        ]
        return f"({' OR '.join(conditions)})"

    def _any_value(self, field: FieldSQL, *leaves: LeafSQL) -> str:
        """Return the condition that some value in a list satisfies one of the leaves."""
        if self._unpacked is not None and self._unpacked.is_shared(field):
            return self._unpacked.any_value(field, _inner(leaves))
        alone = leaves[0].jsonpath if len(leaves) == 1 else None
        if len(leaves) == 1 and leaves[0].equals and len(field.keys) <= MOST_CONTAINED_KEYS:
            shapes = shapes_of(field.keys, *leaves[0].equals)[1:]
            first = " OR ".join(f"{field.column} @> {self._params.json(shape)}" for shape in shapes)
        elif alone is None:
            first = f"EXISTS (SELECT 1 FROM {field.first_values()} AS e WHERE {_inner(leaves)})"
        else:
            first = _exists(field.column, field.jsonpath, *alone)
        return f"({first} OR ({field.has_nested_list} AND {self._any_deep_value(field, *leaves)}))"

    def _any_deep_value(self, field: FieldSQL, *leaves: LeafSQL) -> str:
        """Return the condition that some value at any depth of lists satisfies one of the leaves."""
        alone = leaves[0].jsonpath if len(leaves) == 1 else None
        if alone is None:
            return f"EXISTS (SELECT 1 FROM {field.deep_values()} AS e WHERE {_inner(leaves)})"
        return _exists(field.column, field.deep_jsonpath, *alone)

    def _is_null(self, field: FieldSQL) -> str:
        """Return `is_null` in the form that the index of the rare types serves."""
        other = is_rare(field)
        return (
            f"(({other} AND {field.shape} = 'null') OR ({other} AND {field.shape} = 'array'"
            f" AND NOT EXISTS (SELECT 1 FROM {field.values()} AS e)))"
        )

    def _on_attribute(self, leaf: Leaf, text: str) -> str:
        """Return the condition on a record attribute, which is text and never missing."""
        params = self._params
        match leaf:
            case Equal(_, str() as operand):
                return f"({text} = {params.text(operand)})"
            case In(_, operands):
                return f"({text} = ANY({params.texts([o for o in operands if isinstance(o, str)])}))"
            case _:
                return self._compiler.compile(leaf).condition("NULL::jsonb", text, "'string'")


def _exists(column: str, jsonpath: str, condition: str, variables: Parameter | None) -> str:
    """Return the condition that some value that a jsonpath reaches satisfies a jsonpath filter."""
    path = literal(f"lax {jsonpath} ? ({condition})")
    return f"jsonb_path_exists({column}, {path}{f', {variables}' if variables else ''})"


def _inner(leaves: Sequence[LeafSQL]) -> str:
    return " OR ".join(
        leaf_sql.condition("e.v", "(e.v #>> '{}')", "jsonb_typeof(e.v)") for leaf_sql in leaves
    )
