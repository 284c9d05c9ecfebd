"""libpq's connection text `host=h dbname=app user=me`, which stands where a URL of PostgreSQL does."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from isthmus.errors import ConfigError

# `name = value` or `name = 'value'`, where a backslash escapes the next character.
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)\s*", re.DOTALL)
_FIRST = re.compile(r"\s*\w+\s*=")
_SERVER = re.compile(r"(?:^|\s)(?:host|hostaddr|port|dbname|user)\s*=")


def is_conninfo(text: str) -> bool:
    """Return whether text is libpq's `host=h dbname=d` rather than a URL or a condition."""
    return _FIRST.match(text) is not None and _SERVER.search(text) is not None


def parse_conninfo(text: str) -> dict[str, str]:
    """Return the parameters in `host=h port=5433 password='a b'`, whose text an error never repeats."""
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            raise ConfigError(
                "postgres: the connection text is not of the form name=value name='value' (it is not shown:"
                " it may hold a secret)"
            )
        value = match[3] if match[2] is None else match[2]
        found[match[1]] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        position = match.end()
    return found


def conninfo_to_url(text: str) -> str:
    """Return the URL that says the same, its parameters after the `?`; raises as `parse_conninfo`."""
    return f"postgresql:///?{urlencode(parse_conninfo(text))}"
