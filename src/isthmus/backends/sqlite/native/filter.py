"""Predicates on cells as SQL: each leaf exact, and in a form that an index serves where there is one."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson

from isthmus._path import Path, Root
from isthmus._query.ast import (
    And,
    Between,
    Equal,
    In,
    Leaf,
    Like,
    Ordered,
    Predicate,
    StartsWith,
    TextMatch,
    all_leaves,
)
from isthmus._query.evaluate import matches
from isthmus._query.text import parse_like
from isthmus._record import Record, make_record
from isthmus._values import JSON, kind_of
from isthmus.backends._tables.binding import (
    parse_bytes,
)
from isthmus.backends._tables.keys import key_of
from isthmus.backends._tables.values import (
    NoCanonicalFormError,
)
from isthmus.backends.sqlite.fields import reads_numbers_exactly
from isthmus.backends.sqlite.filter import FilterCompiler, join
from isthmus.backends.sqlite.native.columns import Affinity, SQLiteColumn, read_cell
from isthmus.backends.sqlite.native.functions import row_arguments
from isthmus.backends.sqlite.native.keys import id_sql, key_condition, same_text
from isthmus.backends.sqlite.native.table import SQLiteTable, id_of_cells
from isthmus.backends.sqlite.statement import Binder
from isthmus.errors import UnsupportedError

MAX_FLOAT = "1.7976931348623157e308"
_MAX_BYTES_OPERANDS = 500
# Characters above which GLOB costs more than our function.
_SHORT = 200


def finite(value: str) -> str:
    """Return the condition that a real is no infinity."""
    return f"{value} BETWEEN -{MAX_FLOAT} AND {MAX_FLOAT}"


def is_text(column: SQLiteColumn) -> str:
    """Return the condition that a text cell is a text.

    Short ones of ASCII, as most are, need no call of our function: as many characters as bytes, no NUL
    and nothing but printable ones.
    """
    cell, content = column.sql, f"CAST({column.sql} AS BLOB)"
    return (
        f"CASE WHEN length({content}) = length({cell}) AND length({cell}) < {_SHORT}"
        f" AND {cell} NOT GLOB '*[^ -~]*' THEN 1 ELSE isthmus_utf8({content}) END"
    )


def version_sql(table: SQLiteTable) -> str | None:
    """Return the version of a row as SQL; None if the table has none."""
    column = None if table.version is None else table.column(table.version)
    if column is None:
        return None
    return (
        f"CASE typeof({column.sql}) WHEN 'integer' THEN CAST({column.sql} AS TEXT)"
        f" WHEN 'text' THEN CASE WHEN {is_text(column)} THEN {column.sql} END END"
    )


def narrows(table: SQLiteTable, where: Predicate) -> bool:
    """Return whether an index, other than the key's, serves a range that all matching rows are in.

    Without statistics SQLite takes no range for selective, and would go through all rows by their key.
    """
    terms = where.terms if isinstance(where, And) else (where,)
    for term in terms:
        if isinstance(term, Ordered | Between | StartsWith | Like) and len(term.path.keys) == 1:
            column = table.column(term.path.keys[0])
            leading = column is not None and column.name in table.leading and column.name != table.key[0]
            if leading and CellFilter(table, Binder())._by_column(term) is not None:
                return True
    return False


class CellFilter(FilterCompiler):
    """Compiles the predicates of one statement on a table."""

    def __init__(self, table: SQLiteTable, binder: Binder) -> None:
        super().__init__(binder, frozenset())
        self._table = table

    def column(self, path: Path) -> SQLiteColumn | None:
        """Return the column at a path; None if no row has a value there."""
        if path.root is not Root.DATA or len(path.keys) != 1:
            return None
        return self._table.column(path.keys[0])

    def _by_evaluator(self, predicate: Predicate) -> str:
        found = all_leaves(predicate)
        names = dict.fromkeys(leaf.path.keys[0] for leaf in found if self.column(leaf.path) is not None)
        columns = [column for name in names if (column := self._table.column(name)) is not None]
        version = self._table.column(self._table.version or "")
        keys = list(self._table.keys)
        cells = [*columns, *keys, *([] if version is None else [version])]

        def test(values: list[Any]) -> bool:
            record = _record(cells, values, keys, has_version=version is not None)
            return matches(predicate, record)

        return f"isthmus_row({self._binder.test(test)}, {row_arguments(cells)})"

    def _find_served(self, leaf: Leaf) -> str | None:
        return self._by_key(leaf) if leaf.path.root is Root.ID else self._by_column(leaf)

    def _by_key(self, leaf: Leaf) -> str | None:
        match leaf:
            case Equal(_, str(id)):
                return key_condition(self._table, id, self._binder) or "0"
            case In(_, ids):
                texts, keys = [id for id in ids if isinstance(id, str)], self._table.keys
                if not all(column.stored for column in keys):
                    return None
                if len(keys) == 1:
                    return self._by_keys(keys[0], texts)
                if reads_numbers_exactly() and all(key.affinity is not Affinity.NONE for key in keys):
                    return self._by_composite_keys(texts)
        return None

    def _list(self, values: list[Any]) -> str:
        if reads_numbers_exactly() or not any(isinstance(value, float) for value in values):
            return super()._list(values)
        return f"({', '.join(map(self._binder.value, values))})"

    def _by_composite_keys(self, ids: list[str]) -> str:
        """Return the condition that a row has one of these ids: the key's index finds the candidates."""
        keys = [key for id in ids if (key := key_of(self._table, id)) is not None]
        columns = ", ".join(f"{column.sql} COLLATE {column.collation}" for column in self._table.keys)
        parts = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(self._table.keys)))
        operand = self._binder.value(orjson.dumps(keys).decode())
        candidates = f"({columns}) IN (SELECT {parts} FROM json_each({operand}))"
        return f"({candidates} AND {id_sql(self._table)} IN {self._list(ids)})"

    def _by_keys(self, column: SQLiteColumn, ids: list[str]) -> str:
        """Return the condition that the only key column is one of these ids, which its index serves."""
        keys = [key[0] for id in ids if (key := key_of(self._table, id)) is not None]
        truths = [key for key in keys if isinstance(key, bool)]
        numbers = [key for key in keys if isinstance(key, int | float) and not isinstance(key, bool)]
        is_loose = column.affinity is Affinity.NONE
        texts = [key for key in keys if isinstance(key, str)] if not is_loose else ids
        parts = [found for some in (truths, numbers) if some and (found := self._equal(column, some))]
        if texts:
            among = self._list(texts)
            test = f"typeof({column.sql}) = 'text' AND +{column.sql} COLLATE BINARY IN {among}"
            parts.append(f"({column.sql} COLLATE {column.collation} IN {among} AND {test})")
        contents = [content for id in ids if is_loose and (content := parse_bytes(id)) is not None]
        if contents:
            parts.append(f"{column.sql} IN ({', '.join(map(self._binder.value, contents))})")
        return join("OR", parts) if parts else "0"

    # Two-valued forms

    def _leaf(self, leaf: Leaf) -> str:
        if isinstance(leaf, TextMatch):
            raise UnsupportedError("sqlite has no relevance search", capability="relevance")
        column = self.column(leaf.path)
        if column is not None:
            return self._by_type(leaf, column)
        value = id_sql(self._table) if leaf.path.root is Root.ID else None
        if leaf.path.root is Root.VERSION:
            value = version_sql(self._table)
        if value is None:
            return "0"
        bound = self._binder.bound()
        condition = self._cases(leaf, value).get("text")
        if condition is None:  # an operand that no text equals
            self._binder.unbind(bound)
            return "0"
        return f"coalesce({value} IS NOT NULL AND {condition}, 0)"

    def _by_text(self, leaf: Leaf, value: str) -> str:
        # As bytes: a cell that is no UTF-8 would fail the statement.
        return super()._by_text(leaf, f"CAST({value} AS BLOB)")

    def _by_type(self, leaf: Leaf, column: SQLiteColumn) -> str:
        """Return the condition by the type of the cell, which SQLite evaluates lazily."""
        bound = self._binder.bound()
        value = f"(+{column.sql} COLLATE BINARY)"
        cases = {kind: sql for kind, sql in self._cases(leaf, value).items() if kind in _KINDS}
        whens = []
        whole = cases.get("integer")
        if column.boolean:
            whole = (
                f"CASE {column.sql} WHEN 0 THEN {cases.get('false', '0')}"
                f" WHEN 1 THEN {cases.get('true', '0')} ELSE {whole or '0'} END"
            )
        if whole is not None:
            whens.append(f"WHEN 'integer' THEN {whole}")
        if "real" in cases:
            whens.append(f"WHEN 'real' THEN {cases['real']} AND {finite('+' + column.sql)}")
        if "text" in cases:
            text = cases["text"]
            if not isinstance(leaf, Equal | In):
                text = f"CASE WHEN {text} THEN {is_text(column)} ELSE 0 END"
            whens.append(f"WHEN 'text' THEN {text}")
            if column.holds_bytes:
                content = self._cases(leaf, f"isthmus_base64({column.sql})")["text"]
                whens.append(f"WHEN 'blob' THEN {content}")
        if not whens:
            self._binder.unbind(bound)
            return "0"
        return f"CASE typeof({column.sql}) {' '.join(whens)} ELSE 0 END"

    # Forms that the column's index serves; they may be NULL for a row that does not match.

    def _by_column(self, leaf: Leaf) -> str | None:
        column = self.column(leaf.path)
        if column is None or not column.stored:
            return None
        match leaf:
            case Equal(_, operand):
                return self._equal(column, [operand])
            case In(_, operands) if operands:
                return self._equal(column, list(operands))
            case Ordered(_, _, operand) | Between(_, operand, _):
                kind = kind_of(operand)
                if kind == "number" and column.affinity is not Affinity.TEXT:
                    return self._number(column, self._comparison(leaf, column.sql))
                if kind == "text" and _sorts_texts(column):
                    return self._text(leaf, column, self._comparison(leaf, f"{column.sql} COLLATE BINARY"))
            case StartsWith(_, text) if text and _sorts_texts(column):
                return self._text(leaf, column, self._prefix(f"{column.sql} COLLATE BINARY", text))
            case Like(_, pattern, fold=False) if _sorts_texts(column):
                parsed = parse_like(pattern)
                if not parsed or not isinstance(parsed[0], str):
                    return None
                rest = self._text_test(leaf, f"(+{column.sql} COLLATE BINARY)")
                test = f"{self._prefix(f'{column.sql} COLLATE BINARY', parsed[0])} AND {rest}"
                return self._text(leaf, column, test)
        return None

    def _comparison(self, leaf: Leaf, value: str) -> str:
        bind = self._binder.value
        if isinstance(leaf, Ordered):
            return f"{value} {leaf.op.value} {bind(leaf.value)}"
        assert isinstance(leaf, Between)
        return f"{value} BETWEEN {bind(leaf.low)} AND {bind(leaf.high)}"

    def _equal(self, column: SQLiteColumn, operands: list[Any]) -> str | None:
        kinds = set(map(kind_of, operands))
        if kinds == {"number"} and column.affinity is not Affinity.TEXT:
            one = (
                f"= {self._binder.value(operands[0])}" if len(operands) == 1 else f"IN {self._list(operands)}"
            )
            return self._number(column, f"{column.sql} {one}")
        if kinds == {"bool"} and column.boolean:
            wanted = ", ".join(str(int(operand)) for operand in operands)
            return f"({column.sql} IN ({wanted}) AND typeof({column.sql}) = 'integer')"
        return self._equal_texts(column, operands) if kinds == {"text"} else None

    def _number(self, column: SQLiteColumn, test: str) -> str:
        kinds = f"typeof({column.sql}) IN ('integer', 'real') AND {finite('+' + column.sql)}"
        numbers = f"{kinds} AND {column.sql} NOT IN (0, 1)" if column.boolean else kinds
        return f"({test} AND {numbers})"

    def _equal_texts(self, column: SQLiteColumn, operands: list[str]) -> str | None:
        contents = [found for text in operands if (found := parse_bytes(text)) is not None]
        if len(contents) > _MAX_BYTES_OPERANDS:
            return None
        if len(operands) == 1:
            test = same_text(column, operands[0], self._binder)
        else:
            among = self._list(operands)
            test = (
                f"{column.sql} COLLATE {column.collation} IN {among} AND typeof({column.sql}) = 'text'"
                f" AND +{column.sql} COLLATE BINARY IN {among}"
            )
        if not contents or not column.holds_bytes:
            return f"({test})"
        blobs = ", ".join(map(self._binder.value, contents))
        return f"(({test}) OR {column.sql} IN ({blobs}))"

    def _text(self, leaf: Leaf, column: SQLiteColumn, test: str) -> str:
        """Return the condition on texts, which is on blobs too where there may be some: they come last."""
        texts = f"{test} AND typeof({column.sql}) = 'text' AND {is_text(column)}"
        if not column.holds_bytes:
            return f"({texts})"
        content = self._cases(leaf, f"isthmus_base64({column.sql})")["text"]
        return f"(({texts}) OR ({column.sql} >= x'' AND {content}))"


_KINDS = frozenset({"integer", "real", "text", "true", "false"})


def _sorts_texts(column: SQLiteColumn) -> bool:
    """Return whether an operand that looks like a number is compared as the text that it is."""
    return column.affinity in (Affinity.TEXT, Affinity.NONE)


def _record(
    columns: list[SQLiteColumn], cells: list[Any], keys: list[SQLiteColumn], *, has_version: bool
) -> Record:
    """Return the record of some cells: of fields, then of the key, then of the version."""
    values: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=True):
        with contextlib.suppress(NoCanonicalFormError):
            value = read_cell(column, cell)
            if value is not None:
                values[column.name] = value
    version = values.get(columns[-1].name) if has_version else None
    end = len(cells) - has_version
    try:
        id = id_of_cells(keys, cells[end - len(keys) : end])
    except NoCanonicalFormError:
        return Record(values)
    return make_record(id, values, {}, version_text(version), None, None)


def version_text(value: JSON) -> str | None:
    """Return the version of a row whose version column has this canonical value."""
    if value is None or isinstance(value, bool | float | list | dict):
        return None
    return str(value)
