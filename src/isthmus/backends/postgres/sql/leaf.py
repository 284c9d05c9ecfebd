"""Compiles the leaves of predicates to SQL conditions on one value (meaning §3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from isthmus._query.ast import (
    KNN,
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
    Ordered,
    Regex,
    StartsWith,
    TextMatch,
    leaves,
)
from isthmus._query.split import Pushdown
from isthmus._query.text import ANY_RUN, parse_like
from isthmus._values import kind_of, kinds_of
from isthmus.backends.postgres.sql.fields import PREFIX_LENGTH
from isthmus.backends.postgres.sql.like import ilike_regex, like_pattern, like_prefix, successor
from isthmus.backends.postgres.sql.regex import translate
from isthmus.backends.postgres.sql.statement import Parameter, Parameters

# The server hashes a list of rows of this length; `= ANY` scans the list for every row.
_HASHED = 200
# The operands of `in` that jsonpath compares with each value of a list: 80 bytes for each comparison.
_MOST_COMPARED = 8
# Each `any` is a subselect, whose planning the server does by recursion.
_MAX_LEVELS = 8
KIND = {"bool": "boolean", "number": "number", "text": "string", "object": "object"}
"""The server's names of the types."""


def pushdown(leaf: Leaf) -> Pushdown:
    """Return how closely the SQL of a leaf matches its meaning."""
    match leaf:
        case Regex(_, pattern):
            return Pushdown.EXACT if translate(pattern) is not None else Pushdown.SUPERSET
        case Like(_, pattern, True):
            return Pushdown.EXACT if ilike_regex(pattern) is not None else Pushdown.SUPERSET
        case TextMatch() | KNN():
            return Pushdown.NONE
        case AnyObject(_, where):
            exact = all(pushdown(inner) is Pushdown.EXACT for inner in leaves(where))
            return Pushdown.EXACT if exact and _levels(leaf) <= _MAX_LEVELS else Pushdown.NONE
        case _:
            return Pushdown.EXACT


def _levels(leaf: Leaf) -> int:
    """Return how deeply `any` is nested in a leaf."""
    if not isinstance(leaf, AnyObject):
        return 0
    return 1 + max(map(_levels, leaves(leaf.where)), default=0)


def only_kind(leaf: Leaf) -> str | None:
    """Return the only type of values that can satisfy a leaf, by the server's name; None if several can."""
    match leaf:
        case Equal(_, operand) | Ordered(_, _, operand) | Between(_, operand, _):
            return KIND[kind_of(operand)]
        case In(_, operands):
            kinds = kinds_of(operands)
            return KIND[kinds.pop()] if len(kinds) == 1 else None
        case EqualList():
            return "array"
        case Exists():
            return None
        case Like() | Regex() | StartsWith() | EndsWith() | Contains() | TextMatch():
            return "string"
        case AnyObject():
            return "object"
        case KNN():
            return "array"
        case _:
            assert_never(leaf)


JSONPathFilter: TypeAlias = "tuple[str, Parameter | None]"


@dataclass(frozen=True, slots=True)
class LeafSQL:
    """A leaf as a condition on one value."""

    condition: Callable[[str, str, str], str]
    """Returns the condition, given expressions of the value as jsonb, as text, and of its type."""
    jsonpath: JSONPathFilter | None = None
    """The same as a jsonpath filter with its bound variables, which is cheaper on lists."""
    text_prefix: Callable[[str], str] | None = None
    """For text: returns the weaker condition on the indexed prefix."""
    kind: str | None = None
    """The only type that satisfies it; None if several do."""
    equals: tuple[Any, ...] = ()
    """For equality with a scalar: the operand, for containment."""
    at_least: Callable[[str, str], tuple[str, str]] | None = None
    """For numbers with a lower bound: returns the bound, given the value and its type, and the rest.

    Any list with a value satisfies the bound too: jsonb orders lists above numbers, but the empty one
    below.
    """


