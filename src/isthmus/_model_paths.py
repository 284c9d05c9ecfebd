"""Checks the paths of queries over a typed collection against its model, and translates them."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, RootModel

from isthmus._path import Path, Root
from isthmus._query.ast import And, AnyObject, Not, Or, Predicate, SortKey
from isthmus._query.query import Query
from isthmus._suggest import suggest
from isthmus._value import replace
from isthmus.errors import QueryError


class ModelPaths:
    """Resolves the paths of one model: aliases to field names, the model's `id` to the record's.

    A name that the model lacks is a `QueryError` with the nearest name, since it would match nothing
    in silence. Paths into dicts, `Any` and models with extra fields are not checked.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model
        self._has_id = "id" in model.model_fields
        self._resolved: dict[Path, Path] = {}

    def resolve(self, path: Path) -> Path:
        """Return the stored path; raises `QueryError` for a field that the model lacks."""
        if path.root is not Root.DATA:
            return path
        known = self._resolved.get(path)
        if known is None:
            known = self._resolved[path] = self._resolve(path)
        return known

    def _resolve(self, path: Path) -> Path:
        if self._has_id and path.keys == ("id",):
            return Path(Root.ID, ())
        models: list[type[BaseModel]] | None = [self._model]
        keys: list[str] = []
        for index, key in enumerate(path.keys):
            if not models:
                if models is None:
                    return Path(Root.DATA, (*keys, *path.keys[index:]))
                raise QueryError(
                    f"{self._model.__name__}: {'.'.join(path.keys[:index])!r} has no fields, got {path}"
                )
            found = [field for model in models if (field := _find_field(model, key)) is not None]
            if not found:
                raise QueryError(self._unknown(path, index, models))
            keys.append(found[0][0])
            models = _models_of(*(annotation for _, annotation in found))
        return Path(Root.DATA, tuple(keys))

    def _unknown(self, path: Path, index: int, models: list[type[BaseModel]]) -> str:
        key = path.keys[index]
        names = sorted({name for model in models for name in _names(model)})
        text = f"{' or '.join(model.__name__ for model in models)} has no field {key!r}"
        if key[:1] in "+-" and key[1:] in names:
            return f"{text}; a direction is the second argument: sort({key[1:]!r}, 'desc')"
        return text + suggest(key, names)

    def query(self, query: Query) -> Query:
        """Return the query with every path resolved."""
        return replace(
            query,
            where=self.predicate(query.where),
            order=tuple(SortKey(self.resolve(k.path), k.descending, k.nulls_first) for k in query.order),
            fields=None if query.fields is None else tuple(map(self.resolve, query.fields)),
        )

    def predicate(self, predicate: Predicate) -> Predicate:
        """Return the predicate with every path resolved."""
        match predicate:
            case And(terms):
                return And(tuple(map(self.predicate, terms)))
            case Or(terms):
                return Or(tuple(map(self.predicate, terms)))
            case Not(term):
                return Not(self.predicate(term))
            case AnyObject(path, where):
                return AnyObject(self.resolve(path), self._inside(path, where))
            case leaf:
                return replace(leaf, path=self.resolve(leaf.path))

    def _inside(self, outer: Path, predicate: Predicate) -> Predicate:
        """Return the predicate of an `any` with every path, which begins at an object there, resolved."""
        match predicate:
            case And(terms):
                return And(tuple(self._inside(outer, term) for term in terms))
            case Or(terms):
                return Or(tuple(self._inside(outer, term) for term in terms))
            case Not(term):
                return Not(self._inside(outer, term))
            case leaf:
                path = Path(outer.root, (*outer.keys, *leaf.path.keys))
                resolved = Path(Root.DATA, self.resolve(path).keys[len(outer.keys) :])
                if isinstance(leaf, AnyObject):
                    return AnyObject(resolved, self._inside(path, leaf.where))
                return replace(leaf, path=resolved)


def _find_field(model: type[BaseModel], key: str) -> tuple[str, Any] | None:
    """Return the stored name and the annotation of a field, given by its name or an alias."""
    if key in model.model_fields:
        return key, model.model_fields[key].annotation
    if key in model.model_computed_fields:
        return key, model.model_computed_fields[key].return_type
    for name, field in model.model_fields.items():
        if key in (field.alias, field.serialization_alias, field.validation_alias):
            return name, field.annotation
    return (key, Any) if model.model_config.get("extra") == "allow" else None


def _names(model: type[BaseModel]) -> list[str]:
    return [*model.model_fields, *model.model_computed_fields]


def _models_of(*annotations: Any) -> list[type[BaseModel]] | None:
    """Return the models that a value of these types may be; None if it may have any keys."""
    models: list[type[BaseModel]] = []
    for kind in _leaf_types(annotations):
        if isinstance(kind, type) and issubclass(kind, RootModel):
            inner = _models_of(kind.model_fields["root"].annotation)
            if inner is None:
                return None
            models += inner
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            models.append(kind)
        elif _has_any_keys(kind):
            return None
    return models


def _leaf_types(annotations: tuple[Any, ...]) -> Iterator[Any]:
    for annotation in annotations:
        origin = get_origin(annotation)
        if hasattr(annotation, "__value__"):  # `type X = …` of Python 3.12
            yield from _leaf_types((annotation.__value__,))
        elif origin is typing.Annotated:
            yield from _leaf_types(get_args(annotation)[:1])
        elif origin in (typing.Union, types.UnionType, list, set, frozenset, tuple):
            yield from _leaf_types(get_args(annotation))
        else:
            yield annotation


def _has_any_keys(kind: Any) -> bool:
    if not isinstance(kind, type) or kind is object:
        return True
    return issubclass(kind, Mapping) or is_dataclass(kind) or typing.is_typeddict(kind)
