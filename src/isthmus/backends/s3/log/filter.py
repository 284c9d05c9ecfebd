"""Evaluates predicates on columns: the values of a log's records at each path.

All leaves are exact here but those on whole lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from isthmus._path import Path, Root
from isthmus._query.ast import (
    And,
    AnyObject,
    Between,
    Contains,
    EndsWith,
    Equal,
    Exists,
    In,
    Leaf,
    Like,
    Not,
    Or,
    Ordered,
    Predicate,
    Regex,
    StartsWith,
    leaves,
)
from isthmus._query.lookup import values_in
from isthmus.backends.s3.column_values import SCALARS, ColumnValue, comparable_types, compile_value_test
from isthmus.backends.s3.envelope import RecordRow

_PLAIN = SCALARS | {type(None)}
# So few that the garbage collector does not run: the decoded rows are freed before the next ones.
_CHUNK = 100
_EXACT = (Equal, In, Ordered, Between, Like, Regex, StartsWith, EndsWith, Contains, Exists, AnyObject)


def is_exact(leaf: Leaf) -> bool:
    """Return whether column values decide the leaf exactly."""
    return leaf.path.root is not Root.SCORE and isinstance(leaf, _EXACT)


def paths_of(predicate: Predicate) -> list[Path]:
    """Return the paths of which the predicate needs columns; the id needs none."""
    return list(dict.fromkeys(leaf.path for leaf in leaves(predicate) if leaf.path.root is not Root.ID))


def build_columns(rows: Sequence[RecordRow], paths: Sequence[Path]) -> dict[Path, list[ColumnValue]]:
    """Return the values of rows by path, in the order of the rows.

    Raises ValueError if a row is not JSON.
    """
    columns: dict[Path, list[ColumnValue]] = {path: [] for path in paths}
    roots = {path.root for path in paths}
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        data = [orjson.loads(row.data) for row in part] if Root.DATA in roots else []
        metadata = [orjson.loads(row.metadata) for row in part] if Root.METADATA in roots else []
        for path, column in columns.items():
            match path.root:
                case Root.DATA:
                    column += _values(data, path.keys)
                case Root.METADATA:
                    column += _values(metadata, path.keys)
                case Root.VERSION:
                    column += [row.version for row in part]
                case Root.CREATED_AT:
                    column += [row.created for row in part]
                case Root.UPDATED_AT:
                    column += [row.updated for row in part]
                case _:
                    raise AssertionError(path)
    return columns


def _values(values: list[dict[str, Any]], keys: tuple[str, ...]) -> list[ColumnValue]:
    if len(keys) != 1:
        return [_value(value, keys) for value in values]
    [key] = keys
    return [
        found if type(found := value.get(key)) in _PLAIN else _value(value, keys)  # the common case first
        for value in values
    ]


def _value(whole: Any, keys: tuple[str, ...]) -> ColumnValue:
    value = whole
    for key in keys:
        if type(value) is not dict:
            break
        value = value.get(key)
    else:
        if value is None or type(value) in SCALARS:
            return value
    found = values_in(whole, keys)
    return tuple(found) if found else None


def select_positions(
    predicate: Predicate,
    ids: Sequence[str],
    columns: Mapping[Path, Sequence[ColumnValue]],
    candidates: Sequence[int],
) -> Sequence[int]:
    """Return those of the candidate positions in `ids` and `columns` whose records match, in order."""
    match predicate:
        case And(terms):
            for term in terms:
                candidates = select_positions(term, ids, columns, candidates)
            return candidates
        case Or(terms):
            either: set[int] = set()
            for term in terms:
                either.update(select_positions(term, ids, columns, candidates))
            return [position for position in candidates if position in either]
        case Not(term):
            matches = set(select_positions(term, ids, columns, candidates))
            return [position for position in candidates if position not in matches]
        case leaf:
            column = ids if leaf.path.root is Root.ID else columns[leaf.path]
            return _select_by_leaf(leaf, column, candidates)


def _select_by_leaf(leaf: Leaf, column: Sequence[ColumnValue], candidates: Sequence[int]) -> list[int]:
    test = compile_value_test(leaf)
    if len(candidates) == len(column):  # all of them: without looking each one up
        if isinstance(leaf, Equal) and type(leaf.value) in SCALARS:  # most values need no call
            wanted, types = leaf.value, comparable_types(leaf.value)
            return [
                position
                for position, value in enumerate(column)
                if (value == wanted and type(value) in types) or (type(value) is tuple and test(value))
            ]
        return [position for position, value in enumerate(column) if test(value)]
    return [position for position in candidates if test(column[position])]
