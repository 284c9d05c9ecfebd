"""Predicates as SQL conditions (semantics §3).

A leaf is a test of the one value at its path, or, where a list is on the way, a test of the
values behind it. Conditions may be NULL for false; only `NOT` makes a difference of it, so only
there it is taken out (everywhere else that would hide the indexes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

from isthmus._path import Root
from isthmus._query.ast import (
    And,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    In,
    Leaf,
    Like,
    Matches,
    Not,
    Or,
    Ordered,
    Predicate,
    Regex,
    StartsWith,
)
from isthmus._query.split import Grade
from isthmus._values import kind_of
from isthmus.backends.postgres.declared import Declared, other_shape
from isthmus.backends.postgres.fields import CUT, Field, attribute, field_of
from isthmus.backends.postgres.names import literal
from isthmus.backends.postgres.patterns import (
    folded_regex,
    like_literal,
    like_pattern,
    like_prefix,
    successor,
)
from isthmus.backends.postgres.regex import translated
from isthmus.backends.postgres.statement import Bound, Value
from isthmus.errors import UnsupportedError

NOTHING = "FALSE"
# A list this long is hashed by the server if it comes as rows; `= ANY` walks it for each row.
_HASHED = 200

_KIND = {"bool": "boolean", "number": "number", "text": "string", "object": "object"}


def grade(leaf: Leaf) -> Grade:
    """Return how well the SQL of a leaf fits its meaning."""
    match leaf:
        case Regex(_, pattern):
            return Grade.EXACT if translated(pattern) is not None else Grade.SUPERSET
        case Like(_, pattern, True):
            return Grade.EXACT if folded_regex(pattern) is not None else Grade.SUPERSET
        case Matches():
            return Grade.NONE
        case _:
            return Grade.EXACT


@dataclass(frozen=True, slots=True)
class _Test:
    """A leaf as a condition on one value."""

    on: Callable[[str, str, str], str]
    """The condition for the expressions of the value as jsonb, of its characters and of its type."""
    in_path: tuple[str, Value | None] | None = None
    """The same as a jsonpath filter with its bound variables, which is cheaper on lists."""
    cut: Callable[[str], str] | None = None
    """For text: the weaker condition on the indexed first characters."""
    kind: str | None = None
    """The only type that passes."""


class Filter:
    """Compiles predicates, binding their operands."""

    def __init__(self, bound: Bound, declared: Declared) -> None:
        self._bound = bound
        self._declared = declared

    def condition(self, predicate: Predicate, *, indexed: bool = True) -> str:
        """Return the SQL condition of a predicate; `indexed` says whether an index can serve it here."""
        match predicate:
            case And(terms):
                return (
                    "(" + " AND ".join(self.condition(t, indexed=indexed) for t in terms) + ")"
                    if terms
                    else "TRUE"
                )
            case Or(terms):
                return (
                    "(" + " OR ".join(self.condition(t, indexed=indexed) for t in terms) + ")"
                    if terms
                    else "FALSE"
                )
            case Not(Exists(path)) if indexed and self._declared.others(path):
                return self._absent(field_of(path))
            case Not(term):
                return f"({self.condition(term, indexed=False)} IS NOT TRUE)"
            case leaf:
                return self._leaf(leaf, indexed)

    def _leaf(self, leaf: Leaf, indexed: bool) -> str:
        path = leaf.path
        if isinstance(leaf, Matches):
            raise UnsupportedError("postgres has no ranked full-text match", capability="relevance")
        if path.root is Root.SCORE:
            return NOTHING
        if isinstance(leaf, EqualList):
            if attribute(path) is not None:
                return NOTHING
            return f"({field_of(path).value} = {self._bound.json(leaf.value)})"
        whole = attribute(path)
        if whole is not None:
            return self._on_attribute(leaf, whole)
        field = field_of(path)
        test = self._test(leaf)
        one = self._scalar(leaf, field, test, indexed)
        if not field.keys:
            return one
        listed = field.listed
        if indexed and self._declared.others(path):
            listed = f"({other_shape(field)} AND {field.shape} = 'array')"
        return f"({one} OR ({listed} AND {self._among(field, test)}))"

    def _scalar(self, leaf: Leaf, field: Field, test: _Test, indexed: bool) -> str:
        """Return the condition on the value at the path, with what its index asks for."""
        condition = test.on(field.value, field.text, field.kind)
        if not indexed:
            return condition
        given = self._declared
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

    def _among(self, field: Field, test: _Test) -> str:
        """Return the condition that some value behind a list passes."""
        inner = test.on("e.v", "(e.v #>> '{}')", "jsonb_typeof(e.v)")
        if test.in_path is not None:
            condition, variables = test.in_path
            way = literal(f"lax {field.way} ? ({condition})")
            first = f"jsonb_path_exists({field.column}, {way}{f', {variables}' if variables else ''})"
        else:
            first = f"EXISTS (SELECT 1 FROM {field.first_values()} AS e WHERE {inner})"
        deep = f"EXISTS (SELECT 1 FROM {field.deep_values()} AS e WHERE {inner})"
        return f"({first} OR ({field.nested} AND {deep}))"

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
            case Exists():
                return "TRUE"
            case Equal(_, operand):
                return f"({text} = {bound.text(operand)})" if isinstance(operand, str) else NOTHING
            case In(_, operands):
                return f"({text} = ANY({bound.texts([o for o in operands if isinstance(o, str)])}))"
            case Ordered(_, _, operand) | Between(_, operand, _) if not isinstance(operand, str):
                return NOTHING
            case _:
                return self._test(leaf).on("NULL::jsonb", text, "'string'")

    def _test(self, leaf: Leaf) -> _Test:
        bound = self._bound
        match leaf:
            case Equal(_, operand):
                return self._equal(operand)
            case In(_, operands):
                return self._one_of(operands)
            case Ordered(_, op, operand):
                return self._range(operand, [(op.value, operand)])
            case Between(_, low, high):
                return self._range(low, [(">=", low), ("<=", high)])
            case Like(_, pattern, fold):
                if fold:
                    return self._regex(folded_regex(pattern))
                like = bound.text(like_pattern(pattern))
                return self._text(lambda t: f'{t} COLLATE "C" LIKE {like}', prefix=like_prefix(pattern))
            case Regex(_, pattern):
                return self._regex(translated(pattern))
            case StartsWith(_, operand):
                start = bound.text(operand)
                in_path = ("@ starts with $x", bound.json({"x": operand}))
                return self._text(lambda t: f"starts_with({t}, {start})", prefix=operand, in_path=in_path)
            case EndsWith(_, operand):
                end, size = bound.text(operand), bound.integer(len(operand))
                return self._text(lambda t: f'right({t}, {size}) = {end} COLLATE "C"')
            case Contains(_, operand):
                part = bound.text(operand)
                return self._text(lambda t: f'strpos({t} COLLATE "C", {part}) > 0')
            case Exists():
                some = '@.type() != "null" && @.type() != "array"'
                return _Test(lambda v, t, k: f"{k} NOT IN ('null', 'array')", in_path=(some, None))
            case EqualList() | Matches():
                raise ValueError("not a test of one value")
            case _:
                assert_never(leaf)

    def _equal(self, operand: Any) -> _Test:
        value = self._bound.json(operand)
        kind = _KIND[kind_of(operand)]
        # jsonpath compares scalars only.
        in_path = None if kind == "object" else ("@ == $x", self._bound.json({"x": operand}))
        return _Test(
            lambda v, t, k: f"{v} = {value}",
            in_path,
            cut=self._cuts([("=", operand)]) if isinstance(operand, str) else None,
            kind=kind,
        )

    def _one_of(self, operands: tuple[Any, ...]) -> _Test:
        values = self._bound.jsons(operands)
        kinds = {_KIND[kind_of(operand)] for operand in operands}
        kind = kinds.pop() if len(kinds) == 1 else None
        cut = None
        if kind == "string":
            cuts = self._bound.texts(sorted({operand[:CUT] for operand in operands}))

            def cut(text: str) -> str:
                return f"{text} = ANY({cuts})"

        if len(operands) > _HASHED:
            return _Test(lambda v, t, k: f"{v} IN (SELECT unnest({values}))", cut=cut, kind=kind)
        return _Test(lambda v, t, k: f"{v} = ANY({values})", cut=cut, kind=kind)

    def _range(self, operand: Any, bounds: list[tuple[str, Any]]) -> _Test:
        """Return the test of one value against bounds of the operand's type."""
        kind = _KIND[kind_of(operand)]
        names = [f"x{place}" for place in range(len(bounds))]
        variables = self._bound.json({name: value for name, (_, value) in zip(names, bounds, strict=True)})
        path = " && ".join(f"@ {op} ${name}" for name, (op, _) in zip(names, bounds, strict=True))
        if kind == "string":
            # jsonb's own order of texts follows the database's collation.
            texts = [(op, self._bound.text(value)) for op, value in bounds]
            return _Test(
                lambda v, t, k: (
                    "(" + " AND ".join(f'{t} COLLATE "C" {op} {end}' for op, end in texts) + f" AND {k} = 'string')"
                ),
                (path, variables),
                cut=self._cuts([(op.rstrip("=") + "=", value) for op, value in bounds]),
                kind=kind,
            )
        ends = [(op, self._bound.json(value)) for op, value in bounds]
        return _Test(
            lambda v, t, k: "(" + " AND ".join(f"{v} {op} {end}" for op, end in ends) + f" AND {k} = '{kind}')",
            (path, variables),
            kind=kind,
        )

    def _text(
        self, test: Callable[[str], str], *, prefix: str = "", in_path: tuple[str, Value | None] | None = None
    ) -> _Test:
        cut = None
        if prefix:
            start = prefix[:CUT]
            end = successor(start)
            cut = self._cuts([(">=", start)] if end is None else [(">=", start), ("<", end)])
        return _Test(lambda v, t, k: f"({k} = 'string' AND {test(t)})", in_path, cut=cut, kind="string")

    def _regex(self, pattern: str | None) -> _Test:
        if pattern is None:  # the superset: it must be text to match at all
            return _Test(lambda v, t, k: f"{k} = 'string'", ('@.type() == "string"', None), kind="string")
        regex = self._bound.text(pattern)
        return self._text(lambda t: f'{t} COLLATE "C" ~ {regex}')

    def _cuts(self, bounds: list[tuple[str, str]]) -> Callable[[str], str]:
        """Return the bounds as conditions on the first characters alone: cutting keeps the order."""
        ends = [(op, self._bound.text(value[:CUT])) for op, value in bounds]
        return lambda cut: " AND ".join(f"{cut} {op} {end}" for op, end in ends)


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
