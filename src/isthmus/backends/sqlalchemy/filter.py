"""Predicates as a prefilter on the JSON text: a superset that any SQL database can evaluate.

`_values.encode` wrote the text, so a record with a value at a path holds the path's keys as
`"key":`, and a text value that equals, starts with or contains an operand holds the operand's JSON.
LIKE may ignore case in a collation; it then lets more through, never less.
"""

from __future__ import annotations

from typing import assert_never

import orjson

from isthmus._path import Path, Root
from isthmus._query.ast import (
    KNN,
    And,
    AnyObject,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
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
    TextMatch,
)
from isthmus._query.normalize import normalize
from isthmus._query.split import Pushdown
from isthmus._query.text import parse_like
from sqlalchemy import ColumnElement, Table, and_, not_, or_, true

# Longer literals are cut: LIKE patterns are limited, and a part matches a superset of the whole.
_MAX_LITERAL = 200
_MAX_OPERANDS = 500
_MAX_FRAGMENTS = 20
# SQLite's parser takes an expression of 1,000 levels, of which a chain of OR has one for each condition,
# and about 100 open parentheses; SQLAlchemy's compiler recurses some times at each level.
_MAX_CONDITIONS = 600
_MAX_NESTING = 8


def pushdown(leaf: Leaf) -> Pushdown:
    """Return SUPERSET where the JSON text can be searched for something, else NONE."""
    if isinstance(leaf, AnyObject | TextMatch | KNN) or leaf.path.root not in (Root.DATA, Root.METADATA):
        return Pushdown.NONE
    return Pushdown.SUPERSET if _fragments(leaf) else Pushdown.NONE


def limit_filter(predicate: Predicate) -> Predicate:
    """Return the terms of a conjunction that fit the limits of databases; the core evaluates all of them."""
    terms = predicate.terms if isinstance(predicate, And) else (predicate,)
    kept: list[Predicate] = []
    budget = _MAX_CONDITIONS
    for term in terms:
        cost = _cost(term)
        if cost <= budget and _nesting(term) <= _MAX_NESTING:
            budget -= cost
            kept.append(term)
    return predicate if len(kept) == len(terms) else normalize(And(tuple(kept)))


def _cost(predicate: Predicate) -> int:
    """Return how many conditions are compiled for a predicate."""
    match predicate:
        case And(terms) | Or(terms):
            return sum(map(_cost, terms))
        case Not(term):
            return _cost(term)
        case leaf:
            return len(_fragments(leaf)) + len(_texts_in(leaf))


def _nesting(predicate: Predicate) -> int:
    match predicate:
        case And(terms) | Or(terms):
            return 1 + max(map(_nesting, terms), default=0)
        case Not(term):
            return 1 + _nesting(term)
        case _:
            return 0


def compile_filter(predicate: Predicate, table: Table) -> ColumnElement[bool]:
    """Return the WHERE clause of a pushed predicate; its values are bound."""
    match predicate:
        case And(terms):
            return and_(true(), *(compile_filter(term, table) for term in terms))
        case Or(terms):
            return or_(*(compile_filter(term, table) for term in terms))
        case Not(term):
            return not_(compile_filter(term, table))
        case leaf:
            return _leaf(leaf, table)


def _leaf(leaf: Leaf, table: Table) -> ColumnElement[bool]:
    column = table.c.data if leaf.path.root is Root.DATA else table.c.metadata
    conditions = [column.contains(fragment, autoescape=True) for fragment in _fragments(leaf)]
    texts = _texts_in(leaf)
    if texts:
        conditions.append(or_(*(column.contains(text, autoescape=True) for text in texts)))
    return and_(*conditions)


def _texts_in(leaf: Leaf) -> list[str]:
    """Return texts of which the JSON text of a record with one of the operands of `in` contains one."""
    if not isinstance(leaf, In) or len(leaf.values) > _MAX_OPERANDS:
        return []
    texts = [_cut(_json(value)) for value in leaf.values if isinstance(value, str)]
    # A number can be written in several ways.
    return texts if len(texts) == len(leaf.values) else []


def _fragments(leaf: Leaf) -> list[str]:
    """Return texts that the JSON text of every matching record contains."""
    fragments = [*_operands(leaf), *_keys(leaf.path)]
    return [_cut(fragment) for fragment in fragments[:_MAX_FRAGMENTS]]


def _keys(path: Path) -> list[str]:
    return [_json(key) + ":" for key in path.keys]


def _operands(leaf: Leaf) -> list[str]:
    match leaf:
        case Equal(_, str() as operand):
            return [_json(operand)]
        case StartsWith(_, text):
            return ['"' + _inner(text)]
        case EndsWith(_, text):
            return [_inner(text) + '"']
        case Contains(_, text):
            return [_inner(text)] if text else []
        case Like(_, pattern, False):
            return [_inner(part) for part in parse_like(pattern) if isinstance(part, str)]
        case Equal() | EqualList() | Ordered() | Between() | In() | Like() | Regex() | Exists():
            return []
        case AnyObject() | TextMatch() | KNN():
            return []
        case _:
            assert_never(leaf)


def _cut(fragment: str) -> str:
    return fragment[:_MAX_LITERAL]


def _json(text: str) -> str:
    return orjson.dumps(text).decode()


def _inner(text: str) -> str:
    return _json(text)[1:-1]
