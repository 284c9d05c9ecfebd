"""Bytes in models: base64 text is turned back wherever an annotation says bytes.

pydantic turns text back into dates and numbers by itself, but takes text for bytes as UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import itertools
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, RootModel

from isthmus.errors import ConfigError

Restore = Callable[[Any], Any]
# What a value is in JSON, as far as that tells the members of a union apart.
_LIST, _NUMBER, _OBJECT, _TEXT = "list", "number", "object", "text"


def restorer(annotation: Any) -> Restore:
    """Return what turns base64 back into bytes in stored data of this type.

    Raises `ConfigError` for a type whose bytes could not be told from other text.
    """
    return _Restorer().of(annotation) or _as_is


class _Restorer:
    def __init__(self) -> None:
        # By identity; a type that holds itself is found here while it is being made.
        self._made: dict[int, tuple[Any, Restore]] = {}

    def of(self, annotation: Any) -> Restore | None:
        """Return what restores values of a type; None if no bytes are in it."""
        kind = _plain(annotation)
        if not _has_bytes(kind, {}):
            return None
        if id(kind) not in self._made:

            def later(value: Any) -> Any:
                return self._made[id(kind)][1](value)

            self._made[id(kind)] = (kind, later)
            self._made[id(kind)] = (kind, self._new(kind))
        return self._made[id(kind)][1]

    def _new(self, kind: Any) -> Restore:
        if kind is bytes:
            return _from_base64
        if _is_union(kind):
            return self._of_union(kind)
        fields = _fields(kind)
        if fields is not None:
            return self._of_fields(fields)
        positions = _positions(kind)
        if positions is not None:
            return _of_items([self.of(part) for part in positions])
        parts = get_args(kind)
        form = _json_kind(kind)
        if form == _OBJECT:
            return _of_values(self.of(parts[1]) or _as_is)
        if form == _LIST:
            return _of_items(itertools.repeat(self.of(parts[0])))
        raise ConfigError(f"bytes in a field of type {kind!r} could not be restored when they are read")

    def _of_fields(self, fields: Mapping[str, Any]) -> Restore:
        found = {name: restore for name, part in fields.items() if (restore := self.of(part)) is not None}

        def restored(data: Any) -> Any:
            if not isinstance(data, dict):
                return data
            return {key: found[key](item) if key in found else item for key, item in data.items()}

        return restored

    def _of_union(self, union: Any) -> Restore:
        members = _members(union)
        found: dict[str, Restore] = {}
        for kind in (_LIST, _OBJECT, _TEXT):
            same = [member for member in members if _json_kind(member) in (kind, None)]
            if not any(_has_bytes(member, {}) for member in same):
                continue
            if len(same) == 1:
                found[kind] = self.of(same[0]) or _as_is
            elif kind == _OBJECT and _told_apart(same):
                found[kind] = _by_tags([(_tags(member), self.of(member) or _as_is) for member in same])
            else:
                raise ConfigError(
                    f"bytes in a field of {union!r} cannot be told apart when it is read: choose one type,"
                    " or give each model a Literal of its own"
                )

        def restored(value: Any) -> Any:
            kind = _LIST if isinstance(value, list) else _OBJECT if isinstance(value, dict) else _TEXT
            return found[kind](value) if kind in found else value

        return restored


def _as_is(value: Any) -> Any:
    return value


def _from_base64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return value  # the model says what is wrong with it


def _of_values(restore: Restore) -> Restore:
    return lambda v: {key: restore(item) for key, item in v.items()} if isinstance(v, dict) else v


def _of_items(restores: Iterable[Restore | None]) -> Restore:
    def restored(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        # What is too long or too short is the model's to refuse.
        known = itertools.chain(restores, itertools.repeat(None))
        return [
            item if restore is None else restore(item) for item, restore in zip(value, known, strict=False)
        ]

    return restored


def _by_tags(members: Sequence[tuple[Mapping[str, tuple[Any, ...]], Restore]]) -> Restore:
    def restored(data: Any) -> Any:
        fitting = [
            restore
            for tags, restore in members
            if all(name not in data or data[name] in tags[name] for name in tags)
        ]
        return fitting[0](data) if len(fitting) == 1 else data

    return restored


# What an annotation is.


def _plain(annotation: Any) -> Any:
    """Return a type without the names and notes around it."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # `type X = …` of Python 3.12, or its backport
            annotation = annotation.__value__
        elif isinstance(annotation, type) and issubclass(annotation, RootModel):
            annotation = annotation.model_fields["root"].annotation
        else:
            return annotation


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _members(union: Any) -> list[Any]:
    """Return the types of a union without None, those of unions in it among them."""
    found: list[Any] = []
    for part in map(_plain, get_args(union)):
        found += _members(part) if _is_union(part) else [] if part in (None, type(None)) else [part]
    return found


def _fields(kind: Any) -> dict[str, Any] | None:
    """Return the types of what is an object with known fields in JSON, by name; None for all else."""
    if not isinstance(kind, type):
        return None
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    # A TypedDict, be it Python's own or the one that pydantic asks for before 3.12.
    typed_dict = issubclass(kind, dict) and hasattr(kind, "__required_keys__")
    return _hints(kind) if typed_dict or dataclasses.is_dataclass(kind) else None


def _positions(kind: Any) -> list[Any] | None:
    """Return the types of a tuple of known length; None for all else."""
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = _hints(kind)
        return [hints.get(name, Any) for name in kind._fields]
    parts = get_args(kind)
    return list(parts) if get_origin(kind) is tuple and parts[1:] != (...,) else None


def _hints(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise ConfigError(f"the types of {kind.__name__} are not known: {error}") from None


def _has_bytes(annotation: Any, seen: dict[int, Any]) -> bool:
    """Return whether bytes are somewhere in a type; those in keys of a mapping stay text."""
    kind = _plain(annotation)
    if kind is bytes:
        return True
    if get_origin(kind) is Literal or id(kind) in seen:
        return False
    seen[id(kind)] = kind
    fields = _fields(kind)
    parts: Iterable[Any] = fields.values() if fields is not None else _positions(kind) or get_args(kind)
    if fields is None and _json_kind(kind) == _OBJECT:
        parts = get_args(kind)[1:]
    return any(_has_bytes(part, seen) for part in parts)


def _json_kind(kind: Any) -> str | None:
    """Return what a type is in JSON; None if it may be anything."""
    origin = get_origin(kind) or kind
    if origin is Literal:
        return _TEXT
    if not isinstance(origin, type) or origin is object:
        return None
    if issubclass(origin, (int, float, Decimal)):
        return _NUMBER
    if _fields(kind) is not None or issubclass(origin, Mapping):
        return _OBJECT
    if issubclass(origin, Iterable) and not issubclass(origin, (str, bytes, enum.Enum)):
        return _LIST
    return _TEXT


def _tags(kind: Any) -> dict[str, tuple[Any, ...]]:
    """Return the values that an object's fields may have where these are literals."""
    literals = {name: _plain(part) for name, part in (_fields(kind) or {}).items()}
    return {
        name: tuple(value.value if isinstance(value, enum.Enum) else value for value in get_args(part))
        for name, part in literals.items()
        if get_origin(part) is Literal
    }


def _told_apart(kinds: Sequence[Any]) -> bool:
    """Return whether of each two objects a literal tells which one it is."""
    return all(
        any(set(tags[name]).isdisjoint(others[name]) for name in tags.keys() & others.keys())
        for tags, others in itertools.combinations(map(_tags, kinds), 2)
    )
