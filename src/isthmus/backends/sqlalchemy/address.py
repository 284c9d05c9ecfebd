"""An address as SQLAlchemy reads it: its secrets, and whether its database is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from isthmus._core.url import SECRET_OPTION
from isthmus.backends._tables.sqlite_name import lives_in_memory


def read_address(address: str) -> URL | None:
    """Return an address parsed by SQLAlchemy, None if it is no URL."""
    try:
        return make_url(address)
    except (ArgumentError, ValueError):  # its message has the URL, and with it the password
        return None


def holds_secret(address: str) -> bool:
    """Return whether an address has a password, or options of the driver that may be a secret.

    SQLAlchemy's own parser decides: a pattern of ours would read an unescaped character of the password,
    or an escaped one in an option's name, in another way. What it cannot parse may hold anything.
    """
    url = read_address(address)
    if url is None or url.password is not None:
        return True
    # A value may have options of its own, such as odbc_connect, or a URL with a login.
    return any(
        SECRET_OPTION.search(name) or SECRET_OPTION.search(value) or "://" in value or "@" in value
        for name, value in _options(url)
    )


def is_in_memory(address: str) -> bool:
    """Return whether an address is SQLite's without a file: in memory, shared or not, or temporary.

    The dialect decides which file name SQLite gets, and whether as a URI.
    """
    url = read_address(address)
    if url is None or url.get_backend_name() != "sqlite":
        return False
    try:
        arguments, options = url.get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError):  # of an option: no connection is made with it
        return False
    return lives_in_memory(str(arguments[0]), uri=bool(options.get("uri", False)))


def describe_refusal(error: Exception, url: URL) -> str:
    """Return the first line of an error about a URL, without the password and the values of options."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    secrets = {url.password or "", *(value for _, value in _options(url))} - {""}
    for secret in sorted(secrets, key=len, reverse=True):
        for form in (secret, quote_plus(secret)):
            text = text.replace(form, "…")
    return text


def _options(url: URL) -> Iterator[tuple[str, str]]:
    """Yield the names and values of the query; a name may come several times."""
    query: dict[str, Any] = dict(url.query)
    for name, value in query.items():
        for one in (value,) if isinstance(value, str) else value:
            yield name, one
