"""Opens the store of a URL: secrets from the environment or a prompt, never from the screen."""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from isthmus import AsyncDatabase, Collection, ConfigError
from isthmus._core.registry import plugin

_SECRET = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)
_CREATING = ("create_table", "create_index", "create_prefix")


@dataclass(frozen=True, slots=True)
class Place:
    """A store as the command line names it."""

    url: str
    collection: str | None = None
    password: str | None = None

    @property
    def shown(self) -> str:
        """The URL without what may be secret, and the collection."""
        return without_secrets(self.url) + (f"#{self.collection}" if self.collection else "")


def place(url: str | None, collection: str | None, *, ask: bool = False, role: str = "") -> Place:
    """Return the store to use: `-` or nothing means $ISTHMUS_URL.

    A password comes from $ISTHMUS_PASSWORD ($ISTHMUS_SOURCE_PASSWORD, $ISTHMUS_TARGET_PASSWORD
    for the sides of a copy), or from a prompt that does not echo.
    """
    if url in (None, "-"):
        url = os.environ.get("ISTHMUS_URL")
        if not url:
            raise ConfigError("no store was named: give its URL, or set ISTHMUS_URL")
    assert url is not None
    if "://" not in url:
        raise ConfigError(
            "the store is a URL such as sqlite:///file.db or postgres://host/app; a file or a filter"
            " comes after it"
        )
    names = [f"ISTHMUS_{role.upper()}_PASSWORD"] if role else []
    password = next((os.environ[n] for n in [*names, "ISTHMUS_PASSWORD"] if n in os.environ), None)
    if ask:
        password = getpass.getpass(f"Password for {without_secrets(url)}: ", stream=sys.stderr)
    return Place(url, collection, password)


def without_secrets(url: str) -> str:
    """Return a URL that may be shown: no password, no token among its options."""
    try:
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        user = f"{login.partition(':')[0]}@" if login else ""
        options = [(k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not _SECRET.search(k)]
    except ValueError:
        return f"{url.split(':', 1)[0]}://…"
    query = "?" + urlencode(options, safe="/:") if options else ""
    return f"{parts.scheme}://{user}{hosts}{parts.path}{query}"


@asynccontextmanager
async def opened(place: Place, *, writes: bool = False) -> AsyncIterator[AsyncDatabase | Collection]:
    """Open the store and give its chosen collection; a command that only reads makes nothing."""
    async with database(place, writes=writes) as db:
        yield db if place.collection is None else db.collection(place.collection)


@asynccontextmanager
async def database(place: Place, *, writes: bool = False) -> AsyncIterator[AsyncDatabase]:
    """Open the store."""
    db = await AsyncDatabase.open(place.url, settings(place, writes=writes))
    try:
        yield db
    finally:
        await db.close()


def settings(place: Place, *, writes: bool) -> dict[str, str]:
    """Return what is set besides the URL."""
    chosen = plugin(place.url.split("://", 1)[0])
    known = chosen.config().model_fields
    given: dict[str, str] = {}
    if place.password is not None:
        key = next((k for k in ("password", "aws_secret_access_key") if k in known), None)
        if key is None:
            raise ConfigError(f"{chosen.name} takes no password")
        given[key] = place.password
    # The collection that is used is the default one, so that no other is made.
    collection = next((k for k in ("table", "index") if k in known), None)
    if place.collection is not None and collection is not None:
        given[collection] = place.collection
    if not writes:
        _there(place)
        creating = next((k for k in _CREATING if k in known), None)
        if creating is not None:
            given[creating] = "never"
    return given


def _there(place: Place) -> None:
    """Refuse a SQLite file that is not there, which opening would make."""
    if place.url.split(":", 1)[0] not in ("sqlite", "sqlite3"):
        return
    path = urlsplit(place.url).path
    if path not in ("", "/", "/:memory:"):
        file = Path(unquote(path)[1:])
        if not file.exists():
            raise ConfigError(f"sqlite: there is no file {file}")
