"""The filter language, such as `age>=25 and city="Oslo"`: a parser that returns predicates.

filter     = or
or         = and { ("or" | "|") and }
and        = not { ("and" | "&") not }
not        = ("not" | "!") not | "(" or ")" | comparison
comparison = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
           | field ["not"] ( "like" | "ilike" | "regex" | "starts_with" | "ends_with" | "contains" ) text
           | field ["not"] "in" "(" [ value { "," value } ] ")"
           | field ["not"] "between" value "and" value
           | field "is" ["not"] "null" | field ["not"] "exists" | field ("~" | "!~") text
           | field ["not"] "any" "(" or ")"; its fields begin at the object
field      = key { "." key };  key = name | quoted text (its dots are part of the key)
value      = number | quoted text | true | false | null | datetime(quoted text)
           | "[" [ value { "," value } ] "]"
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import orjson

from isthmus import Query, QueryError, field
from isthmus._path import ATTRIBUTES, Path, Root, parse_path
from isthmus._query.ast import MAX_LEAVES, And, Not, Or, Predicate
from isthmus._query.codec import from_json
from isthmus._query.field import Field, comparison
from isthmus.cli._json import parse_json
from isthmus.cli._tokenizer import FilterError, Token, mask_logins, tokenize

MAX_DEPTH = 100
_URL = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_COMPARISONS = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TEXT_OPERATORS = ("like", "ilike", "regex", "starts_with", "ends_with", "contains")
_WORDS = {
    *_TEXT_OPERATORS,
    "and",
    "or",
    "not",
    "in",
    "between",
    "is",
    "exists",
    "any",
    "null",
    "true",
    "false",
}
_CONSTANTS = {"true": True, "false": False, "null": None}


def parse_query(text: str | None) -> Query:
    """Return the query of filter text, or of JSON if it begins with a brace; all records for None.

    Raises `FilterError` with the position of the fault, or `QueryError`.
    """
    if text is None or not text.strip():
        return Query()
    if _URL.match(text):
        # The error of the parser would show the URL, with the password in it.
        raise QueryError("a store's URL comes before the filter")
    if text.lstrip().startswith("{"):
        try:
            document = parse_json(text)
        except orjson.JSONDecodeError as error:
            raise FilterError(f"not JSON: {error.msg}", text, min(error.pos, len(text))) from None
        return from_json(document)
    return Query(where=parse_filter(text))


def parse_filter(text: str) -> Predicate:
    """Return the predicate of filter text; raises `FilterError` with the position of the fault."""
    parser = _Parser(text)
    predicate = parser.parse_or(0)
    parser.require_end()
    return predicate


def parse_field(text: str) -> Field:
    """Return the field that a filter would name so: `address.city`, `"a.b".c`, `_metadata.source`."""
    parser = _Parser(text)
    operand = parser.parse_field()
    parser.require_end()
    return operand


class _Parser:
    """A recursive-descent parser with one token of lookahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokenize(text)
        self._index = 0
        self._comparisons = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._index]

    def _advance(self) -> Token:
        token = self._next
        self._index += token.kind != "end"
        return token

    def _accept(self, *words: str) -> bool:
        """Consume the next token if it is one of these words or operators."""
        accepted = self._next.kind in ("name", "op") and self._next.value.lower() in words
        if accepted:
            self._advance()
        return accepted

    def _require(self, word: str, context: str = "") -> None:
        """Consume the next token, which has to be this word or operator."""
        if not self._accept(word):
            raise self._make_token_error(f"expected '{word}'{context}")

    def _make_token_error(self, message: str, token: Token | None = None) -> FilterError:
        token = token or self._next
        text = mask_logins(self._text)[token.position : token.position + 20]
        found = "the end" if token.kind == "end" else repr(text.split()[0])
        return self._make_error(f"{message}, found {found}", token)

    def _make_error(self, message: str, token: Token) -> FilterError:
        return FilterError(message, self._text, token.position)

    def _check_depth(self, depth: int, token: Token) -> None:
        if depth > MAX_DEPTH:
            raise self._make_error(f"nested deeper than {MAX_DEPTH} levels", token)

    def require_end(self) -> None:
        """Raise `FilterError` unless all tokens are consumed."""
        if self._next.kind != "end":
            raise self._make_token_error("expected 'and', 'or' or the end")

    def parse_or(self, depth: int) -> Predicate:
        """Parse a disjunction that is nested in `depth` parentheses."""
        self._check_depth(depth, self._next)
        terms = [self._parse_and(depth)]
        while self._accept("or", "|"):
            terms.append(self._parse_and(depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _parse_and(self, depth: int) -> Predicate:
        terms = [self._parse_not(depth)]
        while self._accept("and", "&"):
            terms.append(self._parse_not(depth))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _parse_not(self, depth: int) -> Predicate:
        negated = False
        while self._accept("not", "!"):
            negated = not negated
        if self._accept("("):
            term = self.parse_or(depth + 1)
            self._require(")")
        else:
            term = self._parse_comparison(depth)
        return Not(term) if negated else term

    def _parse_comparison(self, depth: int) -> Predicate:
        start = self._next
        self._comparisons += 1
        if self._comparisons > MAX_LEAVES:
            raise self._make_error(f"a filter has at most {MAX_LEAVES} conditions", start)
        is_word = start.kind == "name" and start.value.lower() in _WORDS
        if is_word and self._tokens[self._index + 1].kind == "end":
            raise self._make_token_error("expected a condition such as age >= 25")
        operand = self.parse_field()
        operator = self._next
        try:
            return self._parse_operation(operand, depth)
        except FilterError:
            raise
        except QueryError as error:
            raise self._make_error(str(error), operator) from None

    def _parse_operation(self, operand: Field, depth: int) -> Predicate:
        """Parse the operator and the values that follow a field."""
        token = self._advance()
        if token.kind == "op" and token.value in _COMPARISONS:
            return comparison(operand, _COMPARISONS[token.value], self._parse_value())
        if token.kind == "op" and token.value in ("~", "!~"):
            predicate = comparison(operand, "regex", self._parse_value())
            return predicate if token.value == "~" else Not(predicate)
        word = token.value.lower() if token.kind == "name" else ""
        if word == "is":
            negated = self._accept("not")
            self._require("null")
            return comparison(operand, "exists" if negated else "is_null")
        if word == "not":
            return Not(self._parse_word_operation(operand, self._advance(), depth))
        return self._parse_word_operation(operand, token, depth)

    def _parse_word_operation(self, operand: Field, token: Token, depth: int) -> Predicate:
        word = token.value.lower() if token.kind == "name" else ""
        if word in _TEXT_OPERATORS:
            return comparison(operand, word, self._parse_value())
        if word == "exists":
            return comparison(operand, "exists")
        if word == "any":
            self._require("(", " after 'any'")
            where = self.parse_or(depth + 1)
            self._require(")")
            return comparison(operand, "any", where)
        if word == "in":
            self._require("(", " after 'in'")
            return comparison(operand, "in", self._parse_list(")", 0))
        if word == "between":
            low = self._parse_value()
            self._require("and", " between the two bounds")
            return comparison(operand, "between", [low, self._parse_value()])
        raise self._make_token_error("expected an operator such as = != < >= in like between is", token)

    def parse_field(self) -> Field:
        """Parse a field: a record attribute such as `_id`, or a path into the data."""
        first = self._next
        keys = [self._parse_key("expected a field")]
        while self._accept("."):
            keys.append(self._parse_key("expected a key after '.'"))
        if first.kind == "name" and first.value in ATTRIBUTES:
            root = ATTRIBUTES[first.value]
            if root is Root.METADATA:
                return Field(Path(root, tuple(keys[1:])))
            if len(keys) > 1:
                raise self._make_error(f"{first.value} has no parts; quote it if it is a data key", first)
            return Field(parse_path(first.value))
        try:
            return field(keys)
        except QueryError as error:
            raise self._make_error(str(error), first) from None

    def _parse_key(self, message: str) -> str:
        token = self._next
        after_dot = self._index > 0 and self._tokens[self._index - 1].value == "."
        if token.kind in ("name", "text") or (token.kind == "number" and after_dot and token.value.isdigit()):
            return self._advance().value
        raise self._make_token_error(message)

    def _parse_value(self, depth: int = 0) -> Any:
        token = self._advance()
        match token.kind:
            case "text":
                return token.value
            case "number":
                return self._convert_number(token)
            case "name" if token.value.lower() in _CONSTANTS:
                return _CONSTANTS[token.value.lower()]
            case "name" if token.value.lower() == "datetime" and self._accept("("):
                return self._parse_datetime()
            case "name":
                text = mask_logins(self._text)[token.position : token.position + len(token.value)]
                raise self._make_error(f'text needs quotes: "{text}"', token)
            case "op" if token.value == "[":
                self._check_depth(depth, token)
                return self._parse_list("]", depth + 1)
        raise self._make_token_error("expected a value", token)

    def _parse_list(self, closing: str, depth: int) -> list[Any]:
        values: list[Any] = []
        if self._accept(closing):
            return values
        while True:
            values.append(self._parse_value(depth))
            if self._accept(closing):
                return values
            if not self._accept(","):
                raise self._make_token_error(f"expected ',' or '{closing}'")

    def _convert_number(self, token: Token) -> int | float:
        if any(c in token.value for c in ".eE"):
            return float(token.value)
        if len(token.value) > 20:
            raise self._make_error("an integer beyond 64 bits", token)
        return int(token.value)

    def _parse_datetime(self) -> dt.datetime:
        token = self._advance()
        try:
            if token.kind != "text":
                raise ValueError(token.value)
            value = dt.datetime.fromisoformat(token.value)
        except ValueError:
            raise self._make_token_error('expected a time such as "2026-01-31T12:00Z"', token) from None
        self._require(")")
        return value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
