"""Which index a name stands for, and the alias by which a handle reaches that index and no other.

A name may come to stand for another index while a handle is open: the index is deleted and created
again, or an alias is moved. The mapping that the handle has read is then wrong, and a bulk request to a
name without an index makes the server create one. So each index has a hidden alias of its own, named by
an incarnation that no other index has: once the index is gone, a request to the alias is answered 404,
and nothing of it was applied.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from isthmus.backends.elasticsearch.client import FOUND, ClientPool
from isthmus.backends.elasticsearch.errors import IndexGoneError
from isthmus.errors import ConfigError

_INCARNATION = re.compile(r"[0-9a-f]{16}")
# A name has at most 255 bytes; the digest of a longer one stands for it.
_LONGEST_NAME = 220
_NO_RIGHT = frozenset({401, 403})
_UUID = "filter_path=*.settings.index.uuid"
# Modes of an index that build documents from their fields unless told to store them.
_SYNTHETIC_MODES = ("logsdb", "time_series")


@dataclass(frozen=True, slots=True)
class FoundIndex:
    """An index as the server describes it."""

    name: str
    """The name of the index itself, which is not the requested one where that is an alias."""
    uuid: str
    mappings: Mapping[str, Any]
    settings: Mapping[str, Any]
    aliases: Sequence[str]

    @property
    def own_alias(self) -> str | None:
        """The hidden alias of this index; None for one of version 0.1.0, and for a copy."""
        start = alias_of(self.name, "")
        found = (name for name in self.aliases if name.startswith(start))
        return min((name for name in found if _INCARNATION.fullmatch(name[len(start) :])), default=None)


def make_incarnation() -> str:
    """Return an incarnation that no index has."""
    return secrets.token_hex(8)


def alias_of(index: str, incarnation: str) -> str:
    """Return the name of the hidden alias of an index."""
    if len(index.encode()) > _LONGEST_NAME:
        index = hashlib.blake2b(index.encode(), digest_size=16).hexdigest()
    return f"{index}.isthmus-{incarnation}"


def url_of(name: str) -> str:
    """Return the path of an index or an alias."""
    return "/" + quote(name, safe="")


async def look_up(pool: ClientPool, target: str, name: str) -> FoundIndex | None:
    """Return the index at a path; None if there is none. One request.

    Raises `ConfigError` for an alias of several indices or of a part of one, and for an index that does
    not keep its documents as they were written.
    """
    status, body = await pool.call("GET", target, action=f"open {name}", expected=FOUND)
    if status == 404:
        return None
    if len(body) != 1:
        raise ConfigError(f"elasticsearch: {name!r} is an alias of {len(body)} indices, not of one")
    ((index, found),) = body.items()
    aliases = found.get("aliases", {})
    _check_alias(name, index, aliases)
    settings = found.get("settings", {}).get("index", {})
    mappings = found.get("mappings", {})
    _check_source(mappings, settings, index)
    return FoundIndex(index, settings.get("uuid", ""), mappings, settings, tuple(aliases))


def _check_alias(name: str, index: str, aliases: Mapping[str, Any]) -> None:
    if not aliases.get(name, {}).keys().isdisjoint(("filter", "index_routing", "search_routing")):
        raise ConfigError(
            f"elasticsearch: {name!r} is an alias of a part of index {index!r} (a filter or a routing):"
            " name the index, or an alias of all of it"
        )


def _check_source(mappings: Mapping[str, Any], settings: Mapping[str, Any], index: str) -> None:
    source = mappings.get("_source", {})
    mode = settings.get("mapping", {}).get("source", {}).get("mode", source.get("mode", "stored"))
    if source.get("enabled") in (False, "false") or mode != "stored":
        raise ConfigError(f"elasticsearch: index {index!r} does not keep its documents (_source)")
    if source.get("includes") or source.get("excludes"):
        raise ConfigError(f"elasticsearch: index {index!r} keeps its documents in part only (_source)")


def check_mode(found: FoundIndex) -> None:
    """Raise `ConfigError` for an index of a mode whose documents are built from their fields."""
    mode = found.settings.get("mode")
    stored = found.settings.get("mapping", {}).get("source", {}).get("mode") == "stored"
    if mode in _SYNTHETIC_MODES and not stored:
        raise ConfigError(
            f"elasticsearch: index {found.name!r} has index.mode {mode!r}, which does not keep its"
            " documents (_source)"
        )


async def find_uuid(pool: ClientPool, name: str) -> str | None:
    """Return the uuid of the index that a name stands for; None without one index of that name.

    Raises `ConfigError` for an alias of a part of an index.
    """
    target = f"{url_of(name)}?{_UUID},*.aliases"
    status, body = await pool.call("GET", target, action=f"look up {name}", expected=FOUND)
    if status == 404 or len(body) != 1:
        return None
    ((index, found),) = body.items()
    _check_alias(name, index, found.get("aliases", {}))
    return _uuid_in(body)


def _uuid_in(body: Mapping[str, Any]) -> str | None:
    if len(body) != 1:
        return None
    (found,) = body.values()
    uuid: str = found["settings"]["index"]["uuid"]
    return uuid


async def ensure_alias(pool: ClientPool, found: FoundIndex) -> str | None:
    """Return the hidden alias of an index, added if it is missing; None without the right to use it.

    One request for an index that has it, two for one that gets it. Raises `IndexGoneError` if the
    index was replaced meanwhile.
    """
    action = f"open {found.name}"
    alias = found.own_alias
    if alias is None:
        # Handles that open the index at the same time add the same alias.
        alias = alias_of(found.name, hashlib.blake2b(found.uuid.encode(), digest_size=8).hexdigest())
        add = {"add": {"index": found.name, "alias": alias, "is_hidden": True}}
        body = {"actions": [add]}
        status, _ = await pool.call("POST", "/_aliases", body, action=action, expected=FOUND | _NO_RIGHT)
        if status in _NO_RIGHT:
            return None
    target = f"{url_of(alias)}?{_UUID}"
    status, response = await pool.call("GET", target, action=action, expected=FOUND | _NO_RIGHT)
    if status in _NO_RIGHT:
        return None
    if status == 404 or _uuid_in(response) != found.uuid:
        raise IndexGoneError(f"index {found.name} was deleted while it was opened")
    return alias
