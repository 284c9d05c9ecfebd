"""Predicates as SQL: each leaf exact, and either two-valued, so that NOT is safe, or served by an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

import orjson

from isthmus._path import Path
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
    Not,
    Or,
    Order,
    Ordered,
    Predicate,
    Regex,
    StartsWith,
    TextMatch,
)
from isthmus._query.evaluate import leaf_test, matches
from isthmus._query.lookup import values_in
from isthmus._query.order import BOOL, NUMBER, TEXT
from isthmus._query.text import ANY_ONE, ANY_RUN, parse_like
from isthmus._values import JSON, same
from isthmus.backends.sqlite.fields import (
    LIST,
    NOTHING,
    AttributeField,
    CasesByType,
    JSONField,
    NoField,
    OpaqueField,
    field_of,
)
from isthmus.backends.sqlite.statement import Binder
from isthmus.errors import UnsupportedError

# SQLite's parser holds about 100 symbols, and an expression 1,000 levels; the evaluator takes what
# exceeds these, as one call of our function.
_MAX_NESTING = 8
_MAX_LEAVES = 300
# GLOB takes the product of both lengths and cannot be interrupted; above 50,000 bytes it raises
# (SQLITE_MAX_LIKE_PATTERN_LENGTH).
_MAX_GLOB = 250
ROW = "id, data, metadata, version, created_at, updated_at"
# Decoding a text of 10 MB to pass it to a function would hold up the event loop.
_ROW_AS_BYTES = ROW.replace(" data", " CAST(data AS BLOB)")


class FilterCompiler:
    """Compiles the predicates of one statement; `indexed` holds the paths whose index it may use."""

    def __init__(self, binder: Binder, indexed: frozenset[Path]) -> None:
        self._binder = binder
        self._indexed = indexed

    def sql(self, predicate: Predicate) -> str:
        """Return a condition that is true for exactly the matching rows; it may be NULL for others."""
        terms = predicate.terms if isinstance(predicate, And) else (predicate,)
        parts: list[str] = []
        rest: list[Predicate] = []
        budget = _MAX_LEAVES
        for term in terms:
            cost = _leaf_count(term)
            if cost <= budget and _nesting(term) <= _MAX_NESTING:
                budget -= cost
                parts.append(self._condition(term))
            else:
                rest.append(term)
        if rest:
            parts.append(self._by_evaluator(And(tuple(rest))))
        return join("AND", parts) if parts else "1"

    def _by_evaluator(self, predicate: Predicate) -> str:
        return (
            f"isthmus_record({self._binder.test(lambda record: matches(predicate, record))}, {_ROW_AS_BYTES})"
        )

    def _condition(self, predicate: Predicate) -> str:
        """Return a form for where NULL counts as false: one that an index serves, if there is one."""
        match predicate:
            case And(terms):
                return join("AND", [self._condition(term) for term in terms])
            case Or(terms):
                return join("OR", [self._condition(term) for term in terms])
            case Not(term):
                if isinstance(term, Exists) and (field := self._field_with_index(term.path)) is not None:
                    return self._not_exists(term, field)
                return f"NOT {self._two_valued(term)}"
            case leaf:
                found = self._find_served(leaf)
                return self._leaf(leaf) if found is None else found

    def _find_served(self, leaf: Leaf) -> str | None:
        """Return the form of a leaf that an index serves; None if there is none."""
        field = self._field_with_index(leaf.path)
        return None if field is None else self._by_index(leaf, field)

    def _two_valued(self, predicate: Predicate) -> str:
        """Return a form that is 1 or 0 for every row, never NULL."""
        match predicate:
            case And(terms):
                return join("AND", [self._two_valued(term) for term in terms])
            case Or(terms):
                return join("OR", [self._two_valued(term) for term in terms])
            case Not(term):
                return f"NOT {self._two_valued(term)}"
            case leaf:
                return f"({self._leaf(leaf)})"

    def _field_with_index(self, path: Path) -> JSONField | None:
        if path not in self._indexed:
            return None
        field = field_of(path)
        return field if isinstance(field, JSONField) else None

    def _leaf(self, leaf: Leaf) -> str:
        if isinstance(leaf, TextMatch):
            raise UnsupportedError("sqlite has no relevance search", capability="relevance")
        if isinstance(leaf, KNN):
            raise UnsupportedError("sqlite has no vector search", capability="vectors")
        field = field_of(leaf.path)
        match field:
            case NoField():
                return "0"
            case AttributeField(value):
                bound = self._binder.bound()
                condition = self._cases(leaf, value).get("text")
                if condition is None:  # an operand that no text equals
                    self._binder.unbind(bound)
                return condition or "0"
            case OpaqueField(column, keys):
                return self._by_function(leaf, column, keys)
            case JSONField():
                by_function = (
                    None
                    if isinstance(leaf, EqualList)
                    else lambda json, keys: self._by_function(leaf, json, keys)
                )
                return field.by_type(
                    self._cases(leaf, field.value(self._binder)), by_function, self._binder, "0"
                )
            case _:
                assert_never(field)

    def _by_function(self, leaf: Leaf, json: str, keys: tuple[str, ...]) -> str:
        """Return the call that evaluates the values at some keys of a JSON value."""
        return f"isthmus_json({self._binder.test(_document_test(leaf, keys))}, {json})"

    def _by_text(self, leaf: Leaf, value: str) -> str:
        return f"isthmus_text({self._binder.test(leaf_test(leaf))}, {value})"

    def _cases(self, leaf: Leaf, x: str) -> CasesByType:
        """Return the condition on a value `x` for each type; a type that is missing does not match."""
        bind = self._binder.value
        match leaf:
            case Equal(_, bool(operand)):
                return {"true" if operand else "false": "1"}
            case Equal(_, dict()) | AnyObject():
                return {"object": self._by_function(leaf, x, ())}
            case Equal(_, str(operand)):
                return {"text": f"{x} = {bind(operand)}"}
            case Equal(_, operand):
                return _numeric(f"{x} = {bind(operand)}")
            case EqualList():
                return {"array": self._by_function(leaf, x, ())}
            case In(_, operands):
                return self._one_of(operands, x)
            case Ordered(_, op, bool(operand)):
                return {
                    kind: "1"
                    for kind, value in (("true", True), ("false", False))
                    if _compare_bools(op, value, operand)
                }
            case Ordered(_, op, operand):
                test = f"{x} {op.value} {bind(operand)}"
                return {"text": test} if isinstance(operand, str) else _numeric(test)
            case Between(_, bool(low), bool(high)):
                return {
                    kind: "1" for kind, value in (("true", True), ("false", False)) if low <= value <= high
                }
            case Between(_, low, high):
                test = f"{x} BETWEEN {bind(low)} AND {bind(high)}"
                return {"text": test} if isinstance(low, str) else _numeric(test)
            case Like() | Regex() | StartsWith() | EndsWith() | Contains():
                return {"text": self._text_test(leaf, x)}
            case Exists():
                return dict.fromkeys(("integer", "real", "text", "true", "false", "object"), "1")
            case TextMatch() | KNN():
                return {}
            case _:
                assert_never(leaf)

    def _one_of(self, operands: tuple[Any, ...], x: str) -> CasesByType:
        numbers = [v for v in operands if isinstance(v, int | float) and not isinstance(v, bool)]
        texts = [v for v in operands if isinstance(v, str)]
        cases = {"true" if v else "false": "1" for v in operands if isinstance(v, bool)}
        if numbers:
            cases |= _numeric(f"{x} IN {self._list(numbers)}")
        if texts:
            cases["text"] = f"{x} IN {self._list(texts)}"
        return cases

    def _list(self, values: list[Any]) -> str:
        """Return the operands as one bound JSON list, so that the text is the same for any number."""
        return f"(SELECT value FROM json_each({self._binder.value(orjson.dumps(values).decode())}))"

    def _text_test(self, leaf: Like | Regex | StartsWith | EndsWith | Contains, x: str) -> str:
        bind = self._binder.value
        match leaf:
            case StartsWith(_, text):
                return f"substr({x}, 1, {bind(len(text))}) = {bind(text)}"
            case EndsWith(_, ""):
                return "1"
            case EndsWith(_, text):
                return f"substr({x}, {bind(-len(text))}) = {bind(text)}"
            case Contains(_, text):
                return f"instr({x}, {bind(text)}) > 0"
            case Like(_, pattern, fold=False):
                glob = _glob(pattern)
                return self._by_text(leaf, x) if glob is None else f"{x} GLOB {bind(glob)}"
            case _:
                return self._by_text(leaf, x)

    # The forms for an index on (type rank, scalar, id), see `schema`.

    def _by_index(self, leaf: Leaf, field: JSONField) -> str | None:
        """Return the condition on the index expressions, or on the few records with a list."""
        scalar = self._scalar_range(leaf, field.index_type_rank(), field.index_scalar())
        if scalar is None:
            return None
        return f"({scalar} OR {self._on_lists(leaf, field)})"

    def _on_lists(self, leaf: Leaf, field: JSONField, negated: str = "") -> str:
        by_function = self._by_function(leaf, field.column, field.keys)
        return f"({field.index_type_rank()} = {LIST} AND {negated}{by_function})"

    def _not_exists(self, leaf: Exists, field: JSONField) -> str:
        listed = self._on_lists(leaf, field, "NOT ")
        return f"({field.index_type_rank()} = {NOTHING} OR {listed})"

    def _scalar_range(self, leaf: Leaf, type_rank: str, value: str) -> str | None:
        bind = self._binder.value

        def of_rank(rank: int, test: str) -> str:
            return f"({type_rank} = {rank} AND {test})"

        match leaf:
            case Equal(_, bool() | int() | float() | str() as operand):
                return of_rank(_rank_of(operand), f"{value} = {bind(operand)}")
            case Ordered(_, op, operand):
                return of_rank(_rank_of(operand), f"{value} {op.value} {bind(operand)}")
            case Between(_, low, high):
                return of_rank(_rank_of(low), f"{value} BETWEEN {bind(low)} AND {bind(high)}")
            case In(_, operands):
                parts = []
                for rank in (BOOL, NUMBER, TEXT):
                    wanted = [v for v in operands if _rank_of(v) == rank]
                    if rank == BOOL:
                        wanted = [int(v) for v in wanted]
                    if wanted:
                        parts.append(of_rank(rank, f"{value} IN {self._list(wanted)}"))
                return join("OR", parts)
            case StartsWith(_, text) if text:
                return of_rank(TEXT, self._prefix(value, text))
            case Like(_, pattern, fold=False):
                parsed = parse_like(pattern)
                if not parsed or not isinstance(parsed[0], str):
                    return None
                if len(parsed) == 1:
                    return of_rank(TEXT, f"{value} = {bind(parsed[0])}")
                rest = "" if parsed[1:] == (ANY_RUN,) else f" AND {self._text_test(leaf, value)}"
                return of_rank(TEXT, self._prefix(value, parsed[0]) + rest)
            case _:
                return None

    def _prefix(self, value: str, text: str) -> str:
        test = f"{value} >= {self._binder.value(text)}"
        beyond = _after_prefix(text)
        return test if beyond is None else f"{test} AND {value} < {self._binder.value(beyond)}"


def join(word: str, parts: list[str]) -> str:
    """Return the parts joined as a balanced tree, since SQLite limits the depth of expressions."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) <= 8:
        return "(" + f" {word} ".join(parts) + ")"
    middle = len(parts) // 2
    return f"({join(word, parts[:middle])} {word} {join(word, parts[middle:])})"


