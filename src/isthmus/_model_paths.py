"""Checks the paths and operands of queries over a typed collection against its model, and translates them."""

from __future__ import annotations

import datetime as dt
import enum
import types
import typing
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, PlainSerializer, RootModel, WrapSerializer
from pydantic.fields import FieldInfo

from isthmus._model_codec import find_version_field
from isthmus._model_operands import (
    check_leaf,
    check_sortable,
    is_a,
    kinds_of_types,
    name_types,
    parse_operands,
)
from isthmus._path import Path, Root
from isthmus._query.ast import And, AnyObject, EqualList, Leaf, Not, Or, Predicate, SortKey
from isthmus._query.bucket import Bucket, GroupKey
from isthmus._query.query import Query
from isthmus._suggest import suggest
from isthmus._value import Value, replace
from isthmus.errors import QueryError

_LISTS = (list, set, frozenset, tuple, Sequence, Set)


class ModelField(Value):
    """The field of a model that a path leads to."""

    path: Path
    """The path as stored: by field names; a model's `id` is the record's."""
    types: tuple[Any, ...] | None
    """The types of its value, or of each element of a list; None if they are not known."""
    annotation: Any
    """The declared type of its value, with constraints; Any if it is not known."""
    info: FieldInfo | None
    """The model's own field; None for a computed field, a value of a dict, or one of several models."""
    optional: bool
    """Whether records may lack it: below an optional field, in a dict, in one model of a union."""
    repeated: bool
    """Whether a field on the way to it is a list."""
    listed: bool
    """Whether its own value is a list."""


class ModelPaths:
    """Resolves the paths of one model: aliases to field names, the model's `id` to the record's.

    A name that the model lacks is a `QueryError` with the nearest name, since it would match nothing
    in silence. So is an operand of a kind that the field never holds. Paths into `Any`, dicts of
    unknown values and models with extra fields, and fields with a serializer of their own, are not checked.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model
        self._attributes = {"id": Root.ID} if "id" in model.model_fields else {}
        if (version := find_version_field(model)) is not None:
            self._attributes[version] = Root.VERSION
        self._fields: dict[Path, ModelField] = {}

    def resolve(self, path: Path) -> Path:
        """Return the stored path; raises `QueryError` for a field that the model lacks."""
        return path if path.root is not Root.DATA else self.locate(path).path

    def resolve_sort(self, path: Path) -> Path:
        """Return the stored path of a sort key; raises `QueryError` also for a field that cannot be one."""
        field = self.locate(path)
        check_sortable(field.path, field.types)
        return field.path

    def locate(self, path: Path) -> ModelField:
        """Return the field at a path; raises `QueryError` if the model has none there."""
        known = self._fields.get(path)
        if known is None:
            known = self._fields[path] = self._locate(path)
        return known

    def _locate(self, path: Path) -> ModelField:
        if path.root is not Root.DATA:
            return ModelField(path, None, Any, None, False, False, False)
        if len(path.keys) == 1 and path.keys[0] in self._attributes:
            info = self.model.model_fields[path.keys[0]]
            attribute = Path(self._attributes[path.keys[0]], ())
            types = tuple(leaf_types((info.annotation,)))
            return ModelField(attribute, types, info.annotation, info, False, False, False)
        holders: tuple[Any, ...] = (self.model,)
        keys: list[str] = []
        found: list[_FieldMatch] = []
        optional = repeated = False
        for index, key in enumerate(path.keys):
            annotations = tuple(field.annotation for field in found)
            if index:
                holders = tuple(kind for kind in leaf_types(annotations) if kind is not type(None))
            if any(field.serialized for field in found) or any(map(_has_unknown_keys, holders)):
                whole = Path(Root.DATA, (*keys, *path.keys[index:]))
                return ModelField(whole, None, Any, None, optional, repeated, False)
            members = len(holders)
            holders = tuple(kind for kind in holders if is_a(kind, BaseModel) or _is_mapping(kind))
            if not holders:
                raise QueryError(self._no_fields(path, index, found))
            optional = optional or any(map(_is_optional, annotations))
            repeated = repeated or any(map(_is_list, annotations))
            found = [field for kind in holders if (field := _find_below(kind, key)) is not None]
            if not found:
                raise QueryError(
                    self._unknown(path, index, [kind for kind in holders if is_a(kind, BaseModel)])
                )
            optional = optional or len(found) < members or any(map(_is_mapping, holders))
            keys.append(found[0].name)
        return _field_of_matches(Path(Root.DATA, tuple(keys)), found, optional, repeated)

    def _no_fields(self, path: Path, index: int, found: list[_FieldMatch]) -> str:
        above = ".".join(path.keys[:index])
        kinds = {kind for field in found for kind in leaf_types((field.annotation,))}
        if any(is_a(kind, dt.date) for kind in kinds):
            how = f"; a year is a range: f(p.{above}).between(first, last)"
        elif any(is_a(kind, enum.Enum) for kind in kinds):
            how = f"; compare p.{above} with a member"
        else:
            how = f"; compare p.{above} itself"
        return f"{self.model.__name__}: {above!r} has no fields, got {path}{how}"

    def _unknown(self, path: Path, index: int, models: list[type[BaseModel]]) -> str:
        key = path.keys[index]
        names = sorted({name for model in models for name in _names(model)})
        text = f"{' or '.join(model.__name__ for model in models)} has no field {key!r}"
        if key[:1] in "+-" and key[1:] in names:
            return f"{text}; a direction is the second argument: sort({key[1:]!r}, 'desc')"
        return text + suggest(key, names)

    def group_key(self, key: GroupKey) -> GroupKey:
        """Return a group key with its path resolved."""
        return replace(key, path=self.resolve(key.path)) if isinstance(key, Bucket) else self.resolve(key)

    def query(self, query: Query) -> Query:
        """Return the query with every path resolved."""
        return replace(
            query,
            where=self.predicate(query.where),
            order=tuple(SortKey(self.resolve_sort(k.path), k.descending, k.nulls_first) for k in query.order),
            fields=None if query.fields is None else tuple(map(self.resolve, query.fields)),
        )

    def predicate(self, predicate: Predicate) -> Predicate:
        """Return the predicate with every path resolved and every operand checked."""
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
                return self._check(leaf, self.locate(leaf.path))

    def _check(self, leaf: Leaf, field: ModelField) -> Leaf:
        """Return the leaf with its field's stored path and its operands checked."""
        if field.types is not None:
            if isinstance(leaf, EqualList) and not field.listed and kinds_of_types(field.types) is not None:
                raise QueryError(f"{leaf.path}: holds {name_types(field.types)}, got a list")
            check_leaf(leaf, field.types, as_text=field.path.root is not Root.DATA)
            leaf = parse_operands(leaf, field.types)
        return replace(leaf, path=field.path)

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
                field = self.locate(path)
                resolved = Path(Root.DATA, field.path.keys[len(outer.keys) :])
                if isinstance(leaf, AnyObject):
                    return AnyObject(resolved, self._inside(path, leaf.where))
                return replace(self._check(leaf, field), path=resolved)


