"""Pydantic models as data and back: what JSON cannot hold is turned, what was turned is restored."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import enum
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from isthmus._indexed import Indexed, IndexKind
from isthmus.errors import ConfigError, InvalidRecordError

M = TypeVar("M", bound=BaseModel)
_Restore = Callable[[Any], Any]

# What the record encoding takes itself, or refuses with a path; a secret must not become asterisks.
_PASSED = (
    str, int, float, bytes, bytearray, dt.datetime, dt.date, uuid.UUID, Decimal, enum.Enum, type(None),
    SecretStr, SecretBytes,
)  # fmt: skip


class ModelShape(Generic[M]):
    """How one model is written and read; built once for a collection."""

    def __init__(self, model: type[M]) -> None:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise ConfigError(f"a typed collection needs a pydantic model, got {model!r}")
        self.model = model
        self.name = model.__name__
        self.has_id = "id" in model.model_fields
        self._restore = _restorer(model, ())
        self._computed = frozenset(model.model_computed_fields)

    def written(self, item: M, key: str | None = None) -> tuple[str | None, dict[str, Any]]:
        """Return the id (None: a new one) and the data of a model, judged anew by its own rules.

        Raises `InvalidRecordError`: a model may have been changed or built without validation.
        """
        if not isinstance(item, self.model):
            raise InvalidRecordError(
                f"expected a {self.name}, got {type(item).__name__}", path="data", record_id=key
            )
        data = self.dumped(item, key)
        own = data.pop("id", None) if self.has_id else None
        id = key if key is not None else str(own) if own not in (None, "") else None
        self.judged(data if not self.has_id else {**data, "id": own if key is None else key}, id)
        return id, data

    def dumped(self, item: M, key: str | None = None) -> dict[str, Any]:
        """Return a model's fields as what a record can hold, by their names."""
        try:
            data: dict[str, Any] = _plain(item.model_dump(warnings=False))
        except PydanticSerializationError as error:
            raise InvalidRecordError(f"{self.name}: {error}", path="data", record_id=key) from None
        return data

    def read(self, id: str | None, data: Mapping[str, Any]) -> M:
        """Return the model of a stored record; raises `InvalidRecordError` that names both."""
        return self.judged({**data, "id": id} if self.has_id else data, id)

    def judged(self, data: Mapping[str, Any], id: str | None) -> M:
        """Return the model of data in stored or in Python form; what it computes itself is left out."""
        known = {name: value for name, value in data.items() if name not in self._computed}
        try:
            # By name: that is how they are stored; aliases are for other doors. Not strict: JSON has
            # no dates, so a strict model could never be read back.
            return self.model.model_validate(self._restore(known), strict=False, by_name=True, by_alias=False)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            what = "this" if id is None else f"record {id!r}"
            raise InvalidRecordError(
                f"{what} is no {self.name}: {path.lstrip('.') or 'the model'}: {first['msg']}{more}",
                path=f"data{path}",
                record_id=id,
            ) from error

    def indexes(self) -> dict[IndexKind, tuple[str, ...]]:
        """Return the paths that the model's annotations declare, by kind."""
        found: dict[IndexKind, list[str]] = {}
        for path, declared in _declared(self.model, "", ()):
            found.setdefault(declared.kind, []).append(path)
        return {kind: tuple(dict.fromkeys(paths)) for kind, paths in found.items()}


def _plain(value: Any) -> Any:
    """Return a dumped value with sets as lists, and times, paths, addresses and the like as text."""
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=repr)
    return value if isinstance(value, _PASSED) else to_jsonable_python(value)


def _key(key: Any) -> Any:
    return key if isinstance(key, str) else to_jsonable_python({key: None}).popitem()[0]


# Restoring: pydantic turns text back into dates and numbers, but takes text for bytes as UTF-8.


def _restorer(annotation: Any, within: tuple[type, ...]) -> _Restore:
    return _restoring(annotation, within) or _as_is


def _as_is(value: Any) -> Any:
    return value


def _restoring(annotation: Any, within: tuple[type, ...]) -> _Restore | None:
    """Return what turns base64 back into bytes wherever the annotation has bytes; None if nowhere."""
    origin = get_origin(annotation)
    if annotation is bytes:
        return _bytes
    if origin is Annotated:
        return _restoring(get_args(annotation)[0], within)
    if origin in (Union, types.UnionType):
        return _of_union(get_args(annotation), within)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if annotation in within else _of_model(annotation, (*within, annotation))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        of_value = _restoring(get_args(annotation)[1], within)
        return (
            None
            if of_value is None
            else lambda v: {key: of_value(item) for key, item in v.items()} if isinstance(v, dict) else v
        )
    if isinstance(origin, type) and issubclass(origin, (list, tuple, set, frozenset)):
        found = [r for a in get_args(annotation) if a is not ... and (r := _restoring(a, within))]
        return None if not found else lambda v: [found[0](i) for i in v] if isinstance(v, list) else v
    return None


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return value  # the model says what is wrong with it


def _of_union(members: tuple[Any, ...], within: tuple[type, ...]) -> _Restore | None:
    if bytes in members and str in members:
        raise ConfigError("a field of bytes or text cannot be told apart when it is read; choose one")
    found = [restore for member in members if (restore := _restoring(member, within)) is not None]
    if not found:
        return None

    def restored(value: Any) -> Any:
        for one in found:
            value = one(value)
        return value

    return restored


def _of_model(model: type[BaseModel], within: tuple[type, ...]) -> _Restore | None:
    found: dict[str, _Restore] = {}
    for name, field in model.model_fields.items():
        restore = _restoring(field.annotation, within)
        if restore is not None:
            found[name] = restore
    if not found:
        return None

    def restored(data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: found[key](item) if key in found else item for key, item in data.items()}

    return restored


def _declared(model: type[BaseModel], prefix: str, within: tuple[type, ...]) -> Iterator[tuple[str, Indexed]]:
    if model in within:  # a model that holds itself has no end of paths
        return
    for name, field in model.model_fields.items():
        for note in field.metadata:
            if isinstance(note, Indexed):
                yield prefix + name, note
        for part in _models_in(field.annotation):
            yield from _declared(part, f"{prefix}{name}.", (*within, model))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
