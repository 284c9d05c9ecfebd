"""Pydantic models as data and back: what JSON cannot hold is turned, what was turned is restored."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from isthmus._index_annotation import Indexed, IndexKind
from isthmus._restoring import restorer
from isthmus.errors import ConfigError, InvalidRecordError

M = TypeVar("M", bound=BaseModel)

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
        try:
            self._restore = restorer(model)
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from None
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