def _leaf_count(predicate: Predicate) -> int:
    match predicate:
        case And(terms) | Or(terms):
            return sum(map(_leaf_count, terms))
        case Not(term):
            return _leaf_count(term)
        case _:
            return 1


def _nesting(predicate: Predicate) -> int:
    match predicate:
        case And(terms) | Or(terms):
            return 1 + max(map(_nesting, terms))
        case Not(term):
            return 1 + _nesting(term)
        case _:
            return 0


def _document_test(leaf: Leaf, keys: tuple[str, ...]) -> Callable[[JSON], bool]:
    """Return the test of a JSON value by the values that it has at some keys."""
    match leaf:
        case EqualList(_, operand):
            return lambda value: _equals_list(value, keys, operand)
        case Exists():
            return lambda value: bool(values_in(value, keys))
        case _:
            test = leaf_test(leaf)
            return lambda value: any(map(test, values_in(value, keys)))


def _equals_list(value: JSON, keys: tuple[str, ...], operand: list[JSON]) -> bool:
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return isinstance(value, list) and same(value, operand)


def _numeric(test: str) -> dict[str, str]:
    return {"integer": test, "real": test}


def _compare_bools(op: Order, value: bool, operand: bool) -> bool:
    match op:
        case Order.LT:
            return value < operand
        case Order.LE:
            return value <= operand
        case Order.GT:
            return value > operand
        case Order.GE:
            return value >= operand
        case _:
            assert_never(op)


def _rank_of(operand: Any) -> int:
    if isinstance(operand, bool):
        return BOOL
    return TEXT if isinstance(operand, str) else NUMBER


def _glob(pattern: str) -> str | None:
    """Return a LIKE pattern as GLOB, or None where GLOB means something else.

    GLOB confuses U+FFFD, U+FFFE and U+FFFF (seen on 3.40) and refuses long patterns.
    """
    if len(pattern) > _MAX_GLOB or any("\ufffd" <= c <= "\uffff" for c in pattern):
        return None
    parts = []
    for part in parse_like(pattern):
        if part is ANY_RUN:
            parts.append("*")
        elif part is ANY_ONE:
            parts.append("?")
        else:
            assert isinstance(part, str)
            parts.append("".join(f"[{c}]" if c in "*?[" else c for c in part))
    return "".join(parts)


def _after_prefix(text: str) -> str | None:
    """Return the smallest text above all texts with this prefix, by code point; None if there is none."""
    while text and text[-1] == "\U0010ffff":
        text = text[:-1]
    if not text:
        return None
    following = ord(text[-1]) + 1
    # Surrogates are no characters: U+E000 follows U+D7FF.
    return text[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)
