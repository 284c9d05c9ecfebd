"""Encodes pydantic models as record data and decodes them; types that JSON lacks survive both ways."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, RootModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from isthmus._arguments import shorten
from isthmus._bytes_decoder import build_bytes_decoder
from isthmus._conversion import describe_failure, has_nanoseconds, raise_interrupt
from isthmus._index_annotation import Indexed, IndexKind
from isthmus._model_upgrades import SCHEMA_KEY, ModelUpgrades
from isthmus._record import Record
from isthmus._values import encode
from isthmus._version_annotation import Version
from isthmus.errors import ConfigError, InvalidRecordError

M = TypeVar("M", bound=BaseModel)

# Types that the record encoding handles itself, or rejects with a path; a secret must not become asterisks.
_PASSED_THROUGH = (
    str, int, float, bytes, bytearray, dt.datetime, dt.date, uuid.UUID, Decimal, enum.Enum, type(None),
    SecretStr, SecretBytes,
)  # fmt: skip


class ModelCodec(Generic[M]):
    """Encodes and decodes one model; built once for each typed collection.

    Raises `ConfigError` for what is not a pydantic model, or has bytes that cannot be decoded.
    """

    def __init__(self, model: type[M], schema_key: str = SCHEMA_KEY) -> None:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise ConfigError(f"a typed collection needs a pydantic model, got {shorten(model)}")
        self.model = model
        self.name = model.__name__
        self.has_id = "id" in model.model_fields
        try:
            self._decode_bytes = build_bytes_decoder(model)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from None
        self._computed = frozenset(model.model_computed_fields)
        self.upgrades = ModelUpgrades(model, schema_key)
        self.version_field = find_version_field(model)
        """The name of the field that carries the record's version, or None."""

    def encode(self, item: M, key: str | None = None) -> tuple[str | None, dict[str, Any]]:
        """Return the id and the data of a model; `key` is an id that overrides the model's own.

        The id is None if neither is set: a new one is to be generated. The model is validated again,
        since it may have been changed or built without validation. Raises `InvalidRecordError`.
        """
        if not isinstance(item, self.model):
            raise InvalidRecordError(
                f"expected a {self.name}, got {type(item).__name__}", path="data", record_id=key
            )
        data = self.dump(item, key)
        own = data.pop("id", None) if self.has_id else None
        id = key if key is not None else str(own) if own not in (None, "") else None
        self.validate(data if not self.has_id else {**data, "id": own if key is None else key}, id)
        return id, data

    def version_of(self, item: M) -> str | None:
        """Return the version that a model carries."""
        return None if self.version_field is None else getattr(item, self.version_field)

    def with_version(self, item: M, version: str) -> M:
        """Return the model carrying a version, if it has a field for it."""
        return item if self.version_field is None else item.model_copy(update={self.version_field: version})

    def dump(self, item: M, key: str | None = None) -> dict[str, Any]:
        """Return a model's fields by name, as values that a record can hold."""
        try:
            data: dict[str, Any] = to_storable(item.model_dump(warnings=False))
        except Exception as error:  # of a serializer or a computed field, as it likes
            raise_interrupt(error)
            failure = str(error) if isinstance(error, PydanticSerializationError) else describe_failure(error)
            raise InvalidRecordError(f"{self.name}: {failure}", path="data", record_id=key) from error
        if self.version_field is not None:
            data.pop(self.version_field, None)
        return data

    def decode(self, record: Record) -> M:
        """Return the model of a stored record; raises `InvalidRecordError` if it does not match."""
        return self.decode_current(self.upgrades.apply(record))

    def decode_current(self, record: Record) -> M:
        """Return the model of a record whose data are of today's schema."""
        data = {**record.data, "id": record.id} if self.has_id else record.data
        if self.version_field is not None:
            data = {**data, self.version_field: record.version}
        try:
            return self.validate(data, record.id)
        except InvalidRecordError as error:
            error.stored = True
            raise

    def change(self, record: Record, mutations: Mapping[str, Any]) -> tuple[M, dict[str, Any]]:
        """Return the model of a record with some fields changed, and the fields to write.

        Raises `InvalidRecordError` if the changed model is not valid.
        """
        before = self.dump(self.decode(record), record.id)
        merged = self.validate({**before, **mutations}, record.id)
        after = self.dump(merged, record.id)
        # A validator may change fields that were not given.
        patch = {
            name: value
            for name, value in after.items()
            if name != "id" and (name in mutations or name not in before or before[name] != value)
        }
        return merged, patch

    def rewrite(self, record: Record) -> Record:
        """Return a stored record as the model writes it today; keys that the model lacks are kept.

        Raises `InvalidRecordError` if an upgrade fails, or its result does not match the model or cannot
        be stored.
        """
        upgraded = self.upgrades.apply(record)
        item = self.decode_current(upgraded)
        data = _with_unknown_keys(item, self.dump(item, record.id), upgraded.data)
        if self.has_id:
            data.pop("id", None)
        try:
            encode(data)  # the model knows nothing of what an upgrade leaves under other keys
        except InvalidRecordError as error:
            error.record_id = record.id
            error.stored = True
            raise
        return Record(data, id=record.id, metadata={**record.metadata, **self.upgrades.metadata})

    def validate(self, data: Mapping[str, Any], id: str | None) -> M:
        """Return the model of data in stored or in Python form, ignoring computed fields.

        Raises `InvalidRecordError` with `id` and the path of the first invalid field.
        """
        stored = {name: value for name, value in data.items() if name not in self._computed}
        try:
            # By name: fields are stored by name; aliases are for other formats. Not strict: JSON has
            # no dates, so a strict model could never be read back.
            return self.model.model_validate(
                self._decode_bytes(stored), strict=False, by_name=True, by_alias=False
            )
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
            others = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            subject = "the record" if id is None else f"record {id!r}"
            field = path.lstrip(".") or "the model"
            raise InvalidRecordError(
                f"{subject} does not match model {self.name}: {field}: {first['msg']}{others}",
                path=f"data{path}",
                record_id=id,
            ) from error
        except Exception as error:  # of a validator, where it is no ValueError
            raise_interrupt(error)
            raise InvalidRecordError(
                f"{'the record' if id is None else f'record {id!r}'} does not match model {self.name}:"
                f" {describe_failure(error)}",
                path="data",
                record_id=id,
            ) from error

    def indexes(self) -> dict[IndexKind, tuple[str, ...]]:
        """Return the paths that the model's annotations declare, by kind of index."""
        paths_by_kind: dict[IndexKind, list[str]] = {}
        for path, annotation in _find_indexed(self.model, "", ()):
            if annotation.kind is not None:
                paths_by_kind.setdefault(annotation.kind, []).append(path)
            if annotation.unique:
                paths_by_kind.setdefault("unique", []).append(path)
        return {kind: tuple(dict.fromkeys(paths)) for kind, paths in paths_by_kind.items()}


