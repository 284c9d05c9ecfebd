"""Predicates as Elasticsearch queries; the one place where field names and values enter a query.

A leaf is exact on records that are not odd at its path. `CORE` is that form alone; `UPPER` adds
the odd ones, and `LOWER` leaves them out, so that a `Not` above either stays a bound.
"""

from __future__ import annotations

import datetime as dt
import enum
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, assert_never

from isthmus._path import Path, Root
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
    Order,
    Ordered,
    Predicate,
    Regex,
    StartsWith,
    leaves,
)
from isthmus._query.split import Grade
from isthmus._query.text import ANY_RUN, parse_like
from isthmus._values import INT_MAX, INT_MIN
from isthmus.backends.elasticsearch import pattern
from isthmus.backends.elasticsearch.layout import (
    EVERYWHERE,
    FULLTEXT,
    LONGEST_TEXT,
    field_name,
    is_plain,
    mark,
)
from isthmus.errors import UnsupportedError

Query: TypeAlias = dict[str, Any]
ALL: Query = {"match_all": {}}
NONE: Query = {"match_none": {}}
_TERMS = 60_000
# The server takes 30 levels of `bool` (a static setting); leaves and what is around a tree need some.
_DEEPEST = 22
_LIST_TERMS = 50
_TIME = re.compile(r"(19[7-9]\d|20\d\d|21\d\d|22[0-5]\d)-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d\.\d{6}Z")
_TIMES = frozenset({Root.CREATED_AT, Root.UPDATED_AT})


class Bound(enum.Enum):
    """What a compiled tree does with records that are odd at a leaf's path."""

    CORE = "says nothing of them"
    UPPER = "holds for them"
    LOWER = "does not hold for them"


_FLIPPED = {Bound.CORE: Bound.CORE, Bound.UPPER: Bound.LOWER, Bound.LOWER: Bound.UPPER}


def stored(path: Path) -> bool:
    """Return whether the path leads into data or metadata, whose fields may be odd."""
    return path.root is Root.DATA or (path.root is Root.METADATA and bool(path.keys))


def judged_paths(predicate: Predicate) -> list[Path]:
    """Return the paths at which a record may be odd for this predicate; full text is the store's alone."""
    found = (leaf.path for leaf in leaves(predicate) if not isinstance(leaf, Matches))
    return list(dict.fromkeys(path for path in found if stored(path)))


def odd_at(paths: Iterable[Path]) -> Query:
    """Return the query for records that are odd at one of the paths."""
    return {"terms": {"odd": [*(mark(field_name(path)) for path in paths), EVERYWHERE]}}


def object_at(paths: Iterable[Path]) -> Query:
    """Return the query for records with an object at one of the paths."""
    return {"terms": {"obj": [mark(field_name(path)) for path in paths]}}


def either(queries: list[Query]) -> Query:
    """Return the disjunction."""
    queries = [query for query in queries if query is not NONE]
    if not queries:
        return NONE
    if len(queries) == 1:
        return queries[0]
    return {"bool": {"should": queries, "minimum_should_match": 1}}


def both(queries: list[Query], *, scored: bool = False) -> Query:
    """Return the conjunction."""
    queries = [query for query in queries if query is not ALL]
    if not queries:
        return ALL
    if len(queries) == 1:
        return queries[0]
    return {"bool": {"must" if scored else "filter": queries}}


def without(query: Query, excluded: Query, *, scored: bool = False) -> Query:
    """Return the query less the excluded records."""
    inner = [] if query is ALL else [query]
    return {"bool": {"must" if scored else "filter": inner, "must_not": [excluded]}}


class TooDeep(Exception):
    """The tree has more levels than the server takes."""


def _cut_off(bound: Bound) -> Query:
    match bound:
        case Bound.UPPER:
            return ALL
        case Bound.LOWER:
            return NONE
        case Bound.CORE:
            raise TooDeep
        case _:
            assert_never(bound)


