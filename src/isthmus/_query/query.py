"""`Query`: conditions, order, limits and a selection, built step by step."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Literal

from isthmus._arguments import shorten
from isthmus._path import Path
from isthmus._query.ast import (
    MAX_SORT_KEYS,
    PREDICATES,
    TRUE,
    And,
    Not,
    Or,
    Predicate,
    SortKey,
    check_size,
)
from isthmus._query.field import FieldName, as_path, comparison, match, nearest
from isthmus._value import Value, replace
from isthmus.errors import QueryError

_MAX_SELECTED = 1_000


class Query(Value):
    """What to find, in which order, and how much of it. Immutable: each step returns a new query.

    `Query().filter("age", ">=", 25).sort("name").limit(10)`
    """

    where: Predicate = TRUE
    order: tuple[SortKey, ...] = ()
    count: int | None = None
    skip: int = 0
    fields: tuple[Path, ...] | None = None

    def filter(self, name: FieldName | Predicate, op: str | None = None, value: Any = None) -> Query:
        """Return the query with one more condition: a field, an operator and a value, or a predicate."""
        if isinstance(name, PREDICATES):
            if op is not None:
                raise QueryError("filter() takes a predicate alone, or a field with an operator and a value")
            return self._and(name)
        if op is None:
            raise QueryError(f"filter({shorten(name)}) needs an operator and a value, or a predicate")
        return self._and(comparison(name, op, value))

    def any_of(self, *conditions: Predicate | Query) -> Query:
        """Return the query with the condition that one of these holds."""
        return self._and(Or(tuple(map(as_predicate, conditions))))

    def not_(self, condition: Predicate | Query) -> Query:
        """Return the query with the condition that this does not hold."""
        return self._and(Not(as_predicate(condition)))

    def match(self, name: FieldName, text: str) -> Query:
        """Return the query with a full-text match; sort by `_score` to rank by relevance."""
        return self._and(match(name, text))

    def nearest(self, name: FieldName, vector: Iterable[float], k: int = 10) -> Query:
        """Return the query for the `k` nearest to a vector; sort by `_score` for the nearest first."""
        return self._and(nearest(name, vector, k))

    def sort(
        self,
        name: FieldName,
        direction: Literal["asc", "desc"] = "asc",
        *,
        nulls: Literal["first", "last"] = "last",
    ) -> Query:
        """Return the query with one more sort key; records without a value come last unless said.

        A query has at most 100 sort keys.
        """
        if direction not in ("asc", "desc"):
            raise QueryError(f"a direction is 'asc' or 'desc', got {shorten(direction)}")
        if nulls not in ("first", "last"):
            raise QueryError(f"nulls is 'first' or 'last', got {shorten(nulls)}")
        if len(self.order) >= MAX_SORT_KEYS:
            raise QueryError(f"a query has at most {MAX_SORT_KEYS} sort keys")
        key = SortKey(as_path(name), direction == "desc", nulls == "first")
        return replace(self, order=(*self.order, key))

    def limit(self, count: int) -> Query:
        """Return the query for at most this many records; 0 gives none."""
        return replace(self, count=_check_natural("limit", count))

    def offset(self, skip: int) -> Query:
        """Return the query without its first records."""
        return replace(self, skip=_check_natural("offset", skip))

    def select(self, *names: FieldName) -> Query:
        """Return the query for these parts of the data only, in their shape: 1 to 1,000 fields."""
        if not 1 <= len(names) <= _MAX_SELECTED:
            raise QueryError(f"select() takes 1 to {_MAX_SELECTED:,} fields, got {len(names):,}")
        return replace(self, fields=tuple(map(as_path, names)))

    def _and(self, term: Predicate) -> Query:
        terms = self.where.terms if isinstance(self.where, And) else (self.where,)
        return replace(self, where=And((*terms, term)))

    def __bool__(self) -> bool:
        raise TypeError(
            "a query has no truth value; await db.exists(...) or db.count(...) tells what it finds"
        )


def _check_natural(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise QueryError(f"{name} must be a whole number from 0, got {shorten(value)}")
    return min(value, sys.maxsize)  # what servers can count


def as_query(query: Query | Predicate | None) -> Query:
    """Return the query for an argument: a query, a bare predicate, or None for all records."""
    if query is None:
        return Query()
    if isinstance(query, Query):
        check_size(query.where)
        return query
    return Query(where=as_predicate(query))


def as_predicate(condition: Any) -> Predicate:
    """Return the predicate of a predicate or of a query without order and limits."""
    if isinstance(condition, Query):
        if condition.order or condition.skip or condition.fields is not None or condition.count is not None:
            raise QueryError("only a query's conditions fit here: it has a sort, limit, offset or select")
        condition = condition.where
    if isinstance(condition, PREDICATES):
        check_size(condition)
        return condition
    raise QueryError(
        f"expected a Query or a predicate such as field('age') >= 25, got {type(condition).__name__}"
    )
