"""Changes of fields: what `modify` does to a record's data, as values and as one pure function (meaning §5).

Every store applies changes as `apply_changes` does. It never alters the data that it is given, so
that a refused change leaves nothing half-changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from isthmus._path import Path, Root
from isthmus._value import Value
from isthmus._values import JSON, canonical_operand, kind_of, same
from isthmus.errors import InvalidRecordError, QueryError


class Set(Value):
    """Store a value."""

    path: Path
    value: JSON


class Unset(Value):
    """Remove the key."""

    path: Path


class Inc(Value):
    """Add a number; from nothing it begins at 0."""

    path: Path
    amount: int | float


class Max(Value):
    """Store a number or text if it is greater than the one that is there."""

    path: Path
    value: int | float | str


class Min(Value):
    """Store a number or text if it is less than the one that is there."""

    path: Path
    value: int | float | str


class Push(Value):
    """Append values to a list."""

    path: Path
    values: tuple[JSON, ...]


class Pull(Value):
    """Remove every element that is deeply equal to a value from a list."""

    path: Path
    value: JSON


class Add(Value):
    """Append each value to a list unless an element is deeply equal to it."""

    path: Path
    values: tuple[JSON, ...]


FieldChange: TypeAlias = Set | Unset | Inc | Max | Min | Push | Pull | Add
"""One change of one field; made by the methods of `field()`."""
CHANGES = (Set, Unset, Inc, Max, Min, Push, Pull, Add)


def apply_changes(data: dict[str, Any], changes: Iterable[FieldChange]) -> dict[str, Any]:
    """Return the data after the changes, applied in order; `data` stays as it is and may be shared.

    Raises `InvalidRecordError` with the path of the first change that the data do not admit.
    """
    for change in changes:
        data = _change_in(data, change.path.keys, change)
    return data


def _change_in(holder: dict[str, Any], keys: tuple[str, ...], change: FieldChange) -> dict[str, Any]:
    """Return an object with the value at the keys changed; the object itself if nothing differs."""
    key, rest = keys[0], keys[1:]
    old = holder.get(key)  # null counts as missing
    if rest:
        if old is None:
            if isinstance(change, Unset | Pull):
                return holder
            old = {}
        elif not isinstance(old, dict):
            reached = change.path.keys[: len(change.path.keys) - len(rest)]
            raise _refuse(reached, f"{change.path} leads through objects only; here is {_a(old)}")
        new = _change_in(old, rest, change)
    elif isinstance(change, Unset):
        return {name: value for name, value in holder.items() if name != key} if key in holder else holder
    else:
        new = _new_value(old, change)
        if new is None and not isinstance(change, Set):  # `pull` of nothing
            return holder
    return {**holder, key: new}


def _new_value(old: Any, change: FieldChange) -> Any:
    """Return the value in place of `old`, which is None if there is none."""
    match change:
        case Set(_, value):
            return value
        case Inc(path, amount):
            return _add(path, 0 if old is None else old, amount)
        case Max(_, value) | Min(_, value):
            return _choose(old, value, change)
        case Push(_, values):
            return [*_elements(old, change), *values]
        case Pull(_, value):
            return None if old is None else [item for item in _elements(old, change) if not same(item, value)]
        case Add(_, values):
            elements = [*_elements(old, change)]
            for value in values:
                if not any(same(item, value) for item in elements):
                    elements.append(value)
            return elements
        case Unset():
            raise AssertionError("unset removes the key and stores nothing")


def _add(path: Path, old: Any, amount: int | float) -> JSON:
    """Return a sum: of ints it is exact, with a float it is that of IEEE doubles."""
    if kind_of(old) != "number":
        raise _refuse(path.keys, f"inc needs a number, here is {_a(old)}")
    exact = isinstance(old, int) and isinstance(amount, int)
    # Sums beyond 64 bits and beyond the floats are refused there.
    return canonical_operand(old + amount if exact else float(old) + float(amount), _where(path.keys))


def _choose(old: Any, value: int | float | str, change: Max | Min) -> Any:
    if old is None:
        return value
    if kind_of(old) != kind_of(value):
        name = "max" if isinstance(change, Max) else "min"
        raise _refuse(change.path.keys, f"{name} compares {_a(value)} with {_a(value)}, here is {_a(old)}")
    replaces = value > old if isinstance(change, Max) else value < old
    return value if replaces else old


def _elements(old: Any, change: Push | Pull | Add) -> list[Any]:
    if old is None:
        return []
    if not isinstance(old, list):
        raise _refuse(change.path.keys, f"{type(change).__name__.lower()} needs a list, here is {_a(old)}")
    return old


def _refuse(keys: tuple[str, ...], reason: str) -> InvalidRecordError:
    where = _where(keys)
    return InvalidRecordError(f"{where}: {reason}", path=where)


def _where(keys: tuple[str, ...]) -> str:
    return ".".join(("data", *keys))


_ARTICLES = {"object": "an object", "text": "text", "null": "null"}


def _a(value: Any) -> str:
    kind = kind_of(value)
    return _ARTICLES.get(kind, f"a {kind}")


# Building and checking


def change_of(kind: type[FieldChange], path: Path, *operands: Any) -> FieldChange:
    """Return a change with its operands converted as stored values are.

    Raises `QueryError` for an operand that no record can hold or that the change cannot take, and
    for a path that is not in the data.
    """
    name = kind.__name__.lower()
    if path.root is not Root.DATA:
        raise QueryError(f"{path} {name}: only fields of the data can be changed")
    values: Any = tuple(_operand(path, name, value) for value in operands)
    if kind is Push or kind is Add:
        if not values:
            raise QueryError(f"{path} {name}: needs at least one value")
        return kind(path, values)
    if kind is Inc and kind_of(values[0]) != "number":
        raise QueryError(f"{path} inc: needs a number, got {kind_of(values[0])}")
    if kind in (Max, Min) and kind_of(values[0]) not in ("number", "text"):
        raise QueryError(f"{path} {name}: needs a number or text, got {kind_of(values[0])}")
    return kind(path, *values)


def _operand(path: Path, name: str, value: Any) -> JSON:
    try:
        return canonical_operand(value, "value")
    except InvalidRecordError as error:
        raise QueryError(f"{path} {name}: {error}") from error.__cause__


def as_changes(changes: Iterable[Any]) -> tuple[FieldChange, ...]:
    """Return changes as given to `modify`; raises `QueryError` if there are none, or one is none."""
    given = tuple(changes)
    for change in given:
        if not isinstance(change, CHANGES):
            raise QueryError(
                f"a change is made by a field, such as field('n').inc(1); got {type(change).__name__}"
            )
    if not given:
        raise QueryError("a modification needs at least one change, such as field('n').inc(1)")
    return given
