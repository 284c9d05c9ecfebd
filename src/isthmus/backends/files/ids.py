"""Ids of rows without an id of their own: the file's key, `#`, and the row's number in 12 digits."""

from __future__ import annotations

import re
from collections.abc import Sequence

from isthmus.errors import ConfigError

_DIGITS = 12
_LIKE_AN_ID = re.compile(r"#(?=\d{12})", re.ASCII)
MAX_KEY = 512 - 1 - _DIGITS
"""The most UTF-8 bytes of a key: an id has at most 512."""


def row_id(key: str, number: int) -> str:
    """Return the id of a row."""
    return f"{key}#{number:012d}"


def parse_row_id(id: str) -> tuple[str, int] | None:
    """Return key and number of a row's id; None for any other text."""
    key, mark, number = id.rpartition("#")
    if not mark or len(number) != _DIGITS or not (number.isascii() and number.isdigit()):
        return None
    return key, int(number)


def check_keys(keys: Sequence[str]) -> None:
    """Raise `ConfigError` for sorted keys whose rows' ids would be too long, or not in the files' order."""
    for key in keys:
        if len(key.encode()) > MAX_KEY:
            raise ConfigError(
                f"files: the name {key[:80]!r}… is longer than {MAX_KEY} bytes, so that its rows have no id;"
                " set id= to a field that holds one"
            )
    known = set(keys)
    for key in keys:
        for mark in _LIKE_AN_ID.finditer(key):
            if key[: mark.start()] in known:
                raise ConfigError(
                    f"files: the ids of rows in {key[: mark.start()]!r} and in {key!r} would be mixed;"
                    " rename one of them"
                )
