"""URLs of stores: split without losing characters, and never repeated in an error."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote

from isthmus._core.conninfo import conninfo_to_url, is_conninfo
from isthmus.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import SecretStr

# urllib cuts a URL at '#' and checks what is between '[' and ']': a password may have both, and a list of
# hosts several addresses in brackets.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?]*)(?:\?(.*))?", re.DOTALL)
SECRET_OPTION = re.compile(r"pass|pwd|secret|token|key|credential|auth|dsn", re.IGNORECASE)
"""Part of the name of an option of a URL whose value is not shown, or sent elsewhere."""
_HIDDEN = "the URL is not shown: it may hold a secret"


def clean_url(text: str) -> str:
    """Return a URL without the blanks and quotes that a shell or a `.env` file left around it."""
    text = text.strip()
    while len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1].strip()
    return text


def to_url(text: Any) -> str:
    """Return the URL of a store, also of one that is given as libpq's text; raises `ConfigError`."""
    if isinstance(text, str) and is_conninfo(text):
        return conninfo_to_url(text)
    if not isinstance(text, str) or "://" not in text:
        raise ConfigError("a URL starts with its backend, such as postgres:// or sqlite:///file.db")
    return text


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case."""
    return clean_url(url).partition("://")[0].lower()


def parse_url(
    url: str | SecretStr | Any, known: Collection[str] = (), *, lenient: bool = False
) -> tuple[SplitResult, dict[str, Any]]:
    """Return a URL's parts and its query as nested settings.

    `known` are the options whose value may have an '@'; `lenient` is for URLs that SQLAlchemy parses
    again, which takes '/' and '#' in a password. Raises `ConfigError`, which never repeats
    the URL, also if an unescaped character of the password would end it early.
    """
    text = url if isinstance(url, str) else getattr(url, "get_secret_value", lambda: None)()
    if not isinstance(text, str):
        raise ConfigError(f"url: must be text, got {type(url).__name__}")
    text = clean_url(text)
    match = _URL.fullmatch(text)
    if match is None:
        raise ConfigError(f"url: has no scheme such as postgres:// ({_HIDDEN})")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ConfigError(f"url: a control character is to be written as %xx ({_HIDDEN})")
    scheme, netloc, path, query = match[1].lower(), match[2], match[3], match[4] or ""
    if _is_ambiguous(netloc, path, query, known, lenient=lenient):
        found = sorted(set("#/?@").intersection(text[match.start(2) : text.rindex("@")]))
        escaped = ", ".join(f"{character!r} as %{ord(character):02X}" for character in found)
        raise ConfigError(
            f"url: there is an '@' after the host, so the password may have an unescaped character: write"
            f" {escaped or '@ as %40'} in the password, and an '@' after the host as %40 ({_HIDDEN})"
        )
    return SplitResult(scheme, netloc, path, query, ""), split_query(query)


def may_cut_secret(url: str, known: Collection[str]) -> bool:
    """Return whether an unescaped character may have ended a secret early, so that its rest would be shown.

    `known` are the options whose value may have an '@'.
    """
    match = _URL.fullmatch(clean_url(url))
    return match is not None and _is_ambiguous(match[2], match[3], match[4] or "", known, lenient=False)


def _is_ambiguous(netloc: str, path: str, query: str, known: Collection[str], *, lenient: bool) -> bool:
    """Return whether the last '@' may be the end of a login although it is beyond the host."""
    before = f"{netloc}{path}?{query}".rpartition("@")[0]
    if not netloc or (":" not in before and "@" not in netloc):
        return False  # no password
    port = netloc.rpartition("]")[2].rpartition(":")[2]
    is_password = ":" in netloc and "@" not in netloc and not (port.isdigit() or not port)
    in_query = _has_foreign_at(query, () if is_password else known)
    if lenient:
        return in_query and "@" not in path and "@" not in netloc
    return "@" in path or in_query


def _has_foreign_at(query: str, known: Collection[str]) -> bool:
    """Return whether a query has an '@' elsewhere than in the value of a known option."""
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if "@" in name or ("@" in value and name.partition(".")[0] not in known):
            return True
    return False


def split_query(query: str) -> dict[str, Any]:
    """Return `a=1&pool.max_size=20` as `{"a": "1", "pool": {"max_size": "20"}}`; pydantic makes numbers.

    `host` and `port` may be repeated, as in SQLAlchemy's URLs for several hosts, and come as one list with
    commas. Raises `ConfigError` for another option with two values.
    """
    query = query.strip("&")
    options: dict[str, Any] = {}
    pairs: list[tuple[str, str]] | None = None
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=200)
    except ValueError:
        pairs = None
    if pairs is None:  # outside the except block: the parser's error has the text
        raise ConfigError("url: the part after '?' is not of the form key=value&key=value")
    values: dict[str, str] = {}
    for key, value in pairs:
        if key in ("host", "port") and key in values:
            values[key] += f",{value}"
        elif values.setdefault(key, value) != value:
            raise ConfigError(f"url: {key!r} has two values; which one is meant?")
    for key, value in values.items():
        merge(options, nest(key, value))
    return options


def text_part(value: str | None) -> str | None:
    """Return a URL part without its percent escapes."""
    return None if value is None else unquote(value)


def nest(key: str, value: Any) -> dict[str, Any]:
    """Return `a.b` and a value as `{"a": {"b": value}}`."""
    first, _, rest = key.partition(".")
    return {first: nest(rest, value)} if rest else {first: value}


def merge(
    into: dict[str, Any], settings: dict[str, Any], origins: dict[str, str] | None = None, origin: str = ""
) -> None:
    """Merge nested settings into others, group by group, and note the origin of each."""

    def step(target: dict[str, Any], source: dict[str, Any], prefix: str) -> None:
        for key, value in source.items():
            if isinstance(value, dict) and isinstance(target.get(key, {}), dict):
                step(target.setdefault(key, {}), value, f"{prefix}{key}.")
            else:
                target[key] = value
                if origins is not None:
                    origins[f"{prefix}{key}"] = origin

    step(into, settings, "")
