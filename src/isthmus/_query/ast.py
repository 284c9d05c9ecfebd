"""The query tree: immutable predicates, sort keys, measures.

Only positive leaves exist; `!=`, `not_in` and the like are `Not` around them, since a complement
is exact (meaning §3). Operands are canonical JSON (`_values.canonical_operand`).
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from isthmus._path import Path
from isthmus._value import Value, replace
from isthmus._values import JSON, Scalar
from isthmus.errors import QueryError

MAX_DEPTH = 200
"""The greatest depth of a predicate's tree."""
MAX_LEAVES = 10_000
TOO_MANY = f"a query has at most {MAX_LEAVES} conditions; in_() takes a list of any length"
"""The largest number of conditions in a query."""
MAX_SORT_KEYS = 100
# A tree of more leaves keeps their number and its depth, since each `&` and each call checks them.
_NARROW = 32
_SIZE = "_size"
MAX_DISTINCT = 2_000
"""The largest number of conditions left after equalities on one path are folded into `in`."""


class _Combining(Value):
    """`&`, `|` and `~`; and a refusal of `and`, `or`, `not` and `if`, which Python cannot overload."""

    def __and__(self, other: Predicate) -> Predicate:
        if not isinstance(other, _Combining):
            return NotImplemented
        # Flat: a thousand conditions joined one by one are not a thousand levels.
        return And((*self.terms, other)) if isinstance(self, And) else And((self, other))  # type: ignore[arg-type]

    def __or__(self, other: Predicate) -> Predicate:
        if not isinstance(other, _Combining):
            return NotImplemented
        return Or((*self.terms, other)) if isinstance(self, Or) else Or((self, other))  # type: ignore[arg-type]

    def __invert__(self) -> Predicate:
        return Not(self)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        raise TypeError("a predicate has no truth value; combine with & | ~ instead of and, or, not")


class And(_Combining):
    """All terms hold; true if there are none."""

    terms: tuple[Predicate, ...]


class Or(_Combining):
    """Some term holds; false if there are none."""

    terms: tuple[Predicate, ...]


class Not(_Combining):
    """The exact complement."""

    term: Predicate


class Equal(_Combining):
    """Some value found equals a scalar or, deeply, an object."""

    path: Path
    value: bool | int | float | str | dict[str, JSON]

    def __hash__(self) -> int:  # an object operand is unhashable
        return hash((Equal, self.path))


class EqualList(_Combining):
    """The whole value at the path, reached through objects only, equals this list deeply."""

    path: Path
    value: list[JSON]

    def __hash__(self) -> int:
        return hash((EqualList, self.path))


class Order(enum.Enum):
    """The four order comparisons."""

    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


class Ordered(_Combining):
    """Some value found of the operand's type is on that side of it."""

    path: Path
    op: Order
    value: Scalar


class Between(_Combining):
    """One value found lies within both inclusive bounds, which are of one type."""

    path: Path
    low: Scalar
    high: Scalar


class In(_Combining):
    """Some value found equals one of these scalars; lists, objects and None are written out as `Or`."""

    path: Path
    values: tuple[Scalar, ...]


class Like(_Combining):
    """Some text found matches the whole pattern; `%` any run, `_` one character, a backslash escapes.

    `fold` compares each character by its one-character fold (`_query.text.fold`).
    """

    path: Path
    pattern: str
    fold: bool = False


class Regex(_Combining):
    """Some text found matches by Python's `re.search`."""

    path: Path
    pattern: str


class StartsWith(_Combining):
    """Some text found starts with this."""

    path: Path
    text: str


class EndsWith(_Combining):
    """Some text found ends with this."""

    path: Path
    text: str


class Contains(_Combining):
    """Some text found contains this."""

    path: Path
    text: str


class Exists(_Combining):
    """Some value is found; an object counts."""

    path: Path


class AnyObject(_Combining):
    """One object found satisfies the whole predicate, whose paths begin at that object."""

    path: Path
    where: Predicate


class TextMatch(_Combining):
    """A full-text match, ranked by relevance; only where the capability `relevance` is true."""

    path: Path
    text: str


class KNN(_Combining):
    """One of the `k` nearest to a vector, of the records that the other conditions of the query hold for.

    A value at the path that is no vector of that length is near to nothing. Only where the
    capability `vectors` is true.
    """

    path: Path
    vector: tuple[float, ...]
    k: int


