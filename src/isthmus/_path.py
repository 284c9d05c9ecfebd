"""Paths: how a query names a value in a record (meaning §2)."""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence

from isthmus._arguments import shorten
from isthmus._value import Value
from isthmus.errors import QueryError


class Root(enum.Enum):
    """Where a path starts."""

    DATA = "data"
    METADATA = "_metadata"
    ID = "_id"
    VERSION = "_version"
    CREATED_AT = "_created_at"
    UPDATED_AT = "_updated_at"
    SCORE = "_score"


_MAX_KEPT = 200
ATTRIBUTES = {root.value: root for root in Root if root is not Root.DATA}


class Path(Value):
    """The place of a value in a record: a root (data, metadata or an attribute) and keys through objects."""

    root: Root
    keys: tuple[str, ...]

    def __hash__(self) -> int:
        # Thousands of paths are hashed while a wide query is planned; few differ in their root only.
        return hash(self.keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Path) and self.keys == other.keys and self.root is other.root

    def __str__(self) -> str:
        plain = ".".join(self.keys)
        if self.root is Root.DATA:
            if any("." in key for key in self.keys) or self.keys[0] in ATTRIBUTES:
                return f"field({list(self.keys)!r})"
            return plain
        return f"{self.root.value}.{plain}" if self.keys else self.root.value


def parse_path(name: str | Sequence[str] | Path) -> Path:
    """Return the path of `"address.city"`, `["a.b"]` (one key with a dot) or `"_metadata.source"`.

    Raises `QueryError` for anything else.
    """
    if isinstance(name, Path):
        return name
    if isinstance(name, str):
        text = str.__str__(name)
        return _parse_kept(text) if len(text) <= _MAX_KEPT else _parse_text(text)
    if isinstance(name, Sequence) and name:
        return Path(Root.DATA, _check_keys(name))
    raise QueryError(f"a field is text such as 'address.city' or a list of keys, got {shorten(name)}")


def _parse_text(name: str) -> Path:
    first, _, rest = name.partition(".")
    root = ATTRIBUTES.get(first)
    if root is Root.METADATA:
        return Path(root, _check_keys(rest.split(".")) if "." in name else ())
    if root is not None:
        if "." in name:
            raise QueryError(f"{first} has no parts; a data key of that name is field({name.split('.')!r})")
        return Path(root, ())
    return Path(Root.DATA, _check_keys(name.split(".")))


# A program's paths are one object each, which compare at once.
_parse_kept = functools.lru_cache(maxsize=4_096)(_parse_text)


def _check_keys(keys: Sequence[str]) -> tuple[str, ...]:
    for key in keys:
        if not isinstance(key, str):
            raise QueryError(f"a key in a path must be text, got {type(key).__name__}")
        if "\0" in key or not is_encodable(key):
            raise QueryError(f"no record has a key with U+0000 or a lone surrogate: {key!r}")
    if len(keys) > 100:
        raise QueryError("a path has at most 100 keys: no record is nested deeper")
    return tuple(keys)


def is_encodable(text: str) -> bool:
    """Return whether the text has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
