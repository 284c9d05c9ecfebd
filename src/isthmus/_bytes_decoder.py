"""Decodes base64 text into bytes wherever a model's annotations say bytes.

pydantic converts text to dates and numbers itself, but encodes text for a bytes field as UTF-8.
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

Decoder = Callable[[Any], Any]
# The JSON kind of a value, as far as it distinguishes the members of a union.
_LIST, _NUMBER, _OBJECT, _TEXT = "list", "number", "object", "text"


def build_bytes_decoder(annotation: Any) -> Decoder:
    """Return a function that decodes the base64 text in stored data of this type.

    Raises `ConfigError` for a type whose bytes cannot be distinguished from other text.
    """
    return _DecoderBuilder().build(annotation) or _keep


class _DecoderBuilder:
    def __init__(self) -> None:
        # By identity; a recursive type finds itself here while its decoder is being built.
        self._decoders: dict[int, tuple[Any, Decoder]] = {}

    def build(self, annotation: Any) -> Decoder | None:
        """Return the decoder of a type; None if it contains no bytes."""
        kind = _unwrap(annotation)
        if not _has_bytes(kind, {}):
            return None
        if id(kind) not in self._decoders:

            def decode_later(value: Any) -> Any:
                return self._decoders[id(kind)][1](value)

            self._decoders[id(kind)] = (kind, decode_later)
            self._decoders[id(kind)] = (kind, self._build_new(kind))
        return self._decoders[id(kind)][1]

    def _build_new(self, kind: Any) -> Decoder:
        if kind is bytes:
            return _decode_base64
        if _is_union(kind):
            return self._build_union(kind)
        fields = _field_types(kind)
        if fields is not None:
            return self._build_object(fields)
        positions = _position_types(kind)
        if positions is not None:
            return _items_decoder([self.build(part) for part in positions])
        parts = get_args(kind)
        json_kind = _json_kind(kind)
        if json_kind == _OBJECT:
            return _values_decoder(self.build(parts[1]) or _keep)
        if json_kind == _LIST:
            return _items_decoder(itertools.repeat(self.build(parts[0])))
        raise ConfigError(f"bytes in a field of type {kind!r} cannot be decoded when they are read")

    def _build_object(self, fields: Mapping[str, Any]) -> Decoder:
        decoders = {
            name: decoder for name, part in fields.items() if (decoder := self.build(part)) is not None
        }

        def decode(data: Any) -> Any:
            if not isinstance(data, dict):
                return data
            return {key: decoders[key](item) if key in decoders else item for key, item in data.items()}

        return decode

    def _build_union(self, union: Any) -> Decoder:
        members = _union_members(union)
        decoders: dict[str, Decoder] = {}
        for kind in (_LIST, _OBJECT, _TEXT):
            candidates = [member for member in members if _json_kind(member) in (kind, None)]
            if not any(_has_bytes(member, {}) for member in candidates):
                continue
            if len(candidates) == 1:
                decoders[kind] = self.build(candidates[0]) or _keep
            elif kind == _OBJECT and _have_distinct_tags(candidates):
                decoders[kind] = _decoder_by_tags(
                    [(_literal_fields(member), self.build(member) or _keep) for member in candidates]
                )
            else:
                raise ConfigError(
                    f"bytes in a field of {union!r} are ambiguous when it is read: use a single type,"
                    " or give each model a Literal field of its own"
                )

        def decode(value: Any) -> Any:
            kind = _LIST if isinstance(value, list) else _OBJECT if isinstance(value, dict) else _TEXT
            return decoders[kind](value) if kind in decoders else value

        return decode


def _keep(value: Any) -> Any:
    return value


def _decode_base64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return value  # the model reports the error


def _values_decoder(decoder: Decoder) -> Decoder:
    return lambda v: {key: decoder(item) for key, item in v.items()} if isinstance(v, dict) else v


def _items_decoder(decoders: Iterable[Decoder | None]) -> Decoder:
    def decode(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        # The model reports a list that is too long or too short.
        padded = itertools.chain(decoders, itertools.repeat(None))
        return [
            item if decoder is None else decoder(item) for item, decoder in zip(value, padded, strict=False)
        ]

    return decode


def _decoder_by_tags(members: Sequence[tuple[Mapping[str, tuple[Any, ...]], Decoder]]) -> Decoder:
    def decode(data: Any) -> Any:
        candidates = [
            decoder
            for tags, decoder in members
            if all(name not in data or data[name] in tags[name] for name in tags)
        ]
        return candidates[0](data) if len(candidates) == 1 else data

    return decode


# Inspection of annotations


def _unwrap(annotation: Any) -> Any:
    """Return a type without `Annotated`, `NewType`, type aliases and root models around it."""
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


def _union_members(union: Any) -> list[Any]:
    """Return the member types of a union except None, with nested unions flattened."""
    members: list[Any] = []
    for part in map(_unwrap, get_args(union)):
        members += _union_members(part) if _is_union(part) else [] if part in (None, type(None)) else [part]
    return members


def _field_types(kind: Any) -> dict[str, Any] | None:
    """Return the field types of a model, TypedDict or dataclass, by name; None for any other type."""
    if not isinstance(kind, type):
        return None
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    # Python's own TypedDict, or the one of typing_extensions, which pydantic requires before 3.12.
    typed_dict = issubclass(kind, dict) and hasattr(kind, "__required_keys__")
    return _type_hints(kind) if typed_dict or dataclasses.is_dataclass(kind) else None


def _position_types(kind: Any) -> list[Any] | None:
    """Return the item types of a tuple of fixed length; None for any other type."""
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = _type_hints(kind)
        return [hints.get(name, Any) for name in kind._fields]
    parts = get_args(kind)
    return list(parts) if get_origin(kind) is tuple and parts[1:] != (...,) else None


def _type_hints(kind: type) -> dict[str, Any]:
    try:
        return get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise ConfigError(f"the annotations of {kind.__name__} cannot be resolved: {error}") from None


def _has_bytes(annotation: Any, seen: dict[int, Any]) -> bool:
    """Return whether a type contains bytes, except as keys of a mapping, which stay text."""
    kind = _unwrap(annotation)
    if kind is bytes:
        return True
    if get_origin(kind) is Literal or id(kind) in seen:
        return False
    seen[id(kind)] = kind
    fields = _field_types(kind)
    parts: Iterable[Any] = fields.values() if fields is not None else _position_types(kind) or get_args(kind)
    if fields is None and _json_kind(kind) == _OBJECT:
        parts = get_args(kind)[1:]
    return any(_has_bytes(part, seen) for part in parts)


def _json_kind(kind: Any) -> str | None:
    """Return the JSON kind of a type; None if it may be any."""
    origin = get_origin(kind) or kind
    if origin is Literal:
        return _TEXT
    if not isinstance(origin, type) or origin is object:
        return None
    if issubclass(origin, (int, float, Decimal)):
        return _NUMBER
    if _field_types(kind) is not None or issubclass(origin, Mapping):
        return _OBJECT
    if issubclass(origin, Iterable) and not issubclass(origin, (str, bytes, enum.Enum)):
        return _LIST
    return _TEXT


def _literal_fields(kind: Any) -> dict[str, tuple[Any, ...]]:
    """Return the allowed values of an object's `Literal` fields, by name."""
    literals = {name: _unwrap(part) for name, part in (_field_types(kind) or {}).items()}
    return {
        name: tuple(value.value if isinstance(value, enum.Enum) else value for value in get_args(part))
        for name, part in literals.items()
        if get_origin(part) is Literal
    }


def _have_distinct_tags(kinds: Sequence[Any]) -> bool:
    """Return whether any two of the objects are distinguished by a `Literal` field."""
    return all(
        any(set(tags[name]).isdisjoint(others[name]) for name in tags.keys() & others.keys())
        for tags, others in itertools.combinations(map(_literal_fields, kinds), 2)
    )
