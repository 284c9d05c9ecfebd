"""Compiles predicates and orders for an index that isthmus did not make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_never

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
    Measure,
    Not,
    Or,
    Ordered,
    Predicate,
    Regex,
    SortKey,
    StartsWith,
    TextMatch,
)
from isthmus._query.bucket import GroupKey
from isthmus._query.split import Pushdown
from isthmus._query.text import parse_like
from isthmus.backends.elasticsearch.external.fields import SORTED, ExternalField
from isthmus.backends.elasticsearch.read import patterns
from isthmus.backends.elasticsearch.read.filter import ALL, NONE, Query, both, either
from isthmus.backends.elasticsearch.read.term_values import RANGE
from isthmus.errors import UnavailableError, UnsupportedError

_TERMS = 60_000
# The server's default for `index.max_regex_length`.
_LONGEST_REGEXP = 1_000


class ExternalCompiler:
    """A compiler for one state of a mapping.

    With `approximate` a query is the result by the mapping's own rules: numbers as they were
    truncated, dates by time, values that are not indexed left out.
    """

    def __init__(self, fields: Mapping[str, ExternalField], *, approximate: bool) -> None:
        self._fields = fields
        self._approximate = approximate

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return how closely a leaf's query matches its meaning."""
        if self.is_absent(leaf.path):
            return Pushdown.EXACT
        query = self.leaf(leaf)
        if query is None:
            return Pushdown.NONE
        exact = self._approximate or isinstance(leaf, TextMatch) or leaf.path.root is Root.ID
        return Pushdown.EXACT if exact else Pushdown.SUPERSET

    def tree(self, predicate: Predicate, *, scored: bool = False) -> Query:
        """Return the query of a predicate whose leaves all have one."""
        match predicate:
            case And(terms):
                return both([self.tree(term, scored=scored) for term in terms], scored=scored)
            case Or(terms):
                return either([self.tree(term) for term in terms])
            case Not(term):
                return {"bool": {"must_not": [self.tree(term)]}}
            case leaf:
                query = NONE if self.is_absent(leaf.path) else self.leaf(leaf)
                if query is None:  # it had one when the query was planned
                    raise UnavailableError("elasticsearch: the index's mapping has just changed")
                if scored and not isinstance(leaf, TextMatch):
                    return {"constant_score": {"filter": query, "boost": 0}}
                return query

    def is_absent(self, path: Path) -> bool:
        """Return whether no record of such an index has a value at the path."""
        return path.root in (Root.METADATA, Root.CREATED_AT, Root.UPDATED_AT)

    def field(self, path: Path) -> ExternalField | None:
        """Return the field that holds a path's values; None if the mapping has none."""
        return self._fields.get(".".join(path.keys)) if path.root is Root.DATA else None

    def text_field(self, path: Path, needed_by: str) -> str:
        """Return the name of the analyzed field of a path; raises `UnsupportedError` if there is none."""
        field = self.field(path)
        if field is None or field.text is None or field.nested:
            raise UnsupportedError(
                f"{needed_by} needs {str(path)!r} to be mapped as text", capability="relevance"
            )
        return field.text

    def leaf(self, leaf: Leaf) -> Query | None:
        """Return the query of a leaf; None if there is none that finds every match."""
        path = leaf.path
        if isinstance(leaf, TextMatch):
            return {"match": {self.text_field(path, "match()"): {"query": leaf.text}}}
        if isinstance(leaf, KNN):
            raise UnsupportedError("nearest() needs an index that isthmus created", capability="vectors")
        if path.root is Root.ID:
            return self._by_id(leaf)
        field = self.field(path)
        if field is None:
            return None
        query = self._at(leaf, field)
        return None if query is None else self._widen(field, query)

    def _widen(self, field: ExternalField, query: Query) -> Query:
        if not self._approximate:
            return field.with_ignored(query)
        for parent in reversed(field.nested):
            query = {"nested": {"path": parent, "query": query, "ignore_unmapped": True}}
        return query

    def _by_id(self, leaf: Leaf) -> Query | None:
        match leaf:
            case Equal(_, str() as id) if id:
                return {"ids": {"values": [id]}}
            case In(_, values):
                ids = [
                    value for value in values if isinstance(value, str) and value
                ]  # the server rejects an empty one
                return {"ids": {"values": ids}} if ids else NONE
            case Exists():
                return ALL
            case Equal() | EqualList():
                return NONE
        return None

    def _at(self, leaf: Leaf, field: ExternalField) -> Query | None:
        match leaf:
            case Equal(_, value):
                return None if isinstance(value, dict) else self._equal(field, value)
            case In(_, values):
                return self._among(field, values)
            case Ordered(_, op, value):
                return self._within(field, {RANGE[op]: value})
            case Between(_, low, high):
                return self._within(field, {"gte": low, "lte": high})
            case Exists():
                return self._exists(field)
            case Like() | Regex() | StartsWith() | EndsWith() | Contains():
                whole = field.kind == "keyword" and field.searchable and not field.normalized
                return self._text(leaf, field) if whole else None
            case AnyObject() | EqualList() | TextMatch() | KNN():
                return None
            case _:
                assert_never(leaf)

    def _equal(self, field: ExternalField, value: Any) -> Query | None:
        query = field.equal(value)
        if query is None and self._approximate:
            if isinstance(value, str) and field.kind == "text":
                return {"match_phrase": {field.name: {"query": value}}}
            if isinstance(value, int | float) and not isinstance(value, bool) and field.kind == "keyword":
                return {"term": {field.name: {"value": str(value)}}}
        return query

    def _among(self, field: ExternalField, values: Sequence[Any]) -> Query | None:
        if field.kind == "keyword" and field.searchable and all(isinstance(value, str) for value in values):
            chunks = [list(values[start : start + _TERMS]) for start in range(0, len(values), _TERMS)]
            return either([{"terms": {field.name: chunk}} for chunk in chunks])
        queries = [self._equal(field, value) for value in values]
        known = [query for query in queries if query is not None]
        return either(known) if len(known) == len(queries) else None

    def _within(self, field: ExternalField, bounds: Mapping[str, Any]) -> Query | None:
        query = field.within(bounds)
        return field.time_within(bounds) if query is None and self._approximate else query

    def _exists(self, field: ExternalField) -> Query | None:
        # An empty text is indexed by a keyword field alone: it is no number and has no words.
        if field.kind != "keyword" and not self._approximate:
            return None
        return {"exists": {"field": field.name}} if field.searchable else None

    def _text(self, leaf: Like | Regex | StartsWith | EndsWith | Contains, field: ExternalField) -> Query:
        some: Query = {"exists": {"field": field.name}}
        regexp = wildcard = None
        match leaf:
            case Like(_, text, fold):
                parts = parse_like(text)
                if fold:
                    regexp = patterns.like_regexp(text)
                elif all(isinstance(part, str) for part in parts):
                    return {"term": {field.name: {"value": "".join(map(str, parts))}}}
                else:
                    wildcard = patterns.wildcard(text)
            case Regex(_, text):
                regexp = patterns.regexp(text)
            case StartsWith(_, text):
                return {"prefix": {field.name: {"value": patterns.truncate(text)}}} if text else some
            case EndsWith(_, text):
                wildcard = patterns.wildcard_around("*", text, "") if text else None
            case Contains(_, text):
                wildcard = patterns.wildcard_around("*", text, "*") if text else None
            case _:
                assert_never(leaf)
        if regexp is not None and len(regexp) <= _LONGEST_REGEXP:
            return {"regexp": {field.name: {"value": regexp, "flags": "NONE"}}}
        return some if wildcard is None else {"wildcard": {field.name: {"value": wildcard}}}

    def orders(self, order: Sequence[SortKey]) -> bool:
        """Return whether pages can come in this order.

        The server cannot sort by id, which breaks ties, so only a ranking or, with `approximate`, an
        order with arbitrary ties is possible.
        """
        if len(order) == 1 and order[0].path.root is Root.SCORE:
            return True
        return self._approximate and all(self._sorts(key) for key in order)

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return False: measures are computed client-side."""
        return False

    def _sorts(self, key: SortKey) -> bool:
        if key.path.root is Root.SCORE:
            return True
        field = self.field(key.path)
        return field is not None and field.sortable and field.kind in SORTED

    def clauses(self, order: Iterable[SortKey]) -> list[dict[str, Any]]:
        """Return the `sort` of an order that `orders` accepted."""
        clauses: list[dict[str, Any]] = []
        for key in order:
            direction = "desc" if key.descending else "asc"
            if key.path.root is Root.SCORE:
                clauses.append({"_score": {"order": direction}})
                continue
            field = self.field(key.path)
            assert field is not None
            missing = "_first" if key.nulls_first else "_last"
            mode = "max" if key.descending else "min"
            options = {"order": direction, "missing": missing, "mode": mode}
            if field.kind == "date_nanos":
                options["format"] = "strict_date_optional_time_nanos"
            clauses.append({field.name: options})
        return clauses or [{"_doc": {"order": "asc"}}]