class LeafCompiler:
    """Compiles leaves and binds their operands."""

    def __init__(self, params: Parameters) -> None:
        self._params = params

    def compile(self, leaf: Leaf) -> LeafSQL:
        """Return a leaf's condition on one value."""
        params = self._params
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
                    return self._regex(ilike_regex(pattern))
                like = params.text(like_pattern(pattern))
                prefix = like_prefix(pattern)
                # A list is searched by jsonpath where that is possible: no sub-select runs in parallel.
                alone = prefix and parse_like(pattern) == (prefix, ANY_RUN)
                jsonpath = ("@ starts with $x", params.json({"x": prefix})) if alone else None
                return self._text(lambda t: f'{t} COLLATE "C" LIKE {like}', prefix=prefix, jsonpath=jsonpath)
            case Regex(_, pattern):
                return self._regex(translate(pattern))
            case StartsWith(_, operand):
                start = params.text(operand)
                jsonpath = ("@ starts with $x", params.json({"x": operand}))
                return self._text(lambda t: f"starts_with({t}, {start})", prefix=operand, jsonpath=jsonpath)
            case EndsWith(_, operand):
                end, size = params.text(operand), params.integer(len(operand))
                return self._text(lambda t: f'right({t}, {size}) = {end} COLLATE "C"')
            case Contains(_, operand):
                part = params.text(operand)
                return self._text(lambda t: f'strpos({t} COLLATE "C", {part}) > 0')
            case Exists():
                some = '@.type() != "null" && @.type() != "array"'
                return LeafSQL(lambda v, t, k: f"{k} NOT IN ('null', 'array')", jsonpath=(some, None))
            case AnyObject() | EqualList() | TextMatch() | KNN():
                raise ValueError(f"{type(leaf).__name__} is not a condition on one value")
            case _:
                assert_never(leaf)

    def _equal(self, operand: Any) -> LeafSQL:
        value = self._params.json(operand)
        kind = KIND[kind_of(operand)]
        # jsonpath compares scalars only.
        jsonpath = None if kind == "object" else ("@ == $x", self._params.json({"x": operand}))
        text_prefix = self._prefix_condition([("=", operand)]) if isinstance(operand, str) else None
        equals = () if kind == "object" else (operand,)
        return LeafSQL(lambda v, t, k: f"{v} = {value}", jsonpath, text_prefix, kind, equals)

    def _one_of(self, operands: tuple[Any, ...]) -> LeafSQL:
        kinds = kinds_of(operands)
        kind = KIND[kinds.pop()] if len(kinds) == 1 else None
        text_prefix = None
        if kind == "string":

            def text_prefix(text: str) -> str:
                prefixes = self._params.texts([operand[:PREFIX_LENGTH] for operand in operands])
                return f"{text} = ANY({prefixes})"

        if len(operands) > _HASHED:
            # One parameter: encoding 100,000 elements of an array would hold the event loop for 0.1 s.
            rows = self._params.json(list(operands))
            return LeafSQL(
                lambda v, t, k: f"{v} IN (SELECT jsonb_array_elements({rows}))", None, text_prefix, kind
            )
        values = self._params.jsons(operands)
        # jsonpath compares scalars only, and frees what it compared only after the row.
        scalars = len(operands) <= _MOST_COMPARED and not any(isinstance(one, dict) for one in operands)
        jsonpath = ("@ == $x[*]", self._params.json({"x": list(operands)})) if scalars else None
        return LeafSQL(lambda v, t, k: f"{v} = ANY({values})", jsonpath, text_prefix, kind)

    def _range(self, operand: Any, bounds: list[tuple[str, Any]]) -> LeafSQL:
        """Return the condition that a value is within bounds of the operand's type."""
        kind = KIND[kind_of(operand)]
        names = [f"x{place}" for place in range(len(bounds))]
        variables = self._params.json({name: value for name, (_, value) in zip(names, bounds, strict=True)})
        parts = [f"@ {op} ${name}" for name, (op, _) in zip(names, bounds, strict=True)]
        if len(bounds) > 1:
            # In lax mode a list satisfies each bound by any of its values, not all bounds by the same one.
            parts.insert(0, f'@.type() == "{kind}"')
        is_text = kind == "string"
        bind = self._params.text if is_text else self._params.json
        ends = [(op, bind(value)) for op, value in bounds]

        def condition(value: str, text: str, type: str) -> str:
            # jsonb orders texts by the database's collation.
            side = f'{text} COLLATE "C"' if is_text else value
            return "(" + " AND ".join(f"{side} {op} {end}" for op, end in ends) + f" AND {type} = '{kind}')"

        closed = [(op.rstrip("=") + "=", value) for op, value in bounds]
        text_prefix = self._prefix_condition(closed) if is_text else None

        def above(value: str, type: str) -> tuple[str, str]:
            (op, end), *others = ends
            rest = [f"{type} = 'number'", *(f"{value} {op} {end}" for op, end in others)]
            return f"{value} {op} {end}", " AND ".join(rest)

        at_least = above if kind == "number" and bounds[0][0][0] == ">" else None
        return LeafSQL(condition, (" && ".join(parts), variables), text_prefix, kind, at_least=at_least)

    def _text(
        self, test: Callable[[str], str], *, prefix: str = "", jsonpath: JSONPathFilter | None = None
    ) -> LeafSQL:
        """Return the condition that a value is a text that passes a test; `prefix` begins every match."""
        text_prefix = None
        if prefix:
            start = prefix[:PREFIX_LENGTH]
            end = successor(start)
            bounds = [(">=", start)] if end is None else [(">=", start), ("<", end)]
            text_prefix = self._prefix_condition(bounds)
        # The test first: it is false for most rows, and to get the type extracts the value once more.
        return LeafSQL(lambda v, t, k: f"({test(t)} AND {k} = 'string')", jsonpath, text_prefix, "string")

    def _regex(self, pattern: str | None) -> LeafSQL:
        if pattern is None:  # the superset: only a text can match
            return LeafSQL(lambda v, t, k: f"{k} = 'string'", ('@.type() == "string"', None), kind="string")
        regex = self._params.text(pattern)
        # The type first: a large object would be searched as text.
        return LeafSQL(lambda v, t, k: f"""({k} = 'string' AND {t} COLLATE "C" ~ {regex})""", kind="string")

    def _prefix_condition(self, bounds: list[tuple[str, str]]) -> Callable[[str], str]:
        """Return the bounds as conditions on the prefix alone: cutting keeps the order."""
        ends = [(op, self._params.text(value[:PREFIX_LENGTH])) for op, value in bounds]
        return lambda text_prefix: " AND ".join(f"{text_prefix} {op} {end}" for op, end in ends)
