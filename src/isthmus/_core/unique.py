"""Unique fields: declarations, a record's key in one, and the errors that refuse it (meaning §5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import orjson

from isthmus._path import Path, Root, parse_path
from isthmus._value import Value
from isthmus._values import JSON, kind_of
from isthmus.errors import AlreadyExistsError, ConfigError, InvalidRecordError

MAX_TEXT = 1_024
"""The largest text of a unique field, in bytes of UTF-8."""
_MOST_FIELDS, _MOST_KEYS = 8, 40
"""What PostgreSQL has room for in its catalog, where an expression is one row."""

Key: TypeAlias = "tuple[JSON, ...]"
Duplicate: TypeAlias = "tuple[JSON, list[str]]"
"""The values of unique fields, as a list, and ids of records that have them."""


class Unique(Value):
    """Fields whose values, taken together, no two records share."""

    paths: tuple[Path, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths))

    def to_json(self) -> list[list[str]]:
        """Return the keys of each path, as they are kept in a store."""
        return [list(path.keys) for path in self.paths]


def unique_of(names: Iterable[Iterable[str]]) -> frozenset[Unique]:
    """Return the declarations of a setting; raises `ConfigError` for what is not a field of the data."""
    declared = set()
    for group in names:
        paths = tuple(map(parse_path, group))
        for path in paths:
            if path.root is not Root.DATA:
                raise ConfigError(f"unique: {path} is not a field of the data")
        if not paths or len(set(paths)) < len(paths):
            raise ConfigError(f"unique: a group of fields names each field once, got {list(group)}")
        if len(paths) > _MOST_FIELDS or sum(len(path.keys) for path in paths) > _MOST_KEYS:
            raise ConfigError(
                f"unique: a group has at most {_MOST_FIELDS} fields and {_MOST_KEYS} keys in their paths,"
                f" got {', '.join(map(str, paths))[:100]}"
            )
        declared.add(Unique(paths))
    return frozenset(declared)


def unique_from_json(stored: Iterable[Iterable[Iterable[str]]]) -> frozenset[Unique]:
    """Return the declarations that a store keeps."""
    return frozenset(Unique(tuple(Path(Root.DATA, tuple(keys)) for keys in group)) for group in stored)


def key_in(data: dict[str, Any], unique: Unique) -> Key | None:
    """Return the values of the unique fields in a record's data; None if one has no value.

    Raises `InvalidRecordError` for a list, an object or a longer text there.
    """
    values = [_value_at(data, path) for path in unique.paths]
    return None if None in values else tuple(values)


def canonical_text(key: Key) -> str:
    """Return a key as JSON text, the same for equal keys and for no others (meaning §3)."""
    return orjson.dumps([_canonical(value) for value in key]).decode()


def _canonical(value: JSON) -> JSON:
    # Stored integers have 64 bits, so that a float beyond them equals none.
    if type(value) is float and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return value


def _value_at(data: Any, path: Path) -> JSON:
    value = data
    for key in path.keys:
        if isinstance(value, list):
            raise _refuse(path, "a list")
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, list | dict):
        raise _refuse(path, f"a{'n' * isinstance(value, dict)} {kind_of(value)}")
    if isinstance(value, str) and len(value.encode()) > MAX_TEXT:
        raise _refuse(path, f"a text of more than {MAX_TEXT} bytes")
    return value  # type: ignore[no-any-return]


def _refuse(path: Path, what: str) -> InvalidRecordError:
    where = ".".join(("data", *path.keys))
    return InvalidRecordError(f"{where}: {what} in a unique field", path=where)


def clash(unique: Unique, other: str | None) -> AlreadyExistsError:
    """Return the error of a record whose unique fields have the values of another one's."""
    whose = "" if other is None else f" {other!r}"
    error = AlreadyExistsError(f"the record{whose} has this value of {unique} already", record_id=other)
    error.field = str(unique)
    return error


def missing_unique(collection: str, missing: Iterable[Unique]) -> ConfigError:
    """Return the error of a declaration that a collection with records does not have yet."""
    fields = "; ".join(sorted(map(str, missing)))
    return ConfigError(
        f"the collection {collection!r} has records and is not unique by {fields} yet; look for duplicates"
        " and declare it with `isthmus index URL --unique FIELD` (`--check` only looks). It then has"
        " format 2, which isthmus 0.1.0 refuses"
    )


def has_duplicates(collection: str, unique: Unique, found: Sequence[Duplicate]) -> ConfigError:
    """Return the error of a declaration that records of a collection contradict, with some of them."""
    shown = "; ".join(f"{json_text(value)}: {', '.join(map(repr, ids))}" for value, ids in found[:10])
    return ConfigError(
        f"the collection {collection!r} is not unique by {unique}: {shown}"
        + ("; and more" if len(found) > 10 else "")
    )


def json_text(value: JSON) -> str:
    """Return a value as JSON text."""
    return orjson.dumps(value).decode()


@runtime_checkable
class SupportsUnique(Protocol):
    """A backend with unique fields; the capability `unique` is true."""

    async def find_duplicates(self, collection: str, unique: Unique) -> list[Duplicate]:
        """Return values that several records have, each with some of their ids; 20 values at most."""
        ...

    async def make_unique(self, collection: str, unique: Unique) -> None:
        """Declare fields unique in a collection that may have records, while writers wait; idempotent.

        Raises `has_duplicates` with the result of `find_duplicates` if there are any.
        """
        ...

    async def end_unique(self, collection: str, unique: Unique) -> None:
        """End a declaration; a missing one is not an error."""
        ...
