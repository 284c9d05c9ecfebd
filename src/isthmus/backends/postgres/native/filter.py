"""Compiles predicates to conditions on the columns of a native table (meaning §3 and §8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus._path import Path, Root
from isthmus._query.ast import (
    And,
    AnyObject,
    Between,
    Equal,
    EqualList,
    Exists,
    In,
    Leaf,
    Not,
    Or,
    Ordered,
    Predicate,
    StartsWith,
    leaves,
)
from isthmus._query.split import Pushdown
from isthmus._values import JSON
from isthmus.backends._tables.binding import (
    bind_key,
)
from isthmus.backends._tables.column import Kind, TableColumn
from isthmus.backends._tables.keys import is_plain_key, key_of
from isthmus.backends._tables.leaves import ColumnComparison, canonical_kind, column_test
from isthmus.backends.postgres.native.catalog import NativeTable
from isthmus.backends.postgres.native.columns import (
    bind,
    bind_all,
    is_comparable,
    source,
    text_of,
    type_of,
    valid,
    version_of,
)
from isthmus.backends.postgres.sql.filter import MOST_LEAVES, Filter
from isthmus.backends.postgres.sql.leaf import KIND, LeafCompiler, only_kind
from isthmus.backends.postgres.sql.leaf import pushdown as json_pushdown
from isthmus.backends.postgres.sql.like import like_literal
from isthmus.backends.postgres.sql.statement import Parameters, literal
from isthmus.backends.postgres.sql.table import IndexedPaths
from isthmus.backends.postgres.sql.unpacking import UnpackedRow

ALL, NOTHING = "TRUE", "FALSE"
# A number in jsonb with more digits than a float has: whether it equals a float is not known to the server.
_LONG_NUMBER = "[0-9][0-9.]{16}"
_EXACT_ELEMENTS = (Kind.INTEGER, Kind.BOOL, Kind.TEXT, Kind.UUID)


def pushdown(table: NativeTable, leaf: Leaf) -> Pushdown:
    """Return how closely the SQL of a leaf matches its meaning."""
    path = leaf.path
    if path.root is Root.ID:
        plain = len(table.table.key) == 1 and is_plain_key(table.table.key_columns[0])
        if isinstance(leaf, Equal | In | Exists) or plain:
            return json_pushdown(leaf)
        return Pushdown.NONE
    if path.root is Root.VERSION:
        return json_pushdown(leaf)
    if path.root is not Root.DATA:
        return Pushdown.EXACT  # nothing is there
    if not path.keys:
        return Pushdown.NONE
    column = table.table.by_name.get(path.keys[0])
    if column is None:
        return Pushdown.EXACT
    kind = canonical_kind(column)
    if kind is None:
        return _of_json(table, column, leaf)
    if len(path.keys) > 1 or column_test(column, leaf) is not None:
        return Pushdown.EXACT
    return json_pushdown(leaf) if is_comparable(column) and kind == "text" else Pushdown.SUPERSET


def _of_json(table: NativeTable, column: TableColumn, leaf: Leaf) -> Pushdown:
    """Return the pushdown of a leaf in a column of JSON or an array."""
    if column.kind is Kind.ARRAY:
        exact = column.element is not None and column.element.kind in _EXACT_ELEMENTS
        return json_pushdown(leaf) if exact else Pushdown.SUPERSET
    if column.name not in table.binary_json:
        return Pushdown.SUPERSET  # text that may not even be JSON for the server: it has a value at least
    given = json_pushdown(leaf)
    return Pushdown.SUPERSET if given is Pushdown.EXACT and _has_number(leaf) else given


def _has_number(leaf: Leaf) -> bool:
    match leaf:
        case Equal(_, value) | EqualList(_, value) | Ordered(_, _, value) | Between(_, value, _):
            return _contains_number(value)
        case In(_, values):
            return any(map(_contains_number, values))
        case AnyObject(_, where):
            return any(map(_has_number, leaves(where)))
    return False


def _contains_number(value: JSON) -> bool:
    if isinstance(value, list):
        return any(map(_contains_number, value))
    if isinstance(value, dict):
        return any(map(_contains_number, value.values()))
    return isinstance(value, int | float) and not isinstance(value, bool)


class NativeFilter:
    """Compiles predicates and binds their operands.

    A condition may be NULL where it is false; only under `NOT` does that matter.
    """

    def __init__(self, table: NativeTable, params: Parameters) -> None:
        self._table = table
        self._params = params
        self._unpacked: UnpackedRow | None = None
        self._long_numbers: dict[str, str] = {}
        """While there is an unpacked row: the conditions that a column holds a long number."""

    def condition(self, predicate: Predicate) -> str:
        """Return the SQL condition of a predicate."""
        terms = predicate.terms if isinstance(predicate, And) else (predicate,)
        found = {number: self._json_leaves(term) for number, term in enumerate(terms)}
        if sum(map(len, found.values())) <= MOST_LEAVES:
            return self._condition(predicate)
        plain = [self._condition(term) for number, term in enumerate(terms) if not found[number]]
        rest = tuple(term for number, term in enumerate(terms) if found[number])
        return f"({' AND '.join([*plain, self._unpack(And(rest))])})"

    def _json_leaves(self, predicate: Predicate) -> list[tuple[TableColumn, Leaf]]:
        """Return the leaves whose conditions read a column of JSON or an array, with their columns."""
        by_name = self._table.table.by_name
        found = []
        for leaf in leaves(predicate):
            keys = leaf.path.keys if leaf.path.root is Root.DATA else ()
            column = by_name.get(keys[0]) if keys else None
            if column is not None and canonical_kind(column) is None and self._reads_json(column, leaf):
                found.append((column, leaf))
        return found

    def _reads_json(self, column: TableColumn, leaf: Leaf) -> bool:
        """Return whether the condition reads the value, and not only whether there is one."""
        if pushdown(self._table, leaf) is not Pushdown.SUPERSET:
            return True
        return column.name in self._table.binary_json and json_pushdown(leaf) is Pushdown.EXACT

    def _unpack(self, predicate: Predicate) -> str:
        """Return the condition on columns of JSON that are unpacked once (docs/decisions/0024)."""
        found = self._json_leaves(predicate)
        columns = list({column.name: column for column, _ in found}.values())
        row = self._unpacked = UnpackedRow([leaf.path for _, leaf in found], "o.")
        self._long_numbers = {column.name: f"o.n{number}" for number, column in enumerate(columns)}
        where = self._condition(predicate)
        self._unpacked = None
        numbers = [f"{_has_long_number(column)} AS n{number}" for number, column in enumerate(columns)]
        values = ", ".join([f"{_as_document(columns)} AS data", *numbers])
        return (
            f"EXISTS (SELECT 1 FROM (SELECT {values} OFFSET 0) AS o CROSS JOIN LATERAL {row.source()}"
            f" WHERE {where})"
        )

    def _condition(self, predicate: Predicate) -> str:
        match predicate:
            case And(terms):
                return f"({' AND '.join(map(self._condition, terms))})" if terms else ALL
            case Or(terms):
                return f"({' OR '.join(map(self._condition, terms))})" if terms else NOTHING
            case Not(term):
                return f"({self._condition(term)} IS NOT TRUE)"
            case leaf:
                return self._leaf(leaf)

    def _leaf(self, leaf: Leaf) -> str:
        path = leaf.path
        if path.root is Root.ID:
            return self._on_id(leaf)
        if path.root is Root.VERSION:
            return self._on_text(leaf, version_of(self._table))
        column = self._table.table.by_name.get(path.keys[0]) if path.root is Root.DATA else None
        if column is None:
            return NOTHING
        if canonical_kind(column) is None:
            return self._in_json(column, leaf)
        if len(path.keys) > 1:
            return NOTHING
        test = column_test(column, leaf)
        if isinstance(test, ColumnComparison):
            return self.compare(column, test)
        if test is False:
            return NOTHING
        if is_comparable(column) and canonical_kind(column) == "text":
            return self._on_text(leaf, text_of(column))
        return f"{source(column)} IS NOT NULL"

    def compare(self, column: TableColumn, test: ColumnComparison) -> str:
        """Return a comparison of a column with bounds, in the form that its index serves."""
        value, condition = source(column), valid(column)
        parts = [self._term(column, op, bound) for op, bound in test.terms] or [f"{value} IS NOT NULL"]
        if condition is not None:
            parts.append(condition)
        return f"({' AND '.join(parts)})" if len(parts) > 1 else parts[0]

    def _term(self, column: TableColumn, op: str, bound: Any) -> str:
        value, type = source(column), type_of(column)
        if op == "in":
            found = f"{value} = ANY({bind_all(self._params, bound, type)})"
        elif op == "=":
            found = f"{value} = {bind(self._params, bound, type)}"
        elif column.kind is Kind.TEXT and not column.code_point_order:
            return f'{value}::text COLLATE "C" {op} {bind(self._params, bound, "text")}'
        else:
            return f"{value} {op} {bind(self._params, bound, type)}"
        if column.exact_equality:
            return found
        exactly = (
            f"= ANY({bind_all(self._params, bound, 'text')})"
            if op == "in"
            else f"= {bind(self._params, bound, 'text')}"
        )
        return f'({found} AND {value}::text COLLATE "C" {exactly})'

    def by_key(self, keys: Sequence[Sequence[JSON]]) -> str:
        """Return the condition that a row has one of some keys, as the store's own equality finds them."""
        columns = self._table.table.key_columns
        bound = [
            [bind_key(column, value) for value in values]
            for column, values in zip(columns, zip(*keys, strict=True), strict=True)
        ]
        if len(keys) == 1:
            parts = [
                f"{_key_operand(column)} = {bind(self._params, values[0], _key_type(column))}"
                for column, values in zip(columns, bound, strict=True)
            ]
            return " AND ".join(parts)
        arrays = [
            bind_all(self._params, values, _key_type(column))
            for column, values in zip(columns, bound, strict=True)
        ]
        if len(columns) == 1:
            return f"{_key_operand(columns[0])} = ANY({arrays[0]})"
        names = ", ".join(map(_key_operand, columns))
        return f"({names}) IN (SELECT * FROM unnest({', '.join(arrays)}))"

    def has_key(self, key: Sequence[JSON]) -> str:
        """Return the condition that a row has exactly this key."""
        exact = [
            f'{source(column)}::text COLLATE "C" = {bind(self._params, bind_key(column, value), "text")}'
            for column, value in zip(self._table.table.key_columns, key, strict=True)
            if not column.exact_equality
        ]
        return " AND ".join([self.by_key([key]), *exact])

    def _on_id(self, leaf: Leaf) -> str:
        match leaf:
            case Exists():
                return ALL
            case Equal(_, value):
                return self._has_id([value])
            case In(_, values):
                return self._has_id(values)
        if only_kind(leaf) != "string":
            return NOTHING
        return self._on_text(leaf, text_of_key(self._table.table.key_columns[0]))

    def _has_id(self, ids: Sequence[Any]) -> str:
        """Return the condition that the row's id is one of some texts."""
        known = [key_of(self._table.table, id) for id in ids if isinstance(id, str)]
        keys = [key for key in known if key is not None]
        if not keys:
            return NOTHING
        if all(column.exact_equality for column in self._table.table.key_columns):
            return f"({self.by_key(keys)})"
        return f"({' OR '.join(self.has_key(key) for key in keys)})"

    def _on_text(self, leaf: Leaf, text: str) -> str:
        """Return a leaf on an expression of canonical text, which may be NULL."""
        if isinstance(leaf, Exists):
            return f"({text}) IS NOT NULL"
        # The column's own collation may be one that the server searches no text by.
        text = f'(({text}) COLLATE "C")'
        match leaf:
            case Equal(_, str() as operand):
                return f"({text} = {self._params.text(operand)})"
            case In(_, operands):
                texts = self._params.texts([o for o in operands if isinstance(o, str)])
                return f"({text} = ANY({texts}))"
            case StartsWith(_, prefix):  # in the form that an index by code point serves
                return f"({text} LIKE {self._params.text(like_literal(prefix) + '%')})"
        if only_kind(leaf) not in (None, KIND["text"]):
            return NOTHING
        return LeafCompiler(self._params).compile(leaf).condition("NULL::jsonb", text, "'string'")

    def _in_json(self, column: TableColumn, leaf: Leaf) -> str:
        """Return a leaf in a column of JSON or an array, as on a path into a record's data."""
        if not self._reads_json(column, leaf):
            return f"{source(column)} IS NOT NULL"
        if self._unpacked is not None:
            found = Filter(self._params, IndexedPaths(), unpacked=self._unpacked).condition(leaf)
            long_number = self._long_numbers[column.name]
        else:
            long_number = _has_long_number(column)
            inner = Filter(self._params, IndexedPaths(), row="o.").condition(leaf)
            data = f"SELECT {_as_document([column])} AS data OFFSET 0"
            found = f"EXISTS (SELECT 1 FROM ({data}) AS o WHERE {inner})"
        if pushdown(self._table, leaf) is not Pushdown.EXACT:
            found = f"({found} OR {long_number})"
        return f"({source(column)} IS NOT NULL AND {found})"


