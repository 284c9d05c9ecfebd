"""Queries as JSON, for the wire, the command line and saved searches; and as short text for people."""

from __future__ import annotations

from typing import Any, assert_never

from isthmus._arguments import shorten
from isthmus._path import ATTRIBUTES, Path, Root, parse_path
from isthmus._query.ast import (
    KNN,
    MAX_DEPTH,
    MAX_LEAVES,
    TOO_MANY,
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
from isthmus._query.field import any_object, comparison, match, nearest
from isthmus._query.patterns import refuse_weight, weight
from isthmus._query.query import Query
from isthmus._values import JSON
from isthmus.errors import QueryError


def to_json(query: Query) -> dict[str, JSON]:
    """Return a query as plain JSON values; `from_json` gives an equal query back."""
    shape: dict[str, JSON] = {"where": predicate_json(query.where)}
    if query.order:
        shape["sort"] = [
            {
                "field": path_json(key.path),
                "direction": "desc" if key.descending else "asc",
                "nulls": "first" if key.nulls_first else "last",
            }
            for key in query.order
        ]
    if query.count is not None:
        shape["limit"] = query.count
    if query.skip:
        shape["offset"] = query.skip
    if query.fields is not None:
        shape["select"] = [path_json(path) for path in query.fields]
    return shape


def predicate_json(predicate: Predicate) -> JSON:
    """Return a predicate as `{"and": […]}`, `{"not": …}` or `{"field": …, "op": …, "value": …}`."""
    match predicate:
        case And(terms):
            return {"and": [predicate_json(term) for term in terms]}
        case Or(terms):
            return {"or": [predicate_json(term) for term in terms]}
        case Not(term):
            return {"not": predicate_json(term)}
        case leaf:
            op, value = _parts(leaf)
            shape: dict[str, JSON] = {"field": path_json(leaf.path), "op": op}
            if op != "exists":
                shape["value"] = value
            return shape


def operator_name(leaf: Leaf) -> str:
    """Return the name of a leaf's operator, such as `=` or `starts_with`."""
    return _parts(leaf)[0]


def _parts(leaf: Leaf) -> tuple[str, Any]:
    match leaf:
        case Equal(_, value) | EqualList(_, value):
            return "=", value
        case Ordered(_, op, value):
            return op.value, value
        case Between(_, low, high):
            return "between", [low, high]
        case In(_, values):
            return "in", list(values)
        case Like(_, pattern, folded):
            return ("ilike" if folded else "like"), pattern
        case Regex(_, pattern):
            return "regex", pattern
        case StartsWith(_, text):
            return "starts_with", text
        case EndsWith(_, text):
            return "ends_with", text
        case Contains(_, text):
            return "contains", text
        case TextMatch(_, text):
            return "match", text
        case KNN(_, vector, k):
            return "nearest", {"vector": list(vector), "k": k}
        case Exists():
            return "exists", None
        case AnyObject(_, where):
            return "any", predicate_json(where)
        case _:
            assert_never(leaf)


def path_json(path: Path) -> JSON:
    """Return a path as text where that reads back as the same path, else as a list of keys."""
    if path.root is not Root.DATA:
        return str(path) if parse_path(str(path)) == path else [path.root.value, list(path.keys)]
    plain = ".".join(path.keys)
    # Text that starts with an attribute's name, such as `_id`, is read as that attribute.
    if plain.partition(".")[0] in ATTRIBUTES or any("." in key for key in path.keys):
        return list(path.keys)
    return plain


def text(predicate: Predicate) -> str:
    """Return a predicate as one line for people."""
    match predicate:
        case And(()):
            return "true"
        case Or(()):
            return "false"
        case And(terms):
            return "(" + " and ".join(map(text, terms)) + ")" if len(terms) > 1 else text(terms[0])
        case Or(terms):
            return "(" + " or ".join(map(text, terms)) + ")" if len(terms) > 1 else text(terms[0])
        case Not(term):
            return f"not {text(term)}"
        case AnyObject(path, where):
            inner = text(where)
            return f"{path} any {inner if inner[:1] == '(' else f'({inner})'}"
        case leaf:
            op, value = _parts(leaf)
            shown = repr(value)
            return f"{leaf.path} {op}" + (
                "" if op == "exists" else f" {shown[:80]}{'…' if len(shown) > 80 else ''}"
            )


def from_json(shape: Any) -> Query:
    """Return the query of `to_json`'s shape; also takes a bare predicate shape.

    Raises `QueryError` that names the place of whatever does not fit.
    """
    if not isinstance(shape, dict):
        raise QueryError(f"query: expected an object, got {type(shape).__name__}")
    if not shape.keys() & {"where", "sort", "limit", "offset", "select"}:
        return Query(where=_predicate(shape, "query", _Counted(), 0)) if shape else Query()
    unknown = shape.keys() - {"where", "sort", "limit", "offset", "select"}
    if unknown:
        raise QueryError(
            f"query: unknown key {min(map(str, unknown))!r}; known: where, sort, limit, offset, select"
        )
    query = Query()
    if shape.get("where") is not None:
        query = Query(where=_predicate(shape["where"], "where", _Counted(), 0))
    for index, key in enumerate(_list(shape.get("sort", []), "sort")):
        where = f"sort[{index}]"
        if not isinstance(key, dict) or "field" not in key or key.keys() - {"field", "direction", "nulls"}:
            raise QueryError(f"{where}: expected {{field, direction, nulls}}")
        query = query.sort(
            _path_from(key["field"], where), key.get("direction", "asc"), nulls=key.get("nulls", "last")
        )
    if shape.get("limit") is not None:
        query = query.limit(shape["limit"])
    if shape.get("offset") is not None:
        query = query.offset(shape["offset"])
    if shape.get("select") is not None:
        fields = _list(shape["select"], "select")
        query = query.select(*(_path_from(f, f"select[{i}]") for i, f in enumerate(fields)))
    return query


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise QueryError(f"{where}: expected a list, got {type(value).__name__}")
    return value


class _Counted:
    """Counts the conditions and pattern characters of a query: too many are refused before they are read."""

    def __init__(self) -> None:
        self._conditions = 0
        self._patterns = 0

    def add_conditions(self, terms: list[Any]) -> None:
        """Count those of the terms that are conditions."""
        self._conditions += sum(isinstance(term, dict) and "op" in term for term in terms)
        if self._conditions > MAX_LEAVES:
            raise QueryError(TOO_MANY)

    def add_pattern(self, size: int) -> None:
        """Count the characters of a pattern."""
        self._patterns += size
        refuse_weight(self._patterns)


def _predicate(shape: Any, where: str, counted: _Counted, depth: int) -> Predicate:
    if depth > MAX_DEPTH:
        raise QueryError(f"{where[:80]}…: nested deeper than {MAX_DEPTH} levels")
    if not isinstance(shape, dict):
        raise QueryError(f"{where}: expected an object, got {type(shape).__name__}")
    if shape.keys() == {"and"} or shape.keys() == {"or"}:
        word = next(iter(shape))
        given = _list(shape[word], f"{where}.{word}")
        counted.add_conditions(given)
        terms = tuple(
            _predicate(term, f"{where}.{word}[{i}]", counted, depth + 1) for i, term in enumerate(given)
        )
        return And(terms) if word == "and" else Or(terms)
    if shape.keys() == {"not"}:
        counted.add_conditions([shape["not"]])
        return Not(_predicate(shape["not"], f"{where}.not", counted, depth + 1))
    if not {"field", "op"} <= shape.keys() or shape.keys() - {"field", "op", "value"}:
        raise QueryError(
            f"{where}: expected and, or, not, or {{field, op, value}}; got {sorted(map(str, shape))}"
        )
    path = _path_from(shape["field"], where)
    try:
        if shape["op"] == "match":
            return match_json(path, shape.get("value"))
        if shape["op"] == "nearest":
            return nearest_json(path, shape.get("value"))
        if shape["op"] == "any":
            counted.add_conditions([shape.get("value")])
            inner = _predicate(shape.get("value"), f"{where}.value", counted, depth + 1)
            return any_object(path, inner)
        return _comparison(path, shape["op"], shape.get("value"), counted)
    except QueryError as error:
        raise QueryError(f"{where}: {error}") from None


def _comparison(path: Path, op: Any, value: Any, counted: _Counted) -> Predicate:
    if op not in _PATTERN_OPERATORS or not isinstance(value, str):
        return comparison(path, op, value)
    counted.add_pattern(len(value))
    made = comparison(path, op, value)
    counted.add_pattern(sum(map(weight, leaves(made))) - len(value))
    return made


_PATTERN_OPERATORS = ("regex", "like", "ilike", "not_like")


def match_json(path: Path, value: Any) -> Predicate:
    """Return a full-text match of a decoded query."""
    return match(path, value)


def nearest_json(path: Path, value: Any) -> Predicate:
    """Return a nearest-neighbour condition of a decoded query."""
    if not isinstance(value, dict) or "vector" not in value or value.keys() - {"vector", "k"}:
        raise QueryError(f"{path} nearest: needs {{vector, k}}")
    return nearest(path, value["vector"], value.get("k", 10))


def _path_from(shape: Any, where: str) -> Any:
    if isinstance(shape, str):
        return parse_path(shape)
    if isinstance(shape, list) and len(shape) == 2 and isinstance(shape[1], list):
        if shape[0] != Root.METADATA.value or not all(isinstance(k, str) for k in shape[1]):
            raise QueryError(f"{where}: no such path {shorten(shape)}")
        return Path(Root.METADATA, tuple(shape[1]))
    if isinstance(shape, list) and shape and all(isinstance(key, str) for key in shape):
        return parse_path(shape)
    raise QueryError(f"{where}: a field is text or a list of keys, got {shorten(shape)}")