def find_version_field(model: type[BaseModel]) -> str | None:
    """Return the name of the field with `Version()`; raises `ConfigError` for two, or without a default."""
    found = [
        name
        for name, field in model.model_fields.items()
        if any(isinstance(item, Version) for item in field.metadata)
    ]
    if len(found) > 1:
        raise ConfigError(f"{model.__name__}: {found[0]!r} and {found[1]!r} both carry the version")
    if found and model.model_fields[found[0]].is_required():
        raise ConfigError(f"{model.__name__}: {found[0]!r} carries the version and needs the default None")
    return found[0] if found else None


def _with_unknown_keys(value: Any, dumped: Any, stored: Any) -> Any:
    """Return a dumped value with the keys of its stored form that no model there knows.

    A list keeps those of its elements if it is as long as it was, since an element has no other name
    than its place.
    """
    if isinstance(value, RootModel):
        return _with_unknown_keys(value.root, dumped, stored)
    if isinstance(value, BaseModel) and isinstance(dumped, dict) and isinstance(stored, dict):
        fields = type(value).model_fields
        merged = dict(stored)  # in its order
        for key, item in dumped.items():
            below = key in fields and key in stored
            merged[key] = _with_unknown_keys(getattr(value, key), item, stored[key]) if below else item
        return merged
    if isinstance(value, Mapping) and isinstance(dumped, dict) and isinstance(stored, dict):
        items = {to_text_key(key): item for key, item in value.items()}
        return {
            key: _with_unknown_keys(items.get(key), item, stored.get(key)) for key, item in dumped.items()
        }
    lists = isinstance(value, list | tuple) and isinstance(dumped, list) and isinstance(stored, list)
    if lists and len(value) == len(dumped) == len(stored):
        return [_with_unknown_keys(*each) for each in zip(value, dumped, stored, strict=True)]
    return dumped


def to_storable(value: Any) -> Any:
    """Return a dumped value with sets as sorted lists, and times, paths, addresses and the like as text."""
    if isinstance(value, dict):
        return {to_text_key(key): to_storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_storable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((to_storable(item) for item in value), key=repr)
    # A duration with nanoseconds is refused with its path; pydantic would cut them off.
    passed = isinstance(value, _PASSED_THROUGH) or has_nanoseconds(value)
    return value if passed else to_jsonable_python(value)


def to_text_key(key: Any) -> Any:
    """Return the key of a dict as it is stored."""
    if isinstance(key, str) or has_nanoseconds(key):  # the latter is refused with its path
        return key
    return to_jsonable_python({key: None}).popitem()[0]


def _find_indexed(
    model: type[BaseModel], prefix: str, parents: tuple[type, ...]
) -> Iterator[tuple[str, Indexed]]:
    if model in parents:  # a recursive model has infinitely many paths
        return
    for name, field in model.model_fields.items():
        for annotation in field.metadata:
            if isinstance(annotation, Indexed):
                yield prefix + name, annotation
        for nested in _find_models(field.annotation):
            yield from _find_indexed(nested, f"{prefix}{name}.", (*parents, model))


def _find_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _find_models(part)