def _as_document(columns: Sequence[TableColumn]) -> str:
    """Return columns as one document, in which a path of a record leads to a value."""
    # A function takes at most 100 arguments.
    parts = [
        f"jsonb_build_object({literal(column.name)}, to_jsonb({_as_json(column)}))" for column in columns
    ]
    return " || ".join(parts)


def _has_long_number(column: TableColumn) -> str:
    return f"{source(column)}::text ~ '{_LONG_NUMBER}'"


# Not every text of an id is one that such a type admits: a key is looked up by its text.
_BY_TEXT = (Kind.OTHER, Kind.INTERVAL)


def _key_operand(column: TableColumn) -> str:
    return f'(({text_of(column)}) COLLATE "C")' if column.kind in _BY_TEXT else source(column)


def _key_type(column: TableColumn) -> str:
    return "text" if column.kind in _BY_TEXT else type_of(column)


def _as_json(column: TableColumn) -> str:
    element = column.element
    if element is None or element.kind in (Kind.INTEGER, Kind.BOOL):
        return source(column)
    return f"{source(column)}::text[]"


def text_of_key(column: TableColumn) -> str:
    """Return the canonical text of a key of one column."""
    if column.kind in (Kind.INTEGER, Kind.BOOL):
        return f"{source(column)}::text"
    return text_of(column)


def missing_column(table: NativeTable, path: Path) -> bool:
    """Return whether no record has a value at a path because the table has no such column."""
    if path.root is Root.DATA:
        return bool(path.keys) and path.keys[0] not in table.table.by_name
    return path.root in (Root.METADATA, Root.CREATED_AT, Root.UPDATED_AT)