class Compiler:
    """Compiles for one state of a mapping."""

    def __init__(self, types: Mapping[str, str], fulltext: Iterable[str], *, scored: bool = False) -> None:
        self._types = types
        self._fulltext = frozenset(fulltext)
        self._scored = scored

    def tree(self, predicate: Predicate, bound: Bound, depth: int = _DEEPEST) -> Query:
        """Return the query of a predicate.

        What lies too deep for the server is taken for true or false, as the bound has it; raises
        `TooDeep` if there must be an exact query.
        """
        match predicate:
            case And() | Or() | Not() if depth == 0:
                return _cut_off(bound)
            case And(terms):
                return both([self.tree(term, bound, depth - 1) for term in terms], scored=self._scored)
            case Or(terms):
                return either([self.tree(term, bound, depth - 1) for term in terms])
            case Not(term):
                return {"bool": {"must_not": [self.tree(term, _FLIPPED[bound], depth - 1)]}}
            case leaf:
                return self._leaf(leaf, bound)

    def _leaf(self, leaf: Leaf, bound: Bound) -> Query:
        core = self.core(leaf)
        if isinstance(leaf, Matches):
            return core
        if stored(leaf.path):
            match bound:
                case Bound.CORE:
                    pass
                case Bound.UPPER:
                    core = either([core, odd_at([leaf.path])])
                case Bound.LOWER:
                    core = without(core, odd_at([leaf.path]))
                case _:
                    assert_never(bound)
        # Only full text ranks; a comparison that counted would drown it.
        return {"constant_score": {"filter": core, "boost": 0}} if self._scored else core

    def type_of(self, path: Path) -> str | None:
        """Return the type of a path's field; None if it has none of its own."""
        if path.root is Root.ID:
            return "keyword"
        if path.root in _TIMES:
            return "date_nanos"
        return self._types.get(field_name(path)) if stored(path) and is_plain(path) else None

    def field(self, path: Path) -> str:
        """Return the name of the field that holds a path's values."""
        if path.root is Root.ID:
            return "id"
        return path.root.value[1:] if path.root in _TIMES else field_name(path)

    def core(self, leaf: Leaf) -> Query:
        """Return the query that is right for records not odd at the leaf's path."""
        path = leaf.path
        match leaf:
            case Equal(_, dict()):
                return object_at([path]) if stored(path) else NONE
            case Equal(_, value):
                return self._among(path, [value])
            case EqualList(_, operand):
                return self._list(path, operand)
            case In(_, values):
                return self._among(path, values)
            case Ordered(_, op, value):
                return self._range(path, {_RANGE[op]: value})
            case Between(_, low, high):
                return self._range(path, {"gte": low, "lte": high})
            case Exists():
                return self._exists(path)
            case Matches(_, text):
                return self._match(path, text)
            case Like() | Regex() | StartsWith() | EndsWith() | Contains():
                return self._text(leaf)
            case _:
                assert_never(leaf)

    def _among(self, path: Path, values: Iterable[Any]) -> Query:
        field = self.field(path)
        known = (_term(self.type_of(path), value) for value in values)
        terms = [term for term in known if term is not None]
        if not terms:
            return NONE
        if len(terms) == 1:
            return {"term": {field: {"value": terms[0]}}}
        chunks = [terms[at : at + _TERMS] for at in range(0, len(terms), _TERMS)]
        return either([{"terms": {field: chunk}} for chunk in chunks])

    def _list(self, path: Path, operand: list[Any]) -> Query:
        """Return a superset: each scalar in the operand is a value found, each object an object found."""
        if not stored(path):
            return NONE
        queries: list[Query] = []
        for value in _flat(operand):
            if len(queries) == _LIST_TERMS:
                break
            queries.append(object_at([path]) if isinstance(value, dict) else self._among(path, [value]))
        return NONE if any(query is NONE for query in queries) else both(queries)

    def _range(self, path: Path, bounds: dict[str, Any]) -> Query:
        field, kind = self.field(path), self.type_of(path)
        sample = next(iter(bounds.values()))
        if isinstance(sample, bool):
            passing = [v for v in (False, True) if all(_TESTS[op](v, bound) for op, bound in bounds.items())]
            return {"terms": {field: passing}} if kind == "boolean" and passing else NONE
        if isinstance(sample, str):
            if kind == "keyword":
                limits = _text_bounds(bounds)
                return {"range": {field: limits}} if limits else {"exists": {"field": field}}
            if kind == "date_nanos":
                if not all(map(_is_time, bounds.values())):
                    return ALL
                return {"range": {field: {op: text[:-1] + "000Z" for op, text in bounds.items()}}}
            return NONE
        if kind == "double":
            return {"range": {field: dict(_double_bound(op, bound) for op, bound in bounds.items())}}
        among = _long_bounds(bounds) if kind == "long" else None
        return NONE if among is None else {"range": {field: among}}

    def _exists(self, path: Path) -> Query:
        if not stored(path):
            return ALL
        objects = object_at([path])
        if self.type_of(path) is None:
            return objects
        return either([{"exists": {"field": field_name(path)}}, objects])

    def _match(self, path: Path, text: str) -> Query:
        name = ".".join(path.keys)
        if path.root is not Root.DATA or name not in self._fulltext:
            raise UnsupportedError(
                f"match() needs {name!r} in the config's fulltext=", capability="relevance"
            )
        return {"match": {f"data.{name}.{FULLTEXT}": {"query": text}}}

    def _text(self, leaf: Like | Regex | StartsWith | EndsWith | Contains) -> Query:
        kind = self.type_of(leaf.path)
        if kind == "date_nanos":
            return ALL
        if kind != "keyword":
            return NONE
        field = self.field(leaf.path)
        some: Query = ALL if leaf.path.root is Root.ID else {"exists": {"field": field}}
        match leaf:
            case Like(_, text, fold):
                parts = parse_like(text)
                if all(part is ANY_RUN for part in parts) and parts:
                    return some
                if fold:
                    return _regexp(field, pattern.folded_regexp(text)) or some
                if all(isinstance(part, str) for part in parts):
                    return self._among(leaf.path, ["".join(map(str, parts))])
                return _wildcard(field, pattern.wildcard(text)) or some
            case Regex(_, text):
                return _regexp(field, pattern.regexp(text)) or some
            case StartsWith(_, text):
                if not text:
                    return some
                return {"prefix": {field: {"value": pattern.cut(text)}}}
            case EndsWith(_, text):
                return _wildcard(field, pattern.around("*", text, "")) or some if text else some
            case Contains(_, text):
                return _wildcard(field, pattern.around("*", text, "*")) or some if text else some
            case _:
                assert_never(leaf)


