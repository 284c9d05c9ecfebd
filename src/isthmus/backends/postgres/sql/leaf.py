"""What a leaf asks of one value, as SQL (semantics §3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_never

from isthmus._query.ast import (
    KNN,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    In,
    Leaf,
    Like,
    Ordered,
    Regex,
    StartsWith,
    TextMatch,
)
from isthmus._query.split import Pushdown
from isthmus._values import kind_of
from isthmus.backends.postgres.sql.fields import CUT
from isthmus.backends.postgres.sql.like import folded_regex, like_pattern, like_prefix, successor
from isthmus.backends.postgres.sql.regex import translated
from isthmus.backends.postgres.sql.statement import Bound, Value

# A list this long is hashed by the server if it comes as rows; `= ANY` walks it for each row.
_HASHED = 200
KIND = {"bool": "boolean", "number": "number", "text": "string", "object": "object"}
"""What the server calls the types."""


def pushdown(leaf: Leaf) -> Pushdown:
    """Return how well the SQL of a leaf fits its meaning."""
    match leaf:
        case Regex(_, pattern):
            return Pushdown.EXACT if translated(pattern) is not None else Pushdown.SUPERSET
        case Like(_, pattern, True):
            return Pushdown.EXACT if folded_regex(pattern) is not None else Pushdown.SUPERSET
        case TextMatch() | KNN():
            return Pushdown.NONE
        case _:
            return Pushdown.EXACT


def asked_kind(leaf: Leaf) -> str | None:
    """Return the only type, by the server's name, of values that can satisfy a leaf; None: several can."""
    match leaf:
        case Equal(_, operand) | Ordered(_, _, operand) | Between(_, operand, _):
            return KIND[kind_of(operand)]
        case In(_, operands):
            kinds = {KIND[kind_of(operand)] for operand in operands}
            return kinds.pop() if len(kinds) == 1 else None
        case EqualList():
            return "array"
        case Exists():
            return None
        case Like() | Regex() | StartsWith() | EndsWith() | Contains() | TextMatch():
            return "string"
        case KNN():
            return "array"
        case _:
            assert_never(leaf)


@dataclass(frozen=True, slots=True)
class Test:
    """A leaf as a condition on one value."""

    on: Callable[[str, str, str], str]
    """The condition for the expressions of the value as jsonb, of its characters and of its type."""
    in_path: tuple[str, Value | None] | None = None
    """The same as a jsonpath filter with its bound variables, which is cheaper on lists."""
    cut: Callable[[str], str] | None = None
    """For text: the weaker condition on the indexed first characters."""
    kind: str | None = None
    """The only type that passes."""


class Tests:
    """Makes the tests of leaves, binding their operands."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound

    def of(self, leaf: Leaf) -> Test:
        """Return what a leaf asks of one value found."""
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
                return Test(lambda v, t, k: f"{k} NOT IN ('null', 'array')", in_path=(some, None))
            case EqualList() | TextMatch() | KNN():
                raise ValueError("not a test of one value")
            case _:
                assert_never(leaf)

    def _equal(self, operand: Any) -> Test:
        value = self._bound.json(operand)
        kind = KIND[kind_of(operand)]
        # jsonpath compares scalars only.
        in_path = None if kind == "object" else ("@ == $x", self._bound.json({"x": operand}))
        return Test(
            lambda v, t, k: f"{v} = {value}",
            in_path,
            cut=self._cuts([("=", operand)]) if isinstance(operand, str) else None,
            kind=kind,
        )

    def _one_of(self, operands: tuple[Any, ...]) -> Test:
        values = self._bound.jsons(operands)
        kinds = {KIND[kind_of(operand)] for operand in operands}
        kind = kinds.pop() if len(kinds) == 1 else None
        cut = None
        if kind == "string":
            cuts = self._bound.texts(sorted({operand[:CUT] for operand in operands}))

            def cut(text: str) -> str:
                return f"{text} = ANY({cuts})"

        if len(operands) > _HASHED:
            return Test(lambda v, t, k: f"{v} IN (SELECT unnest({values}))", cut=cut, kind=kind)
        # jsonpath compares scalars only.
        scalars = not any(isinstance(operand, dict) for operand in operands)
        in_path = ("@ == $x[*]", self._bound.json({"x": list(operands)})) if scalars else None
        return Test(lambda v, t, k: f"{v} = ANY({values})", in_path, cut=cut, kind=kind)

    def _range(self, operand: Any, bounds: list[tuple[str, Any]]) -> Test:
        """Return the test of one value against bounds of the operand's type."""
        kind = KIND[kind_of(operand)]
        names = [f"x{place}" for place in range(len(bounds))]
        variables = self._bound.json({name: value for name, (_, value) in zip(names, bounds, strict=True)})
        parts = [f"@ {op} ${name}" for name, (op, _) in zip(names, bounds, strict=True)]
        if len(bounds) > 1:
            # In lax mode a list is as good as any of its values, for each bound another one.
            parts.insert(0, f'@.type() == "{kind}"')
        path = " && ".join(parts)
        if kind == "string":
            # jsonb's own order of texts follows the database's collation.
            texts = [(op, self._bound.text(value)) for op, value in bounds]
            return Test(
                lambda v, t, k: (
                    "("
                    + " AND ".join(f'{t} COLLATE "C" {op} {end}' for op, end in texts)
                    + f" AND {k} = 'string')"
                ),
                (path, variables),
                cut=self._cuts([(op.rstrip("=") + "=", value) for op, value in bounds]),
                kind=kind,
            )
        ends = [(op, self._bound.json(value)) for op, value in bounds]
        return Test(
            lambda v, t, k: (
                "(" + " AND ".join(f"{v} {op} {end}" for op, end in ends) + f" AND {k} = '{kind}')"
            ),
            (path, variables),
            kind=kind,
        )

    def _text(
        self, test: Callable[[str], str], *, prefix: str = "", in_path: tuple[str, Value | None] | None = None
    ) -> Test:
        cut = None
        if prefix:
            start = prefix[:CUT]
            end = successor(start)
            cut = self._cuts([(">=", start)] if end is None else [(">=", start), ("<", end)])
        return Test(lambda v, t, k: f"({k} = 'string' AND {test(t)})", in_path, cut=cut, kind="string")

    def _regex(self, pattern: str | None) -> Test:
        if pattern is None:  # the superset: it must be text to match at all
            return Test(lambda v, t, k: f"{k} = 'string'", ('@.type() == "string"', None), kind="string")
        regex = self._bound.text(pattern)
        return self._text(lambda t: f'{t} COLLATE "C" ~ {regex}')

    def _cuts(self, bounds: list[tuple[str, str]]) -> Callable[[str], str]:
        """Return the bounds as conditions on the first characters alone: cutting keeps the order."""
        ends = [(op, self._bound.text(value[:CUT])) for op, value in bounds]
        return lambda cut: " AND ".join(f"{cut} {op} {end}" for op, end in ends)
