"""Checks changes of fields against a pydantic model: names, kinds, and values by the field's type."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Union, get_args, get_origin

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from isthmus._model_operands import check_sortable, without_alias
from isthmus._model_paths import ModelField, ModelPaths, leaf_types
from isthmus._path import Path, Root
from isthmus._query.changes import Add, FieldChange, Inc, Max, Min, Pull, Push, Set, Unset
from isthmus._value import replace
from isthmus.errors import InvalidRecordError, QueryError

_LISTS = (list, set, frozenset, tuple, Sequence)


class ModelChanges:
    """Resolves and checks the changes of one model.

    A name or a kind of change that the model does not admit is a `QueryError`, a value that does
    not match the field's type and constraints an `InvalidRecordError`. What only the changed record
    can show, such as a sum beyond a constraint, is not checked.
    """

    def __init__(self, model: type[BaseModel], paths: ModelPaths) -> None:
        self._model = model
        self._paths = paths
        self._adapters: dict[tuple[Path, bool], TypeAdapter[Any]] = {}

    def resolve(self, change: FieldChange) -> FieldChange:
        """Return the change with its stored path."""
        field = self._paths.locate(change.path)
        if field.path.root is not Root.DATA:
            raise QueryError(f"{self._model.__name__}: the id of a record cannot be changed")
        if len(field.path.keys) == 1 and field.path.keys[0] in self._model.model_computed_fields:
            raise QueryError(
                f"{self._model.__name__}: {field.path} is computed: change what it is computed from"
            )
        if isinstance(change, Max | Min):
            check_sortable(field.path, field.types)
        if field.annotation is not Any:
            self._check(change, field.path, field)
        return replace(change, path=field.path)

    def _check(self, change: FieldChange, path: Path, field: ModelField) -> None:
        match change:
            case Unset():
                if field.info is not None and field.info.is_required():
                    raise QueryError(f"{self._model.__name__} requires {path}: it cannot be unset")
            case Inc(_, amount):
                kinds = _kinds(field.annotation)
                if kinds and not kinds & {int, float, Decimal}:
                    raise QueryError(f"{self._model.__name__}: {path} is not a number to add to")
                if kinds and not kinds & {float, Decimal} and amount != int(amount):
                    raise QueryError(f"{self._model.__name__}: {path} takes whole numbers, got {amount!r}")
            case Set(_, value) | Max(_, value) | Min(_, value):
                self._validate(path, field, [value], element=False)
            case Push(_, values) | Add(_, values):
                self._validate(path, field, list(values), element=True)
            case Pull(_, value):
                self._validate(path, field, [value], element=True)

    def _validate(self, path: Path, field: ModelField, values: list[Any], *, element: bool) -> None:
        adapter = self._adapters.get((path, element))
        if adapter is None:
            kind = field.annotation
            if element:
                kind = _element(field.annotation)
                if kind is None:
                    raise QueryError(f"{self._model.__name__}: {path} is not a list")
            adapter = self._adapters[path, element] = TypeAdapter(kind)
        for value in values:
            try:
                # As stored JSON: a date is text there, and text is no number.
                adapter.validate_json(orjson.dumps(value), strict=True, by_name=True, by_alias=False)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                raise InvalidRecordError(
                    f"{path} of {self._model.__name__}: {first['msg']}", path=f"data.{'.'.join(path.keys)}"
                ) from error


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that a value may be; empty if it may be any."""
    kinds = set(map(without_alias, leaf_types((annotation,)))) - {type(None)}
    return set() if Any in kinds or object in kinds else kinds


def _element(annotation: Any) -> Any:
    """Return the type of a list's elements; None if the annotation has no list."""
    if annotation is Any or annotation in (list, set, frozenset, tuple):
        return Any
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _element(arguments[0])
    if origin in (typing.Union, types.UnionType):
        found = [kind for kind in map(_element, arguments) if kind is not None]
        return Union[tuple(found)] if found else None  # noqa: UP007 - made from a tuple
    if origin in _LISTS:
        kinds = [kind for kind in arguments if kind is not Ellipsis]
        return Union[tuple(kinds)] if kinds else Any  # noqa: UP007 - made from a tuple
    return None