def _flat(operand: list[Any]) -> Iterable[Any]:
    for value in operand:
        if isinstance(value, list):
            yield from _flat(value)
        elif value is not None:
            yield value


def _wildcard(field: str, text: str | None) -> Query | None:
    return None if text is None else {"wildcard": {field: {"value": text}}}


def _regexp(field: str, text: str | None) -> Query | None:
    return None if text is None else {"regexp": {field: {"value": text, "flags": "NONE"}}}


_RANGE = {Order.LT: "lt", Order.LE: "lte", Order.GT: "gt", Order.GE: "gte"}
_TESTS: Mapping[str, Any] = {
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
}


def _is_time(text: str) -> bool:
    """Return whether a text is a time as we store it, of those that the field can hold."""
    if _TIME.fullmatch(text) is None:
        return False
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:  # February 30
        return False
    return True


def _term(kind: str | None, value: Any) -> Any:
    """Return the term that finds a scalar in a field of this type; None if none can."""
    match value:
        case bool():
            return value if kind == "boolean" else None
        case str():
            if kind == "date_nanos":
                return value[:-1] + "000Z" if _is_time(value) else None
            return value if kind == "keyword" and len(value) <= LONGEST_TEXT else None
        case _ if kind == "double":
            return float(value) if float(value) == value else None
        case _ if kind == "long":
            return int(value) if int(value) == value and INT_MIN < value < INT_MAX else None
    return None


