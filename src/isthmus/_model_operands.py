"""Operands of queries over models: converted as stored values are, refused where nothing could match."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import re
import uuid
from collections.abc import Iterable, Mapping
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any, Literal, NewType, get_args, get_origin

from pydantic import AnyUrl, BaseModel, TypeAdapter, ValidationError

from isthmus._arguments import shorten
from isthmus._conversion import describe_failure, raise_interrupt
from isthmus._model_codec import to_storable, to_text_key
from isthmus._path import Path
from isthmus._query.ast import (
    KNN,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    In,
    Leaf,
    Like,
    Ordered,
    Regex,
    StartsWith,
    TextMatch,
)
from isthmus._suggest import suggest
from isthmus._values import canonical_operand, kind_of
from isthmus.errors import InvalidRecordError, QueryError

# Stored as text, and read from it.
_PARSED = (
    dt.date, dt.time, dt.timedelta, uuid.UUID, PurePath, AnyUrl,
    IPv4Address, IPv6Address, IPv4Network, IPv6Network,
)  # fmt: skip
_TEXTS = (str, bytes, bytearray, *_PARSED)
_UNSORTED = (
    bytes, bytearray, dt.timedelta, PurePath, IPv4Address, IPv6Address, IPv4Network, IPv6Network,
)  # fmt: skip
_NUMBERS = (int, float, Decimal)
_TIMES = (dt.datetime, dt.time, dt.timedelta)
_NANOSECONDS = re.compile(r"\.[0-9]{6}[0-9]*[1-9]")
# Part of a date or of a UUID, which bounds them as a text.
_PART = re.compile(r"[0-9][0-9T:. +-]*Z?|[0-9a-f][0-9a-f-]*")


def check_leaf(leaf: Leaf, types: tuple[Any, ...], *, as_text: bool = False) -> None:
    """Raise `QueryError` for a condition that no record of the model can meet.

    `types` are those of the field's values; `as_text` says that the field is the record's id or
    version, which is text whatever its type.
    """
    kinds = {"text"} if as_text else kinds_of_types(types)
    if kinds is None:
        return
    match leaf:
        case Exists() | EqualList() | KNN():
            return
        case Equal(_, value):
            _check_kinds(leaf, [value], kinds, types)
        case Ordered(_, _, value) | Between(_, value, _):
            check_sortable(leaf.path, types)
            _check_kinds(leaf, [value], kinds, types)
        case In(_, values):
            _check_kinds(leaf, values, kinds, types)
        case Like() | Regex() | StartsWith() | EndsWith() | Contains() | TextMatch():
            if "text" not in kinds:
                raise QueryError(f"{leaf.path}: holds {name_types(types)}, not text")
    if isinstance(leaf, Equal | In):
        _check_members(leaf, types)


def check_sortable(path: Path, types: tuple[Any, ...] | None) -> None:
    """Raise `QueryError` for a field whose stored text does not sort as its values do."""
    for kind in types or ():
        if is_a(kind, _UNSORTED):
            raise QueryError(
                f"{path}: a {kind.__name__} is stored as text, which does not sort as its values do: "
                "only =, !=, in, not_in and exists compare it"
            )


def _check_kinds(leaf: Leaf, values: Iterable[Any], kinds: set[str], types: tuple[Any, ...]) -> None:
    for value in values:
        if kind_of(value) not in kinds:
            raise QueryError(f"{leaf.path}: holds {name_types(types)}, and {value!r} is {kind_of(value)}")


def _check_members(leaf: Equal | In, types: tuple[Any, ...]) -> None:
    """Raise `QueryError` for a value that is no member of the enum or of the literals."""
    members: list[Any] = []
    for kind in types:
        if is_a(kind, enum.Enum) and not is_a(kind, enum.Flag):
            members += (member.value for member in kind)
        elif get_origin(kind) is Literal:
            members += (item.value if isinstance(item, enum.Enum) else item for item in get_args(kind))
        elif kind is not type(None):
            return
    for value in leaf.values if isinstance(leaf, In) else (leaf.value,):
        if not any(value == member and kind_of(value) == kind_of(member) for member in members):
            raise QueryError(f"{leaf.path}: is never {value!r}{suggest(value, map(str, members))}")


def kinds_of_types(types: tuple[Any, ...]) -> set[str] | None:
    """Return the JSON kinds of values of these types; None if a type's form is not known."""
    kinds: set[str] = set()
    for kind in types:
        if isinstance(kind, NewType):
            found = kinds_of_types((kind.__supertype__,))
        elif get_origin(kind) is Literal:
            found = {_kind(value) for value in get_args(kind)}
        elif isinstance(get_origin(kind) or kind, type):
            found = _class_kinds(get_origin(kind) or kind)
        else:
            found = None
        if found is None or "other" in found:
            return None
        kinds |= found
    return kinds


