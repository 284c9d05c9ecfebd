"""Collections: all record methods over one table, index or prefix."""

from __future__ import annotations

from collections.abc import Callable

from isthmus._arguments import shorten
from isthmus._change_stream import ChangesMethods
from isthmus._path import is_encodable
from isthmus._reads import ReadMethods
from isthmus._session import Session
from isthmus._writes import WriteMethods
from isthmus.errors import ConfigError, UsageError


class CollectionMethods(ReadMethods, WriteMethods):
    """All record methods over one collection; a database, a collection and a transaction have them."""


class Collection(ChangesMethods, CollectionMethods):
    """Another table, index or prefix over the same pool."""

    def __init__(self, resolve: Callable[[], Session], name: str) -> None:
        self._resolve = resolve
        self._name = name

    @property
    def _session(self) -> Session:
        return self._resolve()

    create = CollectionMethods._insert

    @property
    def collection_name(self) -> str:
        """The table, index or prefix."""
        return self._name

    def __repr__(self) -> str:
        return f"<Collection {self._name!r}>"


def check_collection_name(name: object) -> None:
    """Raise `UsageError` for a name that is not text or is empty, `ConfigError` for one of no store."""
    if not isinstance(name, str) or not name:
        raise UsageError(f"a collection is named by text, got {shorten(name)}")
    check_encodable(name)


def check_encodable(name: str) -> None:
    """Raise `ConfigError` for a collection's name with U+0000 or a lone surrogate."""
    if "\0" in name or not is_encodable(name):
        raise ConfigError(f"no collection has a name with U+0000 or a lone surrogate: {name!r}")
