"""The columns that a model declares: fields of one scalar kind, by `Indexed(column=True)` or all of them."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from isthmus._core.columns import COLUMNS_OF, KINDS
from isthmus._core.config import BackendConfig
from isthmus._index_annotation import Indexed, IndexKind
from isthmus._model_codec import find_version_field
from isthmus._model_operands import kinds_of_types
from isthmus.errors import ConfigError


def is_every_column(config: object, collection: str) -> bool:
    """Return whether a config makes all fields of a collection's model columns."""
    return isinstance(config, BackendConfig) and config.model_columns(collection)


def model_columns(model: type[BaseModel], *, every: bool) -> dict[IndexKind, tuple[str, ...]]:
    """Return the paths of a model's columns, by kind; `every`: of all fields of one scalar kind.

    Raises `ConfigError` for an annotated field that is not of one kind: a list, an object, `int | str`.
    """
    found: dict[IndexKind, list[str]] = {}
    for path, types, annotated in _fields(model, "", ()):
        if not (every or annotated):
            continue
        kinds = kinds_of_types(types)
        kind = next((kind for kind in KINDS if kinds == {kind}), None)
        if kind is not None:
            found.setdefault(COLUMNS_OF[kind], []).append(path)
        elif annotated:
            raise ConfigError(
                f"{model.__name__}: {path!r} cannot be a column: its values are not all numbers, all texts"
                " or all bools"
            )
    return {kind: tuple(dict.fromkeys(paths)) for kind, paths in found.items()}


def _fields(
    model: type[BaseModel], prefix: str, parents: tuple[type, ...]
) -> Iterator[tuple[str, tuple[Any, ...], bool]]:
    """Yield the path, types and annotation of each field that a record of the model has in its data."""
    if model in parents:  # a recursive model has infinitely many paths
        return
    attributes = () if parents else ("id", find_version_field(model))
    for name, field in model.model_fields.items():
        annotated = any(isinstance(item, Indexed) and item.column for item in field.metadata)
        types = _alternatives(field.annotation)
        models = [kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if name in attributes:
            continue
        yield prefix + name, types, annotated
        if len(models) == 1:
            yield from _fields(models[0], f"{prefix}{name}.", (*parents, model))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one type; annotations of them left out."""
    arguments = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _alternatives(arguments[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for one in arguments for kind in _alternatives(one))
    return (annotation,)
