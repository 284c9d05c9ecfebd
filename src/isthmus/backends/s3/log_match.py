"""Which records of a log's view match: judged on columns of the values found at each path.

A cell is what `found` yields in one record (semantics §3): the value itself if it is one scalar,
None if nothing is found, a tuple in every other case. All leaves are exact here but those on
whole lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import orjson

from isthmus._path import Path, Root
from isthmus._query.ast import (
    And,
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
    Order,
    Ordered,
    Predicate,
    Regex,
    StartsWith,
    leaves,
)
from isthmus._query.found import found_in
from isthmus._query.text import fold, like_regex, search_regex
from isthmus._values import kind_of, same
from isthmus.backends.s3.envelope import Row

Cell: TypeAlias = Any
Test: TypeAlias = Callable[[Any], bool]

_SCALARS = frozenset({bool, int, float, str})
_PLAIN = _SCALARS | {type(None)}
_CHUNK = 1000
_JUDGED = (Equal, In, Ordered, Between, Like, Regex, StartsWith, EndsWith, Contains, Exists)


def judged_by_cell(leaf: Leaf) -> bool:
    """Return whether the leaf is exact on cells."""
    return leaf.path.root is not Root.SCORE and isinstance(leaf, _JUDGED)


def paths_of(predicate: Predicate) -> list[Path]:
    """Return the paths whose cells the predicate asks for, but the id's."""
    return list(dict.fromkeys(leaf.path for leaf in leaves(predicate) if leaf.path.root is not Root.ID))


def columns_of(rows: Sequence[Row], paths: Sequence[Path]) -> dict[Path, list[Cell]]:
    """Return the cells of rows by path. Raises ValueError if a row is not JSON."""
    columns: dict[Path, list[Cell]] = {path: [] for path in paths}
    for at in range(0, len(rows), _CHUNK):  # some at a time, for decoded records take much memory
        part = rows[at : at + _CHUNK]
        roots = {path.root for path in paths}
        data = [orjson.loads(row.data) for row in part] if Root.DATA in roots else []
        metadata = [orjson.loads(row.metadata) for row in part] if Root.METADATA in roots else []
        for path, column in columns.items():
            match path.root:
                case Root.DATA:
                    column += _cells(data, path.keys)
                case Root.METADATA:
                    column += _cells(metadata, path.keys)
                case Root.VERSION:
                    column += [row.version for row in part]
                case Root.CREATED_AT:
                    column += [row.created for row in part]
                case Root.UPDATED_AT:
                    column += [row.updated for row in part]
                case _:
                    raise AssertionError(path)
    return columns


def _cells(values: list[dict[str, Any]], keys: tuple[str, ...]) -> list[Cell]:
    if len(keys) != 1:
        return [_cell(value, keys) for value in values]
    [key] = keys
    return [
        found if type(found := value.get(key)) in _PLAIN else _cell(value, keys)  # the common case first
        for value in values
    ]


def _cell(whole: Any, keys: tuple[str, ...]) -> Cell:
    value = whole
    for key in keys:
        if type(value) is not dict:
            break
        value = value.get(key)
    else:
        if value is None or type(value) in _SCALARS:
            return value
    found = found_in(whole, keys)
    return tuple(found) if found else None


def matching(
    predicate: Predicate, ids: Sequence[str], columns: Mapping[Path, Sequence[Cell]], among: Sequence[int]
) -> Sequence[int]:
    """Return those of the positions `among` whose records match, in order."""
    match predicate:
        case And(terms):
            for term in terms:
                among = matching(term, ids, columns, among)
            return among
        case Or(terms):
            either: set[int] = set()
            for term in terms:
                either.update(matching(term, ids, columns, among))
            return [at for at in among if at in either]
        case Not(term):
            matches = set(matching(term, ids, columns, among))
            return [at for at in among if at not in matches]
        case leaf:
            column = ids if leaf.path.root is Root.ID else columns[leaf.path]
            return _matching_cells(leaf, column, among)


def _matching_cells(leaf: Leaf, column: Sequence[Cell], among: Sequence[int]) -> list[int]:
    test = cell_test(leaf)
    if len(among) == len(column):  # all of them: without looking each one up
        if isinstance(leaf, Equal):  # most cells fail without a call
            wanted = leaf.value
            return [
                at for at, cell in enumerate(column) if (cell == wanted or type(cell) is tuple) and test(cell)
            ]
        return [at for at, cell in enumerate(column) if test(cell)]
    return [at for at in among if test(column[at])]


def cell_test(leaf: Leaf) -> Test:
    """Return the test of a cell."""
    if isinstance(leaf, Exists):
        return lambda cell: cell is not None
    one = _value_test(leaf)

    def test(cell: Cell) -> bool:
        if type(cell) is tuple:
            return any(map(one, cell))
        return cell is not None and one(cell)

    return test


def _value_test(leaf: Leaf) -> Test:
    """Return the test that one value found must pass; values compare within their type only."""
    match leaf:
        case Equal(_, dict(operand)):
            return lambda value: same(value, operand)
        case Equal(_, operand):
            return _equal(operand)
        case In(_, operands):
            # A set takes 1, 1.0 and True for one.
            wanted = {(kind_of(operand), operand) for operand in operands}
            return lambda value: type(value) in _SCALARS and (kind_of(value), value) in wanted
        case Ordered(_, order, operand):
            return _ordered(order, operand)
        case Between(_, low, high):
            above, below = _ordered(Order.GE, low), _ordered(Order.LE, high)
            return lambda value: above(value) and below(value)
        case _:
            text = _text_test(leaf)
            return lambda value: type(value) is str and text(value)


def _equal(operand: Any) -> Test:
    if isinstance(operand, bool):
        return lambda value: value is operand
    if isinstance(operand, str):
        return lambda value: value == operand
    return lambda value: value == operand and value is not True and value is not False


def _ordered(order: Order, operand: Any) -> Test:
    kinds: Any = (
        (bool,) if isinstance(operand, bool) else (str,) if isinstance(operand, str) else (int, float)
    )
    match order:
        case Order.LT:
            return lambda value: type(value) in kinds and value < operand
        case Order.LE:
            return lambda value: type(value) in kinds and value <= operand
        case Order.GT:
            return lambda value: type(value) in kinds and value > operand
        case Order.GE:
            return lambda value: type(value) in kinds and value >= operand


def _text_test(leaf: Leaf) -> Callable[[str], bool]:
    match leaf:
        case Like(_, pattern, folded):
            whole = like_regex(pattern, folded=folded).fullmatch
            return (lambda text: whole(fold(text)) is not None) if folded else lambda text: bool(whole(text))
        case Regex(_, pattern):
            search = search_regex(pattern).search
            return lambda text: search(text) is not None
        case StartsWith(_, prefix):
            return lambda text: text.startswith(prefix)
        case EndsWith(_, suffix):
            return lambda text: text.endswith(suffix)
        case Contains(_, part):
            return lambda text: part in text
        case _:
            raise AssertionError(leaf)
