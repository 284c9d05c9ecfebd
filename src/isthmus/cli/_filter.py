"""Filters as text: `age>=25 and city="Oslo"`, parsed by hand into predicates.

filter     = or
or         = and { ("or" | "|") and }
and        = not { ("and" | "&") not }
not        = ("not" | "!") not | "(" or ")" | comparison
comparison = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
           | field ["not"] ( "like" | "ilike" | "regex" | "starts_with" | "ends_with" | "contains" ) text
           | field ["not"] "in" "(" [ value { "," value } ] ")"
           | field ["not"] "between" value "and" value
           | field "is" ["not"] "null" | field ["not"] "exists" | field ("~" | "!~") text
field      = key { "." key };  key = name | quoted text (dots in it are part of the key)
value      = number | quoted text | true | false | null | datetime(quoted text)
           | "[" [ value { "," value } ] "]"
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import orjson

from isthmus import Query, QueryError, field
from isthmus._path import ATTRIBUTES, Path, Root, parse_path
from isthmus._query.ast import And, Not, Or, Predicate
from isthmus._query.build import MAX_LEAVES, Field, comparison
from isthmus._query.codec import from_json
from isthmus.cli._tokenizer import FilterError, Token, tokens

MAX_DEPTH = 100
_COMPARISONS = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TEXT_OPERATORS = ("like", "ilike", "regex", "starts_with", "ends_with", "contains")
_WORDS = {*_TEXT_OPERATORS, "and", "or", "not", "in", "between", "is", "exists", "null", "true", "false"}


def parse_query(text: str | None) -> Query:
    """Return the query of filter text, or of JSON if it begins with a brace; all records for None.

    Raises `FilterError` with the place of what is wrong, or `QueryError`.
    """
    if text is None or not text.strip():
        return Query()
    if text.lstrip().startswith("{"):
        try:
            shape = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            at = min(error.pos, len(text))
            raise FilterError(f"not JSON: {error.msg}", text, at) from None
        return from_json(shape)
    return Query(where=parse_filter(text))


def parse_filter(text: str) -> Predicate:
    """Return the predicate of filter text; raises `FilterError` with the place of what is wrong."""
    parser = _Parser(text)
    predicate = parser.any_of(0)
    parser.end()
    return predicate


def parse_field(text: str) -> Field:
    """Return the field of a name as filters spell it: `address.city`, `"a.b".c`, `_metadata.source`."""
    parser = _Parser(text)
    found = parser.field()
    parser.end()
    return found


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._at = 0
        self._leaves = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _word(self, *words: str) -> bool:
        """Take the next token if it is one of these words or signs."""
        token = self._next
        if (token.kind == "name" and token.value.lower() in words) or (
            token.kind == "op" and token.value in words
        ):
            self._take()
            return True
        return False

    def _wrong(self, message: str, token: Token | None = None) -> FilterError:
        token = token or self._next
        found = "the end" if token.kind == "end" else repr(self._text[token.at : token.at + 20].split()[0])
        return FilterError(f"{message}, found {found}", self._text, token.at)

    def end(self) -> None:
        """Refuse what is left over."""
        if self._next.kind != "end":
            raise self._wrong("expected 'and', 'or' or the end")

    def any_of(self, depth: int) -> Predicate:
        """Parse an `or`."""
        if depth > MAX_DEPTH:
            raise FilterError(f"nested deeper than {MAX_DEPTH} levels", self._text, self._next.at)
        terms = [self._all_of(depth)]
        while self._word("or", "|"):
            terms.append(self._all_of(depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _all_of(self, depth: int) -> Predicate:
        terms = [self._not(depth)]
        while self._word("and", "&"):
            terms.append(self._not(depth))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _not(self, depth: int) -> Predicate:
        odd = False
        while self._word("not", "!"):
            odd = not odd
        if self._word("("):
            term = self.any_of(depth + 1)
            if not self._word(")"):
                raise self._wrong("expected ')'")
        else:
            term = self._comparison()
        return Not(term) if odd else term

    def _comparison(self) -> Predicate:
        self._leaves += 1
        if self._leaves > MAX_LEAVES:
            raise FilterError(f"a filter has at most {MAX_LEAVES} conditions", self._text, self._next.at)
        start = self._next
        if (
            start.kind == "name"
            and start.value.lower() in _WORDS
            and self._tokens[self._at + 1].kind == "end"
        ):
            raise self._wrong("expected a condition such as age >= 25")
        found = self.field()
        operator = self._next
        try:
            return self._operation(found)
        except FilterError:
            raise
        except QueryError as error:
            raise FilterError(str(error), self._text, operator.at) from None

    def _operation(self, found: Field) -> Predicate:
        token = self._take()
        if token.kind == "op" and token.value in _COMPARISONS:
            return comparison(found, _COMPARISONS[token.value], self._value())
        if token.kind == "op" and token.value in ("~", "!~"):
            predicate = comparison(found, "regex", self._value())
            return predicate if token.value == "~" else Not(predicate)
        word = token.value.lower() if token.kind == "name" else ""
        if word == "is":
            negated = self._word("not")
            if not self._word("null"):
                raise self._wrong("expected 'null'")
            return comparison(found, "exists" if negated else "is_null")
        if word == "not":
            token = self._take()
            predicate = self._by_word(found, token)
            return Not(predicate)
        return self._by_word(found, token)

    def _by_word(self, found: Field, token: Token) -> Predicate:
        word = token.value.lower() if token.kind == "name" else ""
        if word in _TEXT_OPERATORS:
            return comparison(found, word, self._value())
        if word == "exists":
            return comparison(found, "exists")
        if word == "in":
            if not self._word("("):
                raise self._wrong("expected '(' after 'in'")
            return comparison(found, "in", self._values(")", 0))
        if word == "between":
            low = self._value()
            if not self._word("and"):
                raise self._wrong("expected 'and' between the two bounds")
            return comparison(found, "between", [low, self._value()])
        raise self._wrong("expected an operator such as = != < >= in like between is", token)

    # Fields

    def field(self) -> Field:
        """Parse a field."""
        first = self._next
        keys = [self._key("expected a field")]
        while self._next.kind == "op" and self._next.value == ".":
            self._take()
            keys.append(self._key("expected a key after '.'"))
        if first.kind == "name" and first.value in ATTRIBUTES:
            root = ATTRIBUTES[first.value]
            if root is Root.METADATA:
                return Field(Path(root, tuple(keys[1:])))
            if len(keys) > 1:
                raise FilterError(f"{first.value} has no parts; a data key is quoted", self._text, first.at)
            return Field(parse_path(first.value))
        try:
            return field(keys)
        except QueryError as error:
            raise FilterError(str(error), self._text, first.at) from None

    def _key(self, message: str) -> str:
        token = self._next
        after_dot = self._at > 0 and self._tokens[self._at - 1].value == "."
        if token.kind in ("name", "text") or (token.kind == "number" and after_dot and token.value.isdigit()):
            return self._take().value
        raise self._wrong(message)

    # Values

    def _value(self, depth: int = 0) -> Any:
        token = self._take()
        match token.kind:
            case "text":
                return token.value
            case "number":
                return self._number(token)
            case "name":
                return self._named(token)
            case "op" if token.value == "[":
                if depth > MAX_DEPTH:
                    raise FilterError(f"nested deeper than {MAX_DEPTH} levels", self._text, token.at)
                return self._values("]", depth + 1)
        raise self._wrong("expected a value", token)

    def _values(self, closing: str, depth: int) -> list[Any]:
        values: list[Any] = []
        if self._word(closing):
            return values
        while True:
            values.append(self._value(depth))
            if self._word(closing):
                return values
            if not self._word(","):
                raise self._wrong(f"expected ',' or '{closing}'")

    def _number(self, token: Token) -> int | float:
        if any(c in token.value for c in ".eE"):
            return float(token.value)
        if len(token.value) > 20:
            raise FilterError("an integer beyond 64 bits", self._text, token.at)
        return int(token.value)

    def _named(self, token: Token) -> Any:
        constants = {"true": True, "false": False, "null": None}
        word = token.value.lower()
        if word in constants:
            return constants[word]
        if word == "datetime" and self._word("("):
            return self._datetime()
        raise FilterError(f'text needs quotes: "{token.value}"', self._text, token.at)

    def _datetime(self) -> dt.datetime:
        token = self._take()
        if token.kind != "text":
            raise self._wrong('expected text such as "2026-01-31T12:00Z"', token)
        try:
            value = dt.datetime.fromisoformat(token.value)
        except ValueError:
            raise self._wrong('expected a time such as "2026-01-31T12:00Z"', token) from None
        if not self._word(")"):
            raise self._wrong("expected ')'")
        return value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
