"""Predicates and orders for an index that others made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_never

from isthmus._path import Path, Root
from isthmus._query.ast import (
    KNN,
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
    SortKey,
    StartsWith,
    TextMatch,
)
from isthmus._query.split import Pushdown
from isthmus._query.text import parse_like
from isthmus.backends.elasticsearch import pattern
from isthmus.backends.elasticsearch.compile import ALL, NONE, Query, both, either
from isthmus.backends.elasticsearch.native_fields import SORTED, Field
from isthmus.backends.elasticsearch.operands import RANGE
from isthmus.errors import UnavailableError, UnsupportedError

_TERMS = 60_000
# The server's default for `index.max_regex_length`.
_LONGEST_REGEXP = 1_000


class NativeCompiler:
    """Compiles for one state of a mapping.

    With `approximate` a query stands for what the leaf means, as the mapping has it: numbers as
    they were cut, dates by time, records of which a value is not indexed left out.
    """

    def __init__(self, fields: Mapping[str, Field], *, approximate: bool) -> None:
        self._fields = fields
        self._approximate = approximate

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return how well a leaf's query fits."""
        if self.nowhere(leaf.path):
            return Pushdown.EXACT
        query = self.leaf(leaf)
        if query is None:
            return Pushdown.NONE
        exact = self._approximate or isinstance(leaf, TextMatch) or leaf.path.root is Root.ID
        return Pushdown.EXACT if exact else Pushdown.SUPERSET

    def tree(self, predicate: Predicate, *, scored: bool = False) -> Query:
        """Return the query of a predicate, each leaf of which has one."""
        match predicate:
            case And(terms):
                return both([self.tree(term, scored=scored) for term in terms], scored=scored)
            case Or(terms):
                return either([self.tree(term) for term in terms])
            case Not(term):
                return {"bool": {"must_not": [self.tree(term)]}}
            case leaf:
                query = NONE if self.nowhere(leaf.path) else self.leaf(leaf)
                if query is None:  # it had one when the query was planned
                    raise UnavailableError("elasticsearch: the index's mapping was changed just now")
                if scored and not isinstance(leaf, TextMatch):
                    return {"constant_score": {"filter": query, "boost": 0}}
                return query

    def nowhere(self, path: Path) -> bool:
        """Return whether no record of such an index has a value at the path."""
        return path.root in (Root.METADATA, Root.CREATED_AT, Root.UPDATED_AT)

    def field(self, path: Path) -> Field | None:
        """Return the field that holds a path's values; None if the mapping knows none."""
        return self._fields.get(".".join(path.keys)) if path.root is Root.DATA else None

    def words(self, path: Path, what: str) -> str:
        """Return the name of the field in which a path's words are searched."""
        field = self.field(path)
        if field is None or field.text is None or field.nested:
            raise UnsupportedError(f"{what} needs {str(path)!r} to be mapped as text", capability="relevance")
        return field.text

    def leaf(self, leaf: Leaf) -> Query | None:
        """Return the query of a leaf; None if there is none that surely finds all it holds for."""
        path = leaf.path
        if isinstance(leaf, TextMatch):
            return {"match": {self.words(path, "match()"): {"query": leaf.text}}}
        if isinstance(leaf, KNN):
            raise UnsupportedError("nearest() needs an index that isthmus made", capability="vectors")
        if path.root is Root.ID:
            return self._by_id(leaf)
        field = self.field(path)
        if field is None:
            return None
        query = self._at(leaf, field)
        return None if query is None else self._found(field, query)

    def _found(self, field: Field, query: Query) -> Query:
        if not self._approximate:
            return field.found(query)
        for around in reversed(field.nested):
            query = {"nested": {"path": around, "query": query, "ignore_unmapped": True}}
        return query

    def _by_id(self, leaf: Leaf) -> Query | None:
        match leaf:
            case Equal(_, str() as id) if id:
                return {"ids": {"values": [id]}}
            case In(_, values):
                ids = [value for value in values if isinstance(value, str) and value]  # it takes no empty one
                return {"ids": {"values": ids}} if ids else NONE
            case Exists():
                return ALL
            case Equal() | EqualList():
                return NONE
        return None

    def _at(self, leaf: Leaf, field: Field) -> Query | None:
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
            case EqualList() | TextMatch() | KNN():
                return None
            case _:
                assert_never(leaf)

    def _equal(self, field: Field, value: Any) -> Query | None:
        query = field.equal(value)
        if query is None and self._approximate:
            if isinstance(value, str) and field.kind == "text":
                return {"match_phrase": {field.name: {"query": value}}}
            if isinstance(value, int | float) and not isinstance(value, bool) and field.kind == "keyword":
                return {"term": {field.name: {"value": str(value)}}}
        return query

    def _among(self, field: Field, values: Sequence[Any]) -> Query | None:
        if field.kind == "keyword" and field.searchable and all(isinstance(value, str) for value in values):
            chunks = [list(values[at : at + _TERMS]) for at in range(0, len(values), _TERMS)]
            return either([{"terms": {field.name: chunk}} for chunk in chunks])
        queries = [self._equal(field, value) for value in values]
        known = [query for query in queries if query is not None]
        return either(known) if len(known) == len(queries) else None

    def _within(self, field: Field, bounds: Mapping[str, Any]) -> Query | None:
        query = field.within(bounds)
        return field.time_within(bounds) if query is None and self._approximate else query

    def _exists(self, field: Field) -> Query | None:
        # An empty text is no value of a field of numbers, and has no words; a keyword it is.
        if field.kind != "keyword" and not self._approximate:
            return None
        return {"exists": {"field": field.name}} if field.searchable else None

    def _text(self, leaf: Like | Regex | StartsWith | EndsWith | Contains, field: Field) -> Query:
        some: Query = {"exists": {"field": field.name}}
        regexp = wildcard = None
        match leaf:
            case Like(_, text, fold):
                parts = parse_like(text)
                if fold:
                    regexp = pattern.folded_regexp(text)
                elif all(isinstance(part, str) for part in parts):
                    return {"term": {field.name: {"value": "".join(map(str, parts))}}}
                else:
                    wildcard = pattern.wildcard(text)
            case Regex(_, text):
                regexp = pattern.regexp(text)
            case StartsWith(_, text):
                return {"prefix": {field.name: {"value": pattern.cut(text)}}} if text else some
            case EndsWith(_, text):
                wildcard = pattern.around("*", text, "") if text else None
            case Contains(_, text):
                wildcard = pattern.around("*", text, "*") if text else None
            case _:
                assert_never(leaf)
        if regexp is not None and len(regexp) <= _LONGEST_REGEXP:
            return {"regexp": {field.name: {"value": regexp, "flags": "NONE"}}}
        return some if wildcard is None else {"wildcard": {field.name: {"value": wildcard}}}

    def orders(self, order: Sequence[SortKey]) -> bool:
        """Return whether pages can come in this order.

        There is none by id, which breaks all ties, so only a ranking can be the server's own.
        """
        if len(order) == 1 and order[0].path.root is Root.SCORE:
            return True
        return self._approximate and all(self._sorts(key) for key in order)

    def _sorts(self, key: SortKey) -> bool:
        if key.path.root is Root.SCORE:
            return True
        field = self.field(key.path)
        return field is not None and field.sortable and field.kind in SORTED

    def clauses(self, order: Iterable[SortKey]) -> list[dict[str, Any]]:
        """Return the sort of an order that the server has."""
        clauses: list[dict[str, Any]] = []
        for key in order:
            way = "desc" if key.descending else "asc"
            if key.path.root is Root.SCORE:
                clauses.append({"_score": {"order": way}})
                continue
            field = self.field(key.path)
            assert field is not None
            missing = "_first" if key.nulls_first else "_last"
            mode = "max" if key.descending else "min"
            options = {"order": way, "missing": missing, "mode": mode}
            if field.kind == "date_nanos":
                options["format"] = "strict_date_optional_time_nanos"
            clauses.append({field.name: options})
        return clauses or [{"_doc": {"order": "asc"}}]