def _field_of_matches(path: Path, found: list[_FieldMatch], optional: bool, repeated: bool) -> ModelField:
    """Return the field that several models of a union, or one alone, have at a path."""
    annotations = tuple(field.annotation for field in found)
    info = found[0].info if len(found) == 1 else None
    checked = not any(field.serialized for field in found)
    return ModelField(
        path,
        tuple(leaf_types(annotations)) if checked else None,
        Union[annotations] if info is None else info.rebuild_annotation(),  # noqa: UP007 - made from a tuple
        info,
        optional,
        repeated,
        any(map(_is_list, annotations)),
    )


class _FieldMatch(Value):
    name: str
    annotation: Any
    info: FieldInfo | None = None
    serialized: bool = False


def _find_below(holder: Any, key: str) -> _FieldMatch | None:
    """Return the field of a model, or the value of a dict, under a key."""
    return _FieldMatch(key, get_args(holder)[1]) if _is_mapping(holder) else _find_field(holder, key)


def _find_field(model: type[BaseModel], key: str) -> _FieldMatch | None:
    """Return the field of a model, given by its name or an alias."""
    if key in model.model_computed_fields:
        return _FieldMatch(
            key, model.model_computed_fields[key].return_type, serialized=_serializes(model, key)
        )
    for name, field in model.model_fields.items():
        aliases = (field.alias, field.serialization_alias, field.validation_alias)
        if key == name or (key in aliases and key not in model.model_fields):
            if field.exclude:
                raise QueryError(
                    f"{model.__name__}.{name} is not stored (exclude=True), so nothing is found by it"
                )
            custom = any(isinstance(item, PlainSerializer | WrapSerializer) for item in field.metadata)
            return _FieldMatch(name, field.annotation, field, custom or _serializes(model, name))
    return _FieldMatch(key, Any) if model.model_config.get("extra") == "allow" else None


def _serializes(model: type[BaseModel], name: str) -> bool:
    """Return whether the model writes the field in a form of its own."""
    decorators = model.__pydantic_decorators__
    named = (serializer.info.fields for serializer in decorators.field_serializers.values())
    return bool(decorators.model_serializers) or any(name in fields or "*" in fields for fields in named)


def _names(model: type[BaseModel]) -> list[str]:
    return [*model.model_fields, *model.model_computed_fields]


def leaf_types(annotations: tuple[Any, ...], seen: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yield the types that values may have: members of unions, elements of lists, what a root model holds."""
    for annotation in annotations:
        origin = get_origin(annotation)
        if hasattr(annotation, "__value__"):  # `type X = …` of Python 3.12
            yield from leaf_types((annotation.__value__,), seen)
        elif origin is typing.Annotated:
            custom = any(
                isinstance(item, PlainSerializer | WrapSerializer) for item in annotation.__metadata__
            )
            yield from (Any,) if custom else leaf_types(get_args(annotation)[:1], seen)
        elif origin in (typing.Union, types.UnionType) or _is_list(annotation):
            members = tuple(member for member in get_args(annotation) if member is not ...)
            yield from leaf_types(members or (Any,), seen)
        elif isinstance(annotation, type) and issubclass(annotation, RootModel):
            if annotation not in seen:  # it may hold itself
                yield from leaf_types((annotation.model_fields["root"].annotation,), (*seen, annotation))
        else:
            yield annotation


def _is_list(annotation: Any) -> bool:
    if get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return any(map(_is_list, get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        return _is_list(annotation.model_fields["root"].annotation)
    return annotation in _LISTS or get_origin(annotation) in _LISTS


def _is_optional(annotation: Any) -> bool:
    return type(None) in get_args(annotation)


def _is_mapping(kind: Any) -> bool:
    """Return whether the type is a dict whose values have a known type."""
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping) and len(get_args(kind)) == 2


def _has_unknown_keys(kind: Any) -> bool:
    """Return whether a value of the type may have keys that the type does not tell."""
    if not isinstance(kind, type) or kind in (Any, object):  # Any is a class from Python 3.11 on
        return not _is_mapping(kind) and get_origin(kind) is not Literal
    return issubclass(kind, Mapping) or is_dataclass(kind) or typing.is_typeddict(kind)