def _text_bounds(bounds: Mapping[str, str]) -> dict[str, str]:
    """Return the bounds; of a text too long for the server only what surely holds."""
    limits = {}
    for op, bound in bounds.items():
        short = pattern.cut(bound)
        if short == bound:
            limits[op] = bound
        elif op in ("gt", "gte"):
            limits["gte"] = short
    return limits


def _double_bound(op: str, bound: float) -> tuple[str, float]:
    """Return the bound among doubles that has the same doubles on either side."""
    near = float(bound)
    if near == bound:
        return op, near
    if op in ("gt", "gte"):
        return ("gte" if near > bound else "gt"), near
    return ("lt" if near > bound else "lte"), near


def _long_bounds(bounds: Mapping[str, float]) -> dict[str, int] | None:
    """Return the bounds among integers; None if no integer lies within them."""
    limits: dict[str, int] = {"gte": INT_MIN, "lte": INT_MAX}
    for op, bound in bounds.items():
        match op:
            case "gt" | "gte":
                least = math.floor(bound) + 1 if op == "gt" else math.ceil(bound)
                limits["gte"] = max(limits["gte"], least)
            case _:
                most = math.ceil(bound) - 1 if op == "lt" else math.floor(bound)
                limits["lte"] = min(limits["lte"], most)
    return limits if limits["gte"] <= limits["lte"] else None


def grade(leaf: Leaf, fulltext: Iterable[str]) -> Grade:
    """Return how well a leaf's query fits its meaning, the odd records apart."""
    path = leaf.path
    if isinstance(leaf, Matches):
        Compiler({}, fulltext).core(leaf)  # refuses a field without full text
        return Grade.EXACT
    if path.root in (Root.VERSION, Root.SCORE):
        return Grade.NONE
    if path.root is Root.METADATA and not path.keys:
        return Grade.EXACT if isinstance(leaf, Exists) else Grade.NONE
    if path.root in _TIMES:
        return _time_grade(leaf)
    match leaf:
        case Equal(_, dict()):
            return Grade.SUPERSET if stored(path) else Grade.EXACT
        case EqualList(_, operand):
            if not stored(path):
                return Grade.EXACT
            return Grade.SUPERSET if any(True for _ in _flat(operand)) else Grade.NONE
        case Like(_, text, fold):
            said = pattern.folded_regexp(text) if fold else pattern.wildcard(text)
            return Grade.EXACT if said is not None or not set(text) & set("%_") else Grade.SUPERSET
        case Regex(_, text):
            return Grade.EXACT if pattern.regexp(text) is not None else Grade.SUPERSET
        case EndsWith(_, text) | Contains(_, text):
            return Grade.EXACT if pattern.around("*", text, "*") is not None else Grade.SUPERSET
        case StartsWith(_, text) | Ordered(_, _, str() as text):
            return Grade.EXACT if pattern.cut(text) == text else Grade.SUPERSET
        case Between(_, str() as low, str() as high):
            short = pattern.cut(low) == low and pattern.cut(high) == high
            return Grade.EXACT if short else Grade.SUPERSET
        case Equal() | In() | Ordered() | Between() | Exists():
            return Grade.EXACT
        case _:
            assert_never(leaf)


def _time_grade(leaf: Leaf) -> Grade:
    match leaf:
        case Ordered(_, _, str() as bound):
            return Grade.EXACT if _is_time(bound) else Grade.SUPERSET
        case Between(_, str() as low, str() as high):
            return Grade.EXACT if _is_time(low) and _is_time(high) else Grade.SUPERSET
        case Like() | Regex() | StartsWith() | EndsWith() | Contains():
            return Grade.SUPERSET
    return Grade.EXACT
