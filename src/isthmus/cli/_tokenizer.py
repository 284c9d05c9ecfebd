"""Splits filter text into tokens, each with its position."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from isthmus import QueryError

TokenKind = Literal["name", "text", "number", "op", "end"]

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])")
_NAME = re.compile(r"[^\W\d][\w\-]*", re.UNICODE)
_OPERATOR = re.compile(r"<=|>=|!=|<>|==|!~|[()\[\],=<>~.&|!]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "`": "`"}
_LOGIN = re.compile(r"(?<=://)\S+(?=@)")
MAX_LENGTH = 200_000


class FilterError(QueryError):
    """Invalid filter text; `position` is the character at fault, counted from 0."""

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(f"filter, character {position + 1}: {message}")
        self.position = position
        self.excerpt = _mark_position(text, position)
        """Two lines: the text around the position, and a caret below it."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.excerpt}"


def mask_logins(text: str) -> str:
    """Return filter text of the same length without the logins of URLs in it: errors quote parts of it."""
    return _LOGIN.sub(lambda found: "*" * len(found.group()), text)


def _mark_position(text: str, position: int) -> str:
    text = mask_logins(text)
    start = max(0, position - 50)
    excerpt = "".join(c if c.isprintable() else " " for c in text[start : position + 25])
    return f"  {excerpt}\n  {' ' * (position - start)}^"


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a filter; `value` is its text without quotes and escapes."""

    kind: TokenKind
    value: str
    position: int


def tokenize(text: str) -> list[Token]:
    """Return the tokens of filter text, the last of kind `end`; raises `FilterError`."""
    if len(text) > MAX_LENGTH:
        raise FilterError(f"a filter has at most {MAX_LENGTH} characters", text[:100], 0)
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        token, position = _read_token(text, position, tokens[-1] if tokens else None)
        tokens.append(token)
    tokens.append(Token("end", "", len(text)))
    return tokens


def _read_token(text: str, start: int, previous: Token | None) -> tuple[Token, int]:
    """Return the token at `start` and the position after it."""
    if text[start] in "\"'`":
        value, end = _read_quoted(text, start)
        return Token("text", value, start), end
    if name := _NAME.match(text, start):
        return Token("name", name.group(), start), name.end()
    # In items.0 the dot belongs to the path; in x = .5 it belongs to the number.
    in_path = text[start] == "." and previous is not None and previous.kind in ("name", "text")
    if not in_path and (number := _NUMBER.match(text, start)):
        return Token("number", number.group(), start), number.end()
    if operator := _OPERATOR.match(text, start):
        return Token("op", operator.group(), start), operator.end()
    raise FilterError(f"{text[start]!r} has no meaning here", text, start)


def _read_quoted(text: str, start: int) -> tuple[str, int]:
    """Return the quoted text at `start` and the position after it.

    A backslash is kept unless it begins one of the known escapes, so that patterns need no double
    backslashes: `like "50\\%"`, `regex "\\d+"`.
    """
    quote, position = text[start], start + 1
    parts: list[str] = []
    while position < len(text):
        character = text[position]
        if character == quote:
            return "".join(parts), position + 1
        if character == "\\" and position + 1 < len(text) and text[position + 1] in _ESCAPES:
            position += 1
            character = _ESCAPES[text[position]]
        parts.append(character)
        position += 1
    raise FilterError(f"this {quote} is never closed", text, start)
