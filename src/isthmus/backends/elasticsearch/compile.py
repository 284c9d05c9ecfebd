"""Predicates as Elasticsearch queries; the one place where field names and values enter a query.

A leaf is exact on records that are not odd at its path. `CORE` is that form alone; `UPPER` adds
the odd ones, and `LOWER` leaves them out, so that a `Not` above either stays a bound.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, assert_never

from isthmus._path import Path, Root
from isthmus._query.ast import (
    KNN,
    RANKED,
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
    Not,
    Or,
    Ordered,
    Predicate,
    Regex,
    StartsWith,
    TextMatch,
    leaves,
)
from isthmus._query.text import ANY_RUN, parse_like
from isthmus.backends.elasticsearch import pattern
from isthmus.backends.elasticsearch.layout import (
    EVERYWHERE,
    FULLTEXT,
    field_name,
    is_plain,
    mark,
)
from isthmus.backends.elasticsearch.operands import (
    RANGE,
    TESTS,
    double_bound,
    is_time,
    long_bounds,
    term,
    text_bounds,
)
from isthmus.backends.elasticsearch.vectors import TYPE as VECTOR
from isthmus.errors import UnsupportedError

Query: TypeAlias = dict[str, Any]
ALL: Query = {"match_all": {}}
NONE: Query = {"match_none": {}}
_TERMS = 60_000
# The server takes 30 levels of `bool` (a static setting); leaves and what is around a tree need some.
_DEEPEST = 22
_LIST_TERMS = 50
TIMES = frozenset({Root.CREATED_AT, Root.UPDATED_AT})


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
    found = (leaf.path for leaf in leaves(predicate) if not isinstance(leaf, RANKED))
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
        if isinstance(leaf, RANKED):
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
        if path.root in TIMES:
            return "date_nanos"
        kind = self._types.get(field_name(path)) if stored(path) and is_plain(path) else None
        return None if kind == VECTOR else kind

    def field(self, path: Path) -> str:
        """Return the name of the field that holds a path's values."""
        if path.root is Root.ID:
            return "id"
        return path.root.value[1:] if path.root in TIMES else field_name(path)

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
                return self._range(path, {RANGE[op]: value})
            case Between(_, low, high):
                return self._range(path, {"gte": low, "lte": high})
            case Exists():
                return self._exists(path)
            case TextMatch(_, text):
                return self._match(path, text)
            case KNN():
                return ALL  # it stands beside the query: `vectors.nearest`
            case Like() | Regex() | StartsWith() | EndsWith() | Contains():
                return self._text(leaf)
            case _:
                assert_never(leaf)

    def _among(self, path: Path, values: Iterable[Any]) -> Query:
        field = self.field(path)
        known = (term(self.type_of(path), value) for value in values)
        terms = [found for found in known if found is not None]
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
        for value in flat(operand):
            if len(queries) == _LIST_TERMS:
                break
            queries.append(object_at([path]) if isinstance(value, dict) else self._among(path, [value]))
        return NONE if any(query is NONE for query in queries) else both(queries)

    def _range(self, path: Path, bounds: dict[str, Any]) -> Query:
        field, kind = self.field(path), self.type_of(path)
        sample = next(iter(bounds.values()))
        if isinstance(sample, bool):
            passing = [v for v in (False, True) if all(TESTS[op](v, bound) for op, bound in bounds.items())]
            return {"terms": {field: passing}} if kind == "boolean" and passing else NONE
        if isinstance(sample, str):
            if kind == "keyword":
                limits = text_bounds(bounds)
                return {"range": {field: limits}} if limits else {"exists": {"field": field}}
            if kind == "date_nanos":
                if not all(map(is_time, bounds.values())):
                    return ALL
                return {"range": {field: {op: text[:-1] + "000Z" for op, text in bounds.items()}}}
            return NONE
        if kind == "double":
            return {"range": {field: dict(double_bound(op, bound) for op, bound in bounds.items())}}
        among = long_bounds(bounds) if kind == "long" else None
        return NONE if among is None else {"range": {field: among}}

    def _exists(self, path: Path) -> Query:
        if not stored(path):
            return ALL
        objects = object_at([path])
        if self.type_of(path) is None:
            return objects
        return either([{"exists": {"field": field_name(path)}}, objects])

    def _match(self, path: Path, text: str) -> Query:
        return {"match": {self.words(path, "match()"): {"query": text}}}

    def words(self, path: Path, what: str) -> str:
        """Return the name of the field in which a path's words are searched."""
        name = ".".join(path.keys)
        if path.root is not Root.DATA or name not in self._fulltext:
            raise UnsupportedError(f"{what} needs {name!r} in the config's fulltext=", capability="relevance")
        return f"data.{name}.{FULLTEXT}"

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


def flat(operand: list[Any]) -> Iterable[Any]:
    for value in operand:
        if isinstance(value, list):
            yield from flat(value)
        elif value is not None:
            yield value


def _wildcard(field: str, text: str | None) -> Query | None:
    return None if text is None else {"wildcard": {field: {"value": text}}}


def _regexp(field: str, text: str | None) -> Query | None:
    return None if text is None else {"regexp": {field: {"value": text, "flags": "NONE"}}}