def _class_kinds(kind: type) -> set[str] | None:
    if kind is type(None):
        return set()
    if issubclass(kind, enum.Enum):
        return {_kind(member) for member in kind}
    if issubclass(kind, bool):
        return {"bool"}
    if issubclass(kind, _TEXTS):
        return {"text"}
    if issubclass(kind, _NUMBERS):
        return {"number"}
    return {"object"} if issubclass(kind, BaseModel | Mapping) else None


def _kind(value: Any) -> str:
    """Return the JSON kind of a member of an enum or a literal; "other" if it is no JSON scalar."""
    value = value.value if isinstance(value, enum.Enum) else value
    if value is None or isinstance(value, bool):
        return kind_of(value)
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | float) else "other"


def holds_text(types: tuple[Any, ...]) -> bool:
    """Return whether some value is text to Python too, or of a form that is not known."""
    return kinds_of_types(types) is None or any(
        get_origin(kind) is Literal or is_a(kind, str) for kind in map(without_alias, types)
    )


def holds_numbers(types: tuple[Any, ...]) -> bool:
    """Return whether some value is a number, or of a form that is not known; bools and enums are none."""
    return kinds_of_types(types) is None or any(
        is_a(kind, _NUMBERS) and not is_a(kind, (bool, enum.Enum)) for kind in map(without_alias, types)
    )


def without_alias(kind: Any) -> Any:
    """Return the type that a `NewType` stands for; any other as it is."""
    return without_alias(kind.__supertype__) if isinstance(kind, NewType) else kind


def is_a(kind: Any, classes: type | tuple[type, ...]) -> bool:
    """Return whether an annotation is one of the classes, or of a class below them."""
    return isinstance(kind, type) and issubclass(kind, classes)


def convert_operand(name: str, types: tuple[Any, ...], value: Any, *, as_text: bool, strict: bool) -> Any:
    """Return an operand in the form in which the model's values are stored.

    `name` is the field's, for errors; `types` are those of its values. With `strict` an enum's
    value and the text of a date do not stand for the member and the date. Raises `QueryError` for
    a value of another type, which would equal nothing, and for what the value's own code raises.
    """
    try:
        return _convert(name, types, value, as_text=as_text, strict=strict)
    except QueryError:
        raise
    except Exception as error:
        raise_interrupt(error)
        raise QueryError(
            f"{name}: {shorten(value)} cannot be converted: {describe_failure(error)}"
        ) from error


def _convert(name: str, types: tuple[Any, ...], value: Any, *, as_text: bool, strict: bool) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_convert(name, types, item, as_text=as_text, strict=strict) for item in value]
    known = value is not None and kinds_of_types(types) is not None
    if known and not any(_accepts(kind, value, strict) for kind in types):
        parsed = None if strict or not isinstance(value, str) else _parse(types, value)
        if parsed is None:
            raise QueryError(
                f"{name}: holds {name_types(types)}, got {shorten(value)}{_hint(types, value, strict)}"
            )
        value = parsed
    stored = to_storable(value.model_dump(warnings=False) if isinstance(value, BaseModel) else value)
    return str(stored) if as_text and stored is not None else stored


def check_whole(name: str, annotation: Any, operand: object) -> None:
    """Raise `QueryError` for a list or a dict that no value of the annotation equals.

    Its values are of known types; what is left are the places of a tuple, lists in lists, and the
    values of a dict.
    """
    if annotation is Any:
        return
    try:
        TypeAdapter(annotation).validate_python(operand)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        at = "".join(f"[{part!r}]" for part in first["loc"])
        raise QueryError(f"{name}: never equals {shorten(operand)}: {at or 'it'}: {first['msg']}") from None


def parse_operands(leaf: Leaf, types: tuple[Any, ...]) -> Leaf:
    """Return the leaf with the texts of dates, UUIDs and the like in the form in which they are stored.

    Raises `QueryError` for a text that stands for none, except the first part of a date as a bound.
    """
    if not all(kind is type(None) or is_a(kind, _PARSED) for kind in types):
        return leaf
    match leaf:
        case Equal(path, str(value)):
            return Equal(path, _restate(path, types, value))
        case Ordered(path, op, str(value)):
            return Ordered(path, op, _restate_bound(path, types, value))
        case Between(path, str(low), str(high)):
            return Between(path, _restate_bound(path, types, low), _restate_bound(path, types, high))
        case In(path, values):
            return In(path, tuple(_restate(path, types, v) if isinstance(v, str) else v for v in values))
    return leaf


