"""Rows of typed queries: parts of records and columns of groups, in the types of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Optional, TypeVar, Union

from pydantic import BaseModel, create_model

from isthmus._field_proxy import (
    Column,
    FieldProxy,
    field_of,
    is_element,
    is_lacking,
    is_maybe,
    proxy_of,
)
from isthmus._lambda_calls import call_with_model, is_field
from isthmus._model_codec import ModelCodec
from isthmus._model_operands import kinds_of_types
from isthmus._model_paths import ModelField, ModelPaths
from isthmus._path import Path, Root
from isthmus._query.ast import Function
from isthmus._record import Record
from isthmus.errors import QueryError

R = TypeVar("R")
_MISSING: Any = object()


class SelectedRow(Generic[R]):
    """The row of a `select`: reads fields of a record as the lambda laid them out."""

    def __init__(self, row: Callable[[Any], R], paths: ModelPaths) -> None:
        self._make, parts = _layout(row, paths)
        proxies = [proxy_of(part, "select()") for part in parts]
        self._columns = [(_column_name(index, proxy), proxy) for index, proxy in enumerate(proxies)]
        kinds: dict[str, Any] = {name: _type_of_selection(proxy) for name, proxy in self._columns}
        self._codec = ModelCodec(create_model(paths.model.__name__, **kinds))

    @property
    def paths(self) -> tuple[Path, ...]:
        """The stored paths to read."""
        return tuple(field_of(proxy).path for _, proxy in self._columns)

    def decode(self, record: Record) -> R:
        """Return the row of a record; raises `InvalidRecordError` for values that do not match."""
        values = {name: _value_at(record, field_of(proxy).path) for name, proxy in self._columns}
        data = {name: value for name, value in values.items() if value is not _MISSING}
        return self._make(_decode_values(self._codec, Record(data, id=record.id)))


class GroupedRow(Generic[R]):
    """The row of a `group`: keys and measures as the lambda laid them out."""

    def __init__(self, row: Callable[[Any], R], paths: ModelPaths) -> None:
        self._make, parts = _layout(row, paths)
        self.by: list[Path] = []
        """The stored paths to group by."""
        self.columns: dict[str, tuple[str, Path] | str] = {"#": "count"}
        """The measures by name; one is always there, as an aggregate needs one."""
        self._names: list[str] = []
        kinds: dict[str, Any] = {}
        for index, part in enumerate(parts):
            name, source, kind = self._column(index, part)
            self._names.append(source)
            kinds[name] = (kind, ...)
        self._fields = list(kinds)
        self._codec = ModelCodec(create_model(paths.model.__name__, **kinds))

    def _column(self, index: int, part: object) -> tuple[str, str, Any]:
        """Add a key or a measure; return the row's field, the answer's column and the type."""
        if isinstance(part, Column):
            source = f"#{index}"
            measured = part.field
            function = part.function.value
            self.columns[source] = function if measured is None else (function, measured.path)
            name = function if measured is None else f"{function}({measured.path})"
            return f"{index}:{name}", source, _type_of_measure(part)
        proxy = proxy_of(part, "group()")
        field = field_of(proxy)
        if field.listed and not is_element(proxy):
            raise QueryError(f"group(): {proxy!r} is a list: group by each({proxy!r})")
        if field.types is not None and kinds_of_types(field.types) == {"object"}:
            raise QueryError(f"group(): {proxy!r} is an object, which groups nothing: name a field of it")
        if field.path not in self.by:
            self.by.append(field.path)
        return _column_name(index, proxy), str(field.path), _key_type(proxy, field)

    def decode(self, row: dict[str, Any]) -> R:
        """Return the row of an answer's group; raises `InvalidRecordError` for a key of another type."""
        data = {name: row[source] for name, source in zip(self._fields, self._names, strict=True)}
        return self._make(_decode_values(self._codec, Record(data)))


def _layout(row: Callable[[Any], R], paths: ModelPaths) -> tuple[Callable[[list[Any]], R], Sequence[object]]:
    """Return how the lambda's row is made of values, and what it is made of."""
    made: Any = call_with_model(row, paths, lambda made: made)
    if is_field(made) or isinstance(made, Column):
        return lambda values: values[0], [made]
    if not isinstance(made, tuple) or not made:
        raise QueryError(f"a row is a field or a tuple of fields, (p.name, p.age), got {type(made).__name__}")
    make: Any = getattr(type(made), "_make", tuple)
    return make, made


def _column_name(index: int, proxy: FieldProxy) -> str:
    return f"{index}:{field_of(proxy).path}"


def _type_of_selection(proxy: FieldProxy) -> tuple[Any, Any]:
    """Return the type of a selected field, and its default."""
    field = field_of(proxy)
    if is_element(proxy) or field.repeated:
        raise QueryError(f"select(): {proxy!r} lies in a list: select the list itself")
    _check_lacking("select()", proxy)
    if field.path.root is not Root.DATA:  # of an id or a version nothing but the type counts
        return field.annotation, None
    if is_maybe(proxy):
        return Optional[field.annotation], None  # noqa: UP045 - of a type known at run time
    return (field.annotation, None) if field.info is None else (field.info.annotation, field.info)


def _key_type(proxy: FieldProxy, field: ModelField) -> Any:
    _check_lacking("group()", proxy)
    if field.types is None:
        return Any
    absent = (type(None),) if is_maybe(proxy) else ()
    return Union[(*field.types, *absent)]


def _type_of_measure(column: Column) -> Any:
    field = column.field
    if column.function is Function.COUNT:
        return int
    if column.function is Function.AVG:
        return Optional[float]  # noqa: UP045
    if field is None or field.types is None:
        return Any
    return Union[(*field.types, type(None))]


def _check_lacking(use: str, proxy: FieldProxy) -> None:
    if is_lacking(proxy) and not is_maybe(proxy):
        raise QueryError(f"{use}: some records have no {proxy!r}: write maybe({proxy!r})")


def _value_at(record: Record, path: Path) -> Any:
    if path.root is Root.ID:
        return record.id
    if path.root is Root.VERSION:
        return record.version
    value: Any = record.data
    for key in path.keys:
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _decode_values(codec: ModelCodec[BaseModel], record: Record) -> list[Any]:
    return [value for _, value in codec.decode(record)]
