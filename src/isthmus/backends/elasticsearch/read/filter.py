"""Compiles predicates to Elasticsearch queries; the one place where field names and values enter them.

The query of a leaf is exact for records whose value at its path is indexed as it is. For the others,
which have the path in their stored `odd`, the caller chooses a treatment: see `Unindexed`.
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
    leaves,
)
from isthmus._query.text import ANY_RUN, parse_like
from isthmus.backends.elasticsearch.layout import EVERYWHERE, FULLTEXT, field_mark, field_name, is_plain_path
from isthmus.backends.elasticsearch.read import patterns
from isthmus.backends.elasticsearch.read.term_values import (
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
# The server accepts 30 levels of `bool` (a static setting); leaves and the rest of a search need some.
_MAX_DEPTH = 22
_LIST_TERMS = 50
TIMES = frozenset({Root.CREATED_AT, Root.UPDATED_AT})


class Unindexed(enum.Enum):
    """How a compiled tree treats records that are not indexed at a leaf's path.

    `MATCHED` and `EXCLUDED` make an upper and a lower bound of the exact result; a `Not` turns one into
    the other.
    """

    IGNORED = "they match or not, as their fields happen to be indexed"
    MATCHED = "they match the leaf"
    EXCLUDED = "they do not match the leaf"


_NEGATED = {
    Unindexed.IGNORED: Unindexed.IGNORED,
    Unindexed.MATCHED: Unindexed.EXCLUDED,
    Unindexed.EXCLUDED: Unindexed.MATCHED,
}
# The query of a part that is too deep.
_CUT_OFF = {Unindexed.MATCHED: ALL, Unindexed.EXCLUDED: NONE}


def is_field(path: Path) -> bool:
    """Return whether a field of data or metadata is at the path; its values may not be indexed."""
    return path.root is Root.DATA or (path.root is Root.METADATA and bool(path.keys))


def paths_of(predicate: Predicate) -> list[Path]:
    """Return the paths on which a predicate depends, but for those of full text and vectors."""
    found = (leaf.path for leaf in leaves(predicate) if not isinstance(leaf, RANKED))
    return list(dict.fromkeys(path for path in found if is_field(path)))


def match_unindexed(paths: Iterable[Path]) -> Query:
    """Return the query for records whose value at one of the paths is not indexed."""
    return {"terms": {"odd": [*(field_mark(field_name(path)) for path in paths), EVERYWHERE]}}


def match_objects(paths: Iterable[Path]) -> Query:
    """Return the query for records with an object at one of the paths."""
    return {"terms": {"obj": [field_mark(field_name(path)) for path in paths]}}


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
    """Return the query without the excluded records."""
    inner = [] if query is ALL else [query]
    return {"bool": {"must" if scored else "filter": inner, "must_not": [excluded]}}


class TooDeep(Exception):
    """The tree has more levels than the server accepts."""


class Compiler:
    """A compiler for one state of a mapping; with `scored`, full text alone contributes to scores."""

    def __init__(self, types: Mapping[str, str], fulltext: Iterable[str], *, scored: bool = False) -> None:
        self._types = types
        self._fulltext = frozenset(fulltext)
        self._scored = scored

    def tree(self, predicate: Predicate, unindexed: Unindexed, depth: int = _MAX_DEPTH) -> Query:
        """Return the query of a predicate.

        A part that is too deep for the server becomes true with `MATCHED`, false with `EXCLUDED`;
        with `IGNORED` it raises `TooDeep`.
        """
        match predicate:
            case And() | Or() | Not() if depth == 0:
                if unindexed not in _CUT_OFF:
                    raise TooDeep
                return _CUT_OFF[unindexed]
            case And(terms):
                return both([self.tree(term, unindexed, depth - 1) for term in terms], scored=self._scored)
            case Or(terms):
                return either([self.tree(term, unindexed, depth - 1) for term in terms])
            case Not(term):
                return {"bool": {"must_not": [self.tree(term, _NEGATED[unindexed], depth - 1)]}}
            case leaf:
                return self._leaf(leaf, unindexed)

    def _leaf(self, leaf: Leaf, unindexed: Unindexed) -> Query:
        core = self.core(leaf)
        if isinstance(leaf, RANKED):
            return core
        if is_field(leaf.path):
            if unindexed is Unindexed.MATCHED:
                core = either([core, match_unindexed([leaf.path])])
            elif unindexed is Unindexed.EXCLUDED:
                core = without(core, match_unindexed([leaf.path]))
        # A comparison that contributed to the score would outweigh full text.
        return {"constant_score": {"filter": core, "boost": 0}} if self._scored else core

    def type_of(self, path: Path) -> str | None:
        """Return the type of a path's field; None if it is not mapped."""
        if path.root is Root.ID:
            return "keyword"
        if path.root in TIMES:
            return "date_nanos"
        kind = self._types.get(field_name(path)) if is_field(path) and is_plain_path(path) else None
        return None if kind == VECTOR else kind

    def field(self, path: Path) -> str:
        """Return the name of the field that holds a path's values."""
        if path.root is Root.ID:
            return "id"
        return path.root.value[1:] if path.root in TIMES else field_name(path)

    def core(self, leaf: Leaf) -> Query:
        """Return the query that is exact for records that are indexed at the leaf's path."""
        path = leaf.path
        match leaf:
            case Equal(_, dict()):
                return match_objects([path]) if is_field(path) else NONE
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
            case AnyObject():
                raise AssertionError("the core pushes the positive part of any() only")
            case KNN():
                return ALL  # a clause of its own: `vectors.knn_clause`
            case Like() | Regex() | StartsWith() | EndsWith() | Contains():
                return self._text(leaf)
            case _:
                assert_never(leaf)

    def _among(self, path: Path, values: Iterable[Any]) -> Query:
        field = self.field(path)
        kind = self.type_of(path)
        known = (term(kind, value) for value in values)
        terms = [found for found in known if found is not None]
        if not terms:
            return NONE
        if len(terms) == 1:
            return {"term": {field: {"value": terms[0]}}}
        chunks = [terms[at : at + _TERMS] for at in range(0, len(terms), _TERMS)]
        return either([{"terms": {field: chunk}} for chunk in chunks])

    def _list(self, path: Path, operand: list[Any]) -> Query:
        """Return a superset: records with each scalar of the operand, and with an object for each object."""
        if not is_field(path):
            return NONE
        queries: list[Query] = []
        for value in flatten(operand):
            if len(queries) == _LIST_TERMS:
                break
            queries.append(match_objects([path]) if isinstance(value, dict) else self._among(path, [value]))
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
        if not is_field(path):
            return ALL
        objects = match_objects([path])
        if self.type_of(path) is None:
            return objects
        return either([{"exists": {"field": field_name(path)}}, objects])

    def _match(self, path: Path, text: str) -> Query:
        return {"match": {self.text_field(path, "match()"): {"query": text}}}

    def text_field(self, path: Path, needed_by: str) -> str:
        """Return the name of the analyzed field of a path; raises `UnsupportedError` if there is none."""
        name = ".".join(path.keys)
        if path.root is not Root.DATA or name not in self._fulltext:
            raise UnsupportedError(
                f"{needed_by} needs {name!r} in the config's fulltext=", capability="relevance"
            )
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
                    return _regexp(field, patterns.like_regexp(text)) or some
                if all(isinstance(part, str) for part in parts):
                    return self._among(leaf.path, ["".join(map(str, parts))])
                return _wildcard(field, patterns.wildcard(text)) or some
            case Regex(_, text):
                return _regexp(field, patterns.regexp(text)) or some
            case StartsWith(_, text):
                if not text:
                    return some
                return {"prefix": {field: {"value": patterns.truncate(text)}}}
            case EndsWith(_, text):
                return _wildcard(field, patterns.wildcard_around("*", text, "")) or some if text else some
            case Contains(_, text):
                return _wildcard(field, patterns.wildcard_around("*", text, "*")) or some if text else some
            case _:
                assert_never(leaf)


def flatten(operand: list[Any]) -> Iterable[Any]:
    """Yield the values of a list and of the lists in it, null left out."""
    for value in operand:
        if isinstance(value, list):
            yield from flatten(value)
        elif value is not None:
            yield value


def _wildcard(field: str, text: str | None) -> Query | None:
    return None if text is None else {"wildcard": {field: {"value": text}}}


def _regexp(field: str, text: str | None) -> Query | None:
    return None if text is None else {"regexp": {field: {"value": text, "flags": "NONE"}}}