def _restate(path: Path, types: tuple[Any, ...], text: str) -> str:
    """Return the text as it is stored; raises `QueryError` for one that never is."""
    parsed = _parse(types, text)
    if parsed is None:
        raise QueryError(f"{path}: holds {name_types(types)}, and {text!r} is none")
    try:
        stored = canonical_operand(to_storable(parsed), "value")
    except InvalidRecordError as error:  # a date without a zone, where an instant is stored
        raise QueryError(f"{path}: {error}") from None
    return stored if isinstance(stored, str) else text


def _restate_bound(path: Path, types: tuple[Any, ...], text: str) -> str:
    """Return a bound as it is stored; one that is part of a value, as a year is of a date, stays."""
    is_link = any(is_a(kind, AnyUrl) for kind in types)
    try:
        return _restate(path, types, text)
    except QueryError:
        if is_link or (_PART.fullmatch(text) and not _is_cut(types, text)):
            return text
        raise


def _parse(types: tuple[Any, ...], text: str) -> Any:
    """Return the date, UUID, duration or the like that the text stands for; None if it stands for none."""
    if text.lstrip("+-").replace(".", "", 1).isdigit():  # "2026" is a year, not seconds since 1970
        return None
    if _is_cut(types, text):
        return None
    for kind in types:
        if is_a(kind, _PARSED):
            try:
                return _adapter(kind).validate_python(text)
            except ValidationError:
                continue
    return None


def _is_cut(types: tuple[Any, ...], text: str) -> bool:
    """Return whether pydantic would cut off a part of the text that is below a microsecond."""
    return _NANOSECONDS.search(text) is not None and any(is_a(kind, _TIMES) for kind in types)


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _hint(types: tuple[Any, ...], value: object, strict: bool) -> str:
    members = [member for kind in types if is_a(kind, enum.Enum) for member in kind]
    if not members:
        return f" ({type(value).__name__})"
    meant = [
        f"{type(member).__name__}.{member.name}" for member in members if strict and member.value == value
    ]
    if strict and not meant:
        unions = (kind for kind in types if is_a(kind, enum.Flag) and _is_value_of(kind, value))
        meant = [f"{kind.__name__}({value})" for kind in unions]
    return f"; write {meant[0]}" if meant else suggest(value, (str(member.value) for member in members))


def _accepts(kind: Any, value: Any, strict: bool) -> bool:
    """Return whether a value of the type may equal, or be ordered beside, the operand."""
    if isinstance(kind, NewType):
        return _accepts(kind.__supertype__, value, strict)
    if get_origin(kind) is Literal:
        return any(value == known and type(value) is type(known) for known in get_args(kind))
    kind = get_origin(kind) or kind
    if issubclass(kind, enum.Enum):
        return isinstance(value, kind) or (not strict and _is_value_of(kind, value))
    if issubclass(kind, bool) or isinstance(value, bool):
        return issubclass(kind, bool) is isinstance(value, bool)
    if issubclass(kind, _NUMBERS):
        return isinstance(value, _NUMBERS)
    if isinstance(value, dt.date) and issubclass(kind, dt.date):  # a datetime is a date to Python
        return issubclass(kind, dt.datetime) is isinstance(value, dt.datetime)
    if isinstance(value, str) and not strict:
        return issubclass(kind, str | bytes | bytearray)
    return isinstance(value, kind) or (kind is not type(None) and issubclass(kind, type(value)))


def _is_value_of(kind: type[enum.Enum], value: Any) -> bool:
    """Return whether a member has this value; a flag's members are also the unions of those with a name."""
    if not issubclass(kind, enum.Flag):
        return any(value == member.value for member in kind)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return False
    try:
        return bool(kind(int(value)).value == value)
    except ValueError:  # a bit that no member has
        return False


def name_types(types: tuple[Any, ...]) -> str:
    """Return the types of a field's values as errors name them."""
    named = (_name_type(kind) for kind in types if kind is not type(None))
    return " or ".join(dict.fromkeys(named)) or "None"


def _name_type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    return getattr(kind, "__name__", str(kind))


def key_as_stored(name: str, types: tuple[Any, ...] | None, key: object) -> str:
    """Return a key of the dicts that a field holds as it is stored.

    Raises `QueryError` for a key of another type than theirs.
    """
    expected = tuple(get_args(kind)[0] for kind in types or () if len(get_args(kind)) == 2)
    known = bool(expected) and kinds_of_types(expected) is not None
    if known and not any(_accepts(kind, key, strict=True) for kind in expected):
        raise QueryError(f"{name}[{shorten(key)}]: its keys are {name_types(expected)}")
    if not isinstance(key, (str, int, float, enum.Enum, Decimal, *_PARSED)):
        raise QueryError(f"{name}[{shorten(key)}]: a key is a value such as 'name', got {type(key).__name__}")
    return str(to_text_key(key))
