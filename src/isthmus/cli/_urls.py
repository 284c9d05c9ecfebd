"""Store URLs on the command line: checked before they are opened, shown without their secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from isthmus import ConfigError, IsthmusError
from isthmus._core.conninfo import conninfo_to_url, is_conninfo
from isthmus._core.registry import plugin
from isthmus._core.url import SECRET_OPTION, may_cut_secret

_URL = re.compile(r"[a-z][a-z0-9+.-]*://.*", re.IGNORECASE | re.DOTALL)
_PASSWORDS = ("ISTHMUS_PASSWORD", "ISTHMUS_SOURCE_PASSWORD", "ISTHMUS_TARGET_PASSWORD")
_RESERVED = {"/": "%2F", "?": "%3F", "#": "%23", "@": "%40", "[": "%5B", "]": "%5D"}
_MIN_LENGTH = 4
"""A shorter secret is not searched for in a message: it would be found in ordinary words."""


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL; a `#` belongs to the path, such as a file's name.

    Raises `ValueError` for brackets that are not those of an IPv6 address.
    """
    return urlsplit(url, allow_fragments=False)


def check_url(url: str) -> None:
    """Raise `ConfigError` if a user name or a password holds a reserved character as it is.

    Parsed as a URL, a part of the secret would become the host or the path, and be named in errors.
    """
    if _is_ambiguous(url):
        codes = ", ".join(f"{character} as {code}" for character, code in _RESERVED.items())
        raise ConfigError(
            "the user name or the password in the URL has a reserved character, or an @ follows in its"
            f" path: write {codes} (the URL is not shown: it holds a secret)"
        )


def _is_ambiguous(url: str) -> bool:
    # An address may be the value of a setting, such as user=me@company.
    return may_cut_secret(url, _list_settings(url.partition("://")[0]))


def redact_url(url: str) -> str:
    """Return a URL without its password and without options that may hold a secret."""
    scheme = url.partition(":")[0]
    try:
        parts = split_url(url)
        options = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return f"{scheme}://…"
    if _is_ambiguous(url):
        return f"{scheme}://…"
    login, _, hosts = parts.netloc.rpartition("@")
    user = f"{login.partition(':')[0]}@" if login else ""
    shown = [(key, value) for key, value in options if not SECRET_OPTION.search(key)]
    if len(shown) < len(options):
        # An & in a secret makes its rest look like further options.
        known = _list_settings(scheme)
        shown = [(key, value) for key, value in shown if key.partition(".")[0] in known]
    shown = [(key, value) for key, value in shown if not ("://" in value and "@" in value)]
    query = "?" + urlencode(shown, safe="/:") if shown else ""
    return f"{parts.scheme}://{user}{hosts}{parts.path}{query}"


def _list_settings(scheme: str) -> set[str]:
    try:
        config = plugin(scheme).config()
    except IsthmusError:
        return set()
    return {*config.model_fields, *config.spellings}


def hide_secrets(text: str, arguments: Iterable[str]) -> str:
    """Return a message without the secrets of the URLs in the arguments and of the environment.

    A URL in the place of another argument is quoted by whatever refuses that argument.
    """
    values = [*arguments, os.environ.get("ISTHMUS_URL", "")]
    urls = [found.group() for value in values if (found := _URL.search(value))]
    for value in filter(is_conninfo, values):
        url = _convert(value)
        text = text.replace(value, redact_url(url) if url else "…")
        urls += [url] if url else []
    for url in sorted(urls, key=len, reverse=True):
        text = text.replace(url, redact_url(url))
    visible = " ".join(map(redact_url, urls))
    secrets = {secret for url in urls for secret in _find_secrets(url)}
    secrets.update(os.environ.get(variable, "") for variable in _PASSWORDS)
    for secret in sorted(secrets, key=len, reverse=True):
        # One that is also the user's or the database's name would be hidden there, too.
        if len(secret) >= _MIN_LENGTH and secret not in visible:
            text = text.replace(secret, "…")
    return text


def _convert(text: str) -> str | None:
    """Return the URL that libpq's text stands for; None if the text cannot be read."""
    try:
        return conninfo_to_url(text)
    except ConfigError:
        return None


def _find_secrets(url: str) -> Iterable[str]:
    """Yield what may be secret in a URL: as it is, decoded, and cut at reserved characters."""
    rest = url.partition("://")[2]
    login, at, _ = rest.rpartition("@")
    found = [login.partition(":")[2]] if at else []
    found += [
        value
        for key, value in re.findall(r"[?&]([^=&]+)=([^&]*)", rest)
        if SECRET_OPTION.search(unquote(key))
    ]
    if SECRET_OPTION.search(unquote(rest.partition("?")[2])):
        found.append(rest.partition("?")[2])
    for secret in found:
        yield from (secret, unquote(secret))
        yield from re.split(r"[^\w.~-]+", f"{secret} {unquote(secret)}")
