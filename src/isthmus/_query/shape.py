"""The shape of a predicate: operators, paths and kinds of operands, without the operands themselves.

Planning and compiling depend on the shape alone, so that a program's queries are planned once and
their operands bound later. Whatever else decides a store's form is part of the shape, by value: truth
values, patterns, the length of `in`, and operands out of the ordinary: empty or long texts, 0, integers
from 2^53 on, floats that are integral, tiny or huge. A predicate with lists, objects, regular expressions,
`any`, `match()` or `nearest()`, or with many conditions, has no shape and is planned each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from isthmus._path import Root
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
    StartsWith,
    count_leaves,
)
from isthmus._query.normalize import normalize

Operand: TypeAlias = "int | float | str"

_MAX_LEAVES = 32
_MAX_LEVELS = 8
_MAX_IN = 50
_MAX_TEXT = 100
_MAX_PATTERN = 500
_EXACT = 2**53
_MAX_KEPT = 5_000
"""Shapes of one process; beyond it all are dropped, and caches fill again."""


class PredicateShape:
    """One shape; equal shapes are one object, for as long as it is kept."""

    __slots__ = ("is_normal", "kinds")

    def __init__(self, kinds: tuple[type, ...], *, is_normal: bool) -> None:
        self.kinds = kinds
        """The type of each operand, left to right."""
        self.is_normal = is_normal
        """Whether `normalize` leaves predicates of the shape as they are."""


class Shaped:
    """The shape of one predicate, its operands in order and its leaves."""

    __slots__ = ("leaves", "operands", "shape")

    def __init__(self, shape: PredicateShape, operands: list[Operand], leaves: list[Leaf]) -> None:
        self.shape = shape
        self.operands = operands
        self.leaves = leaves


class _ShapelessError(Exception):
    """The predicate has no shape."""


_shapes: dict[tuple[Any, ...], PredicateShape] = {}
_NAME = "_shaped"


def shape_of(predicate: Predicate) -> Shaped | None:
    """Return the shape of a predicate, None if it has none; kept in the predicate, which is immutable."""
    known = predicate.__dict__
    if _NAME in known:
        return known[_NAME]  # type: ignore[no-any-return]
    walk = _Walk()
    shaped = None
    try:
        walk.visit(predicate, 0)
    except _ShapelessError:
        pass
    else:
        key = tuple(walk.key)
        shape = _shapes.get(key)
        if shape is None:
            if len(_shapes) >= _MAX_KEPT:
                _shapes.clear()
            kinds = tuple(map(type, walk.operands))
            shape = _shapes[key] = PredicateShape(kinds, is_normal=normalize(predicate) == predicate)
        shaped = Shaped(shape, walk.operands, walk.leaves)
    known[_NAME] = shaped
    return shaped


def is_wide(where: Predicate | None, more_than: int) -> bool:
    """Return whether a condition has more leaves than a number, which is above the most of any shape."""
    return (
        isinstance(where, And | Or | Not | AnyObject)
        and shape_of(where) is None
        and count_leaves(where) > more_than
    )


def with_operands(predicate: Predicate, operands: Iterator[Operand]) -> Predicate:
    """Return a predicate of the same shape with other operands, which are taken in order."""

    def bind(value: Any) -> Any:
        return next(operands) if is_operand(value) else value

    match predicate:
        case And(terms) | Or(terms):
            return type(predicate)(tuple(with_operands(term, operands) for term in terms))
        case Not(term):
            return Not(with_operands(term, operands))
        case Equal(path, value):
            return Equal(path, bind(value))
        case Ordered(path, op, value):
            return Ordered(path, op, bind(value))
        case Between(path, low, high):
            return Between(path, bind(low), bind(high))
        case In(path, values):
            return In(path, tuple(map(bind, values)))
        case leaf:
            return leaf


def is_operand(value: Any) -> bool:
    """Return whether a scalar is bound late; any other is part of the shape."""
    kind = type(value)
    if kind is str:
        return 0 < len(value) <= _MAX_TEXT
    if kind is int:
        return bool(-_EXACT < value < _EXACT and value != 0)
    return kind is float and bool(1e-4 <= abs(value) < 1e15 and not value.is_integer())


class _Walk:
    """Collects the parts of a key in prefix order, each node's number of parts given by those before it."""

    __slots__ = ("key", "leaves", "operands")

    def __init__(self) -> None:
        self.key: list[Any] = []
        self.operands: list[Operand] = []
        self.leaves: list[Leaf] = []

    def visit(self, node: Predicate, level: int) -> None:
        kind = type(node)
        if kind is And or kind is Or:
            terms: tuple[Predicate, ...] = node.terms  # type: ignore[union-attr]
            self.key += (kind, len(terms))
            if level >= _MAX_LEVELS:
                raise _ShapelessError
            for term in terms:
                self.visit(term, level + 1)
        elif kind is Not:
            self.key.append(Not)
            if level >= _MAX_LEVELS:
                raise _ShapelessError
            self.visit(node.term, level + 1)  # type: ignore[union-attr]
        else:
            visit = _LEAVES.get(kind)
            if visit is None or len(self.leaves) >= _MAX_LEAVES or node.path.root is Root.SCORE:  # type: ignore[union-attr]
                raise _ShapelessError
            self.leaves.append(node)  # type: ignore[arg-type]
            self.key += (kind, node.path)  # type: ignore[union-attr]
            visit(self, node)

    def scalar(self, value: Any) -> None:
        """Add an operand, or a value that is part of the shape."""
        kind = type(value)
        self.key.append(kind)
        if is_operand(value):
            self.operands.append(value)
        elif kind is str:
            self.pattern(value)
        elif kind is bool or kind is int or kind is float:
            self.key.append(repr(value))
        else:
            raise _ShapelessError

    def pattern(self, text: str) -> None:
        """Add a text that is part of the shape."""
        if len(text) > _MAX_PATTERN:
            raise _ShapelessError
        self.key.append(text)


def _visit_equal(walk: _Walk, leaf: Equal) -> None:
    walk.scalar(leaf.value)


def _visit_ordered(walk: _Walk, leaf: Ordered) -> None:
    walk.key.append(leaf.op)
    walk.scalar(leaf.value)


def _visit_between(walk: _Walk, leaf: Between) -> None:
    walk.scalar(leaf.low)
    walk.scalar(leaf.high)


def _visit_in(walk: _Walk, leaf: In) -> None:
    if len(leaf.values) > _MAX_IN:
        raise _ShapelessError
    walk.key.append(len(leaf.values))
    for value in leaf.values:
        walk.scalar(value)


def _visit_like(walk: _Walk, leaf: Like) -> None:
    walk.key.append(leaf.fold)
    walk.pattern(leaf.pattern)


def _visit_text(walk: _Walk, leaf: StartsWith | EndsWith | Contains) -> None:
    walk.pattern(leaf.text)


def _visit_exists(walk: _Walk, leaf: Exists) -> None:
    """Add nothing: there is no operand."""


_LEAVES: dict[type, Callable[[_Walk, Any], None]] = {
    Equal: _visit_equal,
    Ordered: _visit_ordered,
    Between: _visit_between,
    In: _visit_in,
    Like: _visit_like,
    StartsWith: _visit_text,
    EndsWith: _visit_text,
    Contains: _visit_text,
    Exists: _visit_exists,
}
