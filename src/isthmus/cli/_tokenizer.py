"""Cuts filter text into tokens, each with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from isthmus import QueryError

Kind = Literal["name", "text", "number", "op", "json", "end"]

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])")
_NAME = re.compile(r"[^\W\d][\w\-]*", re.UNICODE)
_OPS = ("<=", ">=", "!=", "<>", "==", "!~", "(", ")", "[", "]", ",", "=", "<", ">", "~", ".", "&", "|", "!")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "`": "`"}
MAX_LENGTH = 200_000


class FilterError(QueryError):
    """Filter text that has no meaning; `at` is the place, counted from 0."""

    def __init__(self, message: str, text: str, at: int) -> None:
        super().__init__(f"filter, character {at + 1}: {message}")
        self.at = at
        self.pointer = _pointer(text, at)
        """The text around the place with a caret below it, two lines."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.pointer}"


def _pointer(text: str, at: int) -> str:
    start = max(0, at - 50)
    shown = "".join(c if c.isprintable() else " " for c in text[start : at + 25])
    return f"  {shown}\n  {' ' * (at - start)}^"


@dataclass(frozen=True, slots=True)
class Token:
    """A word of a filter: `value` is its text without quotes and escapes."""

    kind: Kind
    value: str
    at: int
    quote: str = ""


def tokens(text: str) -> list[Token]:
    """Return the tokens of filter text, the last of kind `end`; raises `FilterError`."""
    if len(text) > MAX_LENGTH:
        raise FilterError(f"a filter has at most {MAX_LENGTH} characters", text[:100], 0)
    found: list[Token] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        token, at = _token(text, at, found[-1] if found else None)
        found.append(token)
    found.append(Token("end", "", len(text)))
    return found


def _token(text: str, at: int, before: Token | None) -> tuple[Token, int]:
    character = text[at]
    if character in "\"'`":
        value, end = _quoted(text, at)
        return Token("text", value, at, character), end
    if name := _NAME.match(text, at):
        return Token("name", name.group(), at), name.end()
    # In items.0 the dot belongs to a path, in x = .5 to a number.
    in_path = character == "." and before is not None and before.kind in ("name", "text")
    if not in_path and (number := _NUMBER.match(text, at)):
        return Token("number", number.group(), at), number.end()
    for op in _OPS:
        if text.startswith(op, at):
            return Token("op", op, at), at + len(op)
    raise FilterError(f"{character!r} has no meaning here", text, at)


def _quoted(text: str, start: int) -> tuple[str, int]:
    """Return quoted text: a backslash is kept unless what follows it is one of the few escapes.

    So patterns can be written as they are: `like "50\\%"`, `regex "\\d+"`.
    """
    quote, at = text[start], start + 1
    parts: list[str] = []
    while at < len(text):
        character = text[at]
        if character == quote:
            return "".join(parts), at + 1
        if character == "\\" and at + 1 < len(text) and text[at + 1] in _ESCAPES:
            parts.append(_ESCAPES[text[at + 1]])
            at += 2
        else:
            parts.append(character)
            at += 1
    raise FilterError(f"this {quote} is never closed", text, start)