Leaf: TypeAlias = (
    Equal
    | EqualList
    | Ordered
    | Between
    | In
    | Like
    | Regex
    | StartsWith
    | EndsWith
    | Contains
    | Exists
    | AnyObject
    | TextMatch
    | KNN
)
Predicate: TypeAlias = And | Or | Not | Leaf

LEAVES = (
    Equal,
    EqualList,
    Ordered,
    Between,
    In,
    Like,
    Regex,
    StartsWith,
    EndsWith,
    Contains,
    Exists,
    AnyObject,
    TextMatch,
    KNN,
)
# Leaves that cannot be evaluated on one record alone: the store evaluates them, or refuses.
RANKED = (TextMatch, KNN)
PREDICATES = (*LEAVES, And, Or, Not)

TRUE = And(())
FALSE = Or(())


class SortKey(Value):
    """One key of an order; the id always follows as the last one, ascending."""

    path: Path
    descending: bool = False
    nulls_first: bool = False


class Function(enum.Enum):
    """What an aggregate computes."""

    COUNT = "count"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    COUNT_DISTINCT = "count_distinct"
    PERCENTILE = "percentile"


class Measure(Value):
    """One computed column; without a path, `COUNT` counts records."""

    name: str
    function: Function
    path: Path | None = None
    percent: tuple[int, int] | None = None
    """Of a percentile, the percent as a fraction."""


def check_size(predicate: Predicate) -> None:
    """Raise `QueryError` for a tree beyond the bounds; walks it without recursion, and a wide one once."""
    level: list[Predicate] = [predicate]
    count = above = deepest = 0
    while level:
        below: list[Predicate] = []
        deepest = max(deepest, above + 1)
        for node in level:
            if (known := node.__dict__.get(_SIZE)) is not None:
                count += known[0]
                deepest = max(deepest, above + known[1])
            elif isinstance(node, And | Or):
                below.extend(node.terms)
            elif isinstance(node, Not):
                below.append(node.term)
            else:
                count += 1
                if isinstance(node, AnyObject):
                    below.append(node.where)
        if deepest > MAX_DEPTH:
            raise QueryError(f"a query is nested at most {MAX_DEPTH} levels deep; this one is deeper")
        if count > MAX_LEAVES:
            raise QueryError(TOO_MANY)
        level = below
        above += 1
    if count > _NARROW:
        predicate.__dict__[_SIZE] = (count, deepest)


def count_leaves(predicate: Predicate) -> int:
    """Return the number of leaves, those of each `any` included."""
    known = predicate.__dict__.get(_SIZE)
    return known[0] if known is not None else len(leaves(predicate, inner=True))


def leaves(predicate: Predicate, *, inner: bool = False) -> list[Leaf]:
    """Return every leaf of the tree, left to right; an `any` is one leaf.

    With `inner` the leaves of each `any` follow it, their paths as they are written: from the object on.
    """
    found: list[Leaf] = []
    waiting: list[Predicate] = [predicate]
    while waiting:
        node = waiting.pop()
        if isinstance(node, And | Or):
            waiting.extend(reversed(node.terms))
        elif isinstance(node, Not):
            waiting.append(node.term)
        else:
            found.append(node)
            if inner and isinstance(node, AnyObject):
                waiting.append(node.where)
    return found


def all_leaves(predicate: Predicate) -> list[Leaf]:
    """Return every leaf of the tree and of each `any` in it, these with their paths from the record."""
    found: list[Leaf] = []
    waiting: list[tuple[Predicate, Path | None]] = [(predicate, None)]
    while waiting:
        node, outer = waiting.pop()
        if isinstance(node, And | Or):
            waiting.extend((term, outer) for term in reversed(node.terms))
        elif isinstance(node, Not):
            waiting.append((node.term, outer))
        else:
            leaf = node if outer is None else prefix_path(outer, node)
            found.append(leaf)
            if isinstance(leaf, AnyObject):
                waiting.append((leaf.where, leaf.path))
    return found


def prefix_path(path: Path, leaf: Leaf) -> Leaf:
    """Return a leaf of an `any` at a path with its own path from the record."""
    return replace(leaf, path=Path(path.root, (*path.keys, *leaf.path.keys)))
