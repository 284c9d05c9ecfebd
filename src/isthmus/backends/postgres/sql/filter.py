"""Predicates as SQL conditions (semantics §3).

A leaf is a test of the one value at its path, or, where a list is on the way, a test of the
values behind it. Conditions may be NULL for false; only `NOT` makes a difference of it, so only
there it is taken out (everywhere else that would hide the indexes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from isthmus._path import Path, Root
from isthmus._query.ast import (
    FALSE,
    LEAVES,
    TRUE,
    And,
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
    Predicate,
    TextMatch,
)
from isthmus._query.normalize import normalize
from isthmus._values import kind_of
from isthmus.backends.postgres.indexes import Declared, other_shape
from isthmus.backends.postgres.sql.fields import Field, attribute, field_of, nested_anywhere, within
from isthmus.backends.postgres.sql.leaf import Test, Tests, asked_kind
from isthmus.backends.postgres.sql.like import like_literal, like_pattern
from isthmus.backends.postgres.sql.statement import Bound, Value, literal
from isthmus.errors import UnsupportedError

# What `@>` takes in one condition; each level of a path doubles the shapes to look for.
_MOST_CONTAINED = 50
_DEEPEST_CONTAINED = 3

ALL = "TRUE"
NOTHING = "FALSE"


class Filter:
    """Compiles predicates, binding their operands.

    `assumed` says of a path which shape its rows are known to have, so that what cannot hold
    there, and what need not be asked, is left out.
    """

    def __init__(self, bound: Bound, declared: Declared, assumed: tuple[Path, str] | None = None) -> None:
        self._bound = bound
        self._declared = declared
        self._tests = Tests(bound)
        self._assumed = assumed

    def condition(self, predicate: Predicate) -> str:
        """Return the SQL condition of a predicate."""
        # Folded before anything is bound: the server refuses values that no placeholder stands for.
        return self._condition(normalize(self._folded(predicate)), indexed=True)

    def _folded(self, predicate: Predicate) -> Predicate:
        """Return the predicate with the leaves that are the same for every row as constants."""
        match predicate:
            case And(terms):
                return And(tuple(map(self._folded, terms)))
            case Or(terms):
                return Or(tuple(map(self._folded, terms)))
            case Not(term):
                return Not(self._folded(term))
            case leaf:
                return self._constant(leaf)

    def _constant(self, leaf: Leaf) -> Predicate:
        kind = asked_kind(leaf)
        if leaf.path.root is Root.SCORE and not isinstance(leaf, TextMatch):
            return FALSE
        if attribute(leaf.path) is not None:  # always there, always text
            if isinstance(leaf, Exists):
                return TRUE
            return FALSE if kind not in (None, "string") else leaf
        if not self._knows(leaf.path):
            return leaf
        assert self._assumed is not None
        shape = self._assumed[1]
        return FALSE if shape == "null" or (shape != "array" and kind not in (None, shape)) else leaf

    def _condition(self, predicate: Predicate, *, indexed: bool) -> str:
        """Return the condition; `indexed` says whether an index can serve it here."""
        match predicate:
            case And(terms):
                return (
                    f"({' AND '.join(self._condition(t, indexed=indexed) for t in terms)})" if terms else ALL
                )
            case Or(terms):
                return f"({' OR '.join(self._some_of(terms, indexed))})" if terms else NOTHING
            case Not(Exists(path)) if indexed and self._declared.others(path) and not self._knows(path):
                return self._absent(field_of(path))
            case Not(term):
                return f"({self._condition(term, indexed=False)} IS NOT TRUE)"
            case leaf:
                return self._leaf(leaf, indexed)

    def _some_of(self, terms: Sequence[Predicate], indexed: bool) -> list[str]:
        """Return conditions of which one must hold; leaves on one path share their arm for lists."""
        # "Some value satisfies one of these" is "one of these is satisfied by some value".
        alike: dict[Path, list[Leaf]] = {}
        parts: list[str] = []
        for term in terms:
            if isinstance(term, LEAVES) and self._shares(term, indexed):
                alike.setdefault(term.path, []).append(term)
            else:
                parts.append(self._condition(term, indexed=indexed))
        for path, leaves in alike.items():
            if len(leaves) == 1:
                parts.append(self._leaf(leaves[0], indexed))
                continue
            field = field_of(path)
            tests = [self._tests.of(leaf) for leaf in leaves]
            parts += [self._scalar(*pair, field, indexed) for pair in zip(leaves, tests, strict=True)]
            parts.append(f"({self._listed(field, path, indexed)} AND {self._among(field, *tests)})")
        return parts

    def _shares(self, leaf: Leaf, indexed: bool) -> bool:
        """Return whether a leaf has the usual two arms."""
        path, given = leaf.path, self._declared
        if attribute(path) is not None or not path.keys or self._knows(path):
            return False
        if indexed and (given.every_element or path in given.elements):
            return False
        return not isinstance(leaf, EqualList | TextMatch)

    def _listed(self, field: Field, path: Path, indexed: bool) -> str:
        """Return the condition that a list is on the way, as an index wants it where there is one."""
        if indexed and self._declared.others(path):
            return f"({other_shape(field)} AND {field.shape} = 'array')"
        return field.listed

    def _knows(self, path: Path) -> bool:
        return self._assumed is not None and self._assumed[0] == path

    def _leaf(self, leaf: Leaf, indexed: bool) -> str:
        path = leaf.path
        if isinstance(leaf, TextMatch):
            raise UnsupportedError("postgres has no ranked full-text match", capability="relevance")
        if path.root is Root.SCORE:
            return NOTHING
        whole = attribute(path)
        if isinstance(leaf, EqualList):
            return f"({field_of(path).value} = {self._bound.json(leaf.value)})"
        if whole is not None:
            return self._on_attribute(leaf, whole)
        field = field_of(path)
        test = self._tests.of(leaf)
        if indexed and not self._knows(path) and (found := self._contained(leaf, field, test)) is not None:
            return found
        if self._assumed is not None and self._assumed[0] == path:
            return self._on_shape(self._assumed[1], leaf, field, test, indexed)
        one = self._scalar(leaf, test, field, indexed)
        if not field.keys:
            return one
        return f"({one} OR ({self._listed(field, path, indexed)} AND {self._among(field, test)}))"

    def _contained(self, leaf: Leaf, field: Field, test: Test) -> str | None:
        """Return the condition that a GIN index serves; None if there is none for this leaf."""
        given = self._declared
        operands: tuple[Any, ...] = ()
        match leaf:
            case Equal(_, value) if not isinstance(value, dict):
                operands = (value,)
            case In(_, values) if len(values) <= _MOST_CONTAINED:
                operands = values
        if not operands or not field.keys:
            return None
        if leaf.path in given.elements:
            # `@>` finds the value itself and elements of a list, one level deep.
            known = f"{field.value} @> ANY({self._bound.jsons(operands)})"
            return f"({known} OR (({field.above} OR {field.nested}) AND {self._among(field, test)}))"
        if given.every_element and leaf.path.root is Root.DATA and len(field.keys) <= _DEEPEST_CONTAINED:
            shapes = [shape for operand in operands for shape in _shapes(field.keys, operand)]
            known = f"{field.column} @> ANY({self._bound.jsons(shapes)})"
            return f"({known} OR ({nested_anywhere()} AND {field.nested} AND {self._deep(field, test)}))"
        return None

    def _on_shape(self, shape: str, leaf: Leaf, field: Field, test: Test, indexed: bool) -> str:
        """Return the condition where the shape of the row's value is known."""
        if shape == "array":
            return self._among(field, test)
        return self._scalar(leaf, test, field, indexed)

    def _scalar(self, leaf: Leaf, test: Test, field: Field, indexed: bool) -> str:
        """Return the condition on the value at the path, with what its index asks for."""
        given = self._declared
        if indexed and isinstance(leaf, In) and test.kind is None and given.others(leaf.path):
            return self._by_kind(leaf, field)
        if self._by_containment(leaf, field, indexed):
            # Half the price of taking the value out to compare it.
            return f"{field.column} @> {self._bound.json(within(field.keys, leaf.value))}"
        condition = test.on(field.value, field.text, field.kind)
        if not indexed:
            return condition
        more: list[str] = []
        if leaf.path in given.texts and test.cut is not None:
            more.append(f"{test.cut(field.cut)} AND {field.kind} = 'string'")
        elif test.kind == "number" and leaf.path in given.numbers:
            more.append(f"{field.kind} = 'number'")
        elif test.kind in ("boolean", "object") and given.others(leaf.path):
            more.append(f"{other_shape(field)} AND {field.shape} = '{test.kind}'")
        if leaf.path in given.substrings and (inside := _inside(leaf)) is not None:
            more.append(f"{field.text} LIKE {self._bound.text(inside)} AND {field.kind} = 'string'")
        return "(" + " AND ".join([*more, condition]) + ")" if more else condition

    def _by_containment(self, leaf: Leaf, field: Field, indexed: bool) -> TypeGuard[Equal]:
        """Return whether equality is asked that no index answers; objects contain more than what is equal."""
        if not isinstance(leaf, Equal) or isinstance(leaf.value, dict) or not field.keys:
            return False
        given = self._declared
        return not (indexed and (given.others(leaf.path) or leaf.path in given.elements))

    def _by_kind(self, leaf: In, field: Field) -> str:
        """Return `in` with operands of several types as one condition for each, since each has its index."""
        kinds: dict[str, list[Any]] = {}
        for operand in leaf.values:
            kinds.setdefault(kind_of(operand), []).append(operand)
        parts = [In(leaf.path, tuple(operands)) for operands in kinds.values()]
        return f"({' OR '.join(self._scalar(p, self._tests.of(p), field, indexed=True) for p in parts)})"

    def _among(self, field: Field, *tests: Test) -> str:
        """Return the condition that some value behind a list passes one of the tests."""
        alone = tests[0].in_path if len(tests) == 1 else None
        if alone is None:
            first = f"EXISTS (SELECT 1 FROM {field.first_values()} AS e WHERE {_inner(tests)})"
        else:
            first = _exists(field.column, field.way, *alone)
        return f"({first} OR ({field.nested} AND {self._deep(field, *tests)}))"

    def _deep(self, field: Field, *tests: Test) -> str:
        """Return the condition that some value at any depth passes one of the tests."""
        alone = tests[0].in_path if len(tests) == 1 else None
        if alone is None:
            return f"EXISTS (SELECT 1 FROM {field.deep_values()} AS e WHERE {_inner(tests)})"
        return _exists(field.column, field.deep, *alone)

    def _absent(self, field: Field) -> str:
        """Return `is_null` so that the index of the rare types finds it."""
        other = other_shape(field)
        return (
            f"(({other} AND {field.shape} = 'null') OR ({other} AND {field.shape} = 'array'"
            f" AND NOT EXISTS (SELECT 1 FROM {field.values()} AS e)))"
        )

    def _on_attribute(self, leaf: Leaf, text: str) -> str:
        """Return the condition on a record attribute, which is text and never missing."""
        bound = self._bound
        match leaf:
            case Equal(_, str() as operand):
                return f"({text} = {bound.text(operand)})"
            case In(_, operands):
                return f"({text} = ANY({bound.texts([o for o in operands if isinstance(o, str)])}))"
            case _:
                return self._tests.of(leaf).on("NULL::jsonb", text, "'string'")


def _exists(column: str, way: str, condition: str, variables: Value | None) -> str:
    """Return the condition that some value that a jsonpath reaches passes a filter of jsonpath's."""
    path = literal(f"lax {way} ? ({condition})")
    return f"jsonb_path_exists({column}, {path}{f', {variables}' if variables else ''})"


def _inner(tests: Sequence[Test]) -> str:
    return " OR ".join(test.on("e.v", "(e.v #>> '{}')", "jsonb_typeof(e.v)") for test in tests)


def _shapes(keys: tuple[str, ...], operand: Any) -> list[Any]:
    """Return the objects that contain a value at a path, with and without a list at each key."""
    shapes = [operand]
    for key in reversed(keys):
        shapes = [{key: inner} for shape in shapes for inner in (shape, [shape])]
    return shapes


def _inside(leaf: Leaf) -> str | None:
    """Return a `LIKE` pattern that trigrams serve, where the leaf implies one."""
    match leaf:
        case Contains(_, text) if len(text) >= 3:
            return f"%{like_literal(text)}%"
        case EndsWith(_, text) if len(text) >= 3:
            return f"%{like_literal(text)}"
        case Like(_, pattern, False):
            return like_pattern(pattern)
        case _:
            return None
