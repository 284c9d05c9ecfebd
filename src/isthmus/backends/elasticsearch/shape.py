"""The fields of a record and the types of their values, cached by the record's shape.

Most records of a collection have the same keys with values of the same types, so the end of their
documents is computed once for each shape. Only three things depend on values: text that is too long
to be indexed, integers that are no doubles, and -0.0, which the encoder has changed already. Two
byte tests on the encoded record tell whether the values have to be examined.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

from isthmus._values import _DIGITS, INT_MAX, INT_MIN
from isthmus.backends.elasticsearch.layout import (
    EVERYWHERE,
    LONGEST_TEXT,
    encode_marks,
    field_mark,
    is_plain_key,
    is_short_name,
)

_MANY = 2_000
_KEPT_SHAPES = 5_000
_MAX_UNINDEXED = 200
_EXACT = 2**53


class ValueKind(enum.Enum):
    """The kind of a value, as far as it matters to an index."""

    TEXT = "text"
    LONG_TEXT = "text that is too long to be indexed"
    BOOL = "bool"
    FLOAT = "float"
    INT = "an integer below 2^53"
    WIDE = "a larger integer that is a double"
    BIG = "an integer that is no double"
    EXTREME = "2^63-1 or -2^63, which stand for 'missing' in a long field's order"
    OBJECTS = "a list that holds an object"


# The kinds that a field of each type indexes exactly.
_FITS: Mapping[str, frozenset[ValueKind]] = {
    "keyword": frozenset({ValueKind.TEXT, ValueKind.OBJECTS}),
    "double": frozenset({ValueKind.FLOAT, ValueKind.INT, ValueKind.WIDE, ValueKind.OBJECTS}),
    "long": frozenset({ValueKind.INT, ValueKind.WIDE, ValueKind.BIG, ValueKind.OBJECTS}),
    "boolean": frozenset({ValueKind.BOOL, ValueKind.OBJECTS}),
}
_NOTHING: frozenset[ValueKind] = frozenset()
_BY_TYPE: dict[type, ValueKind] = {
    str: ValueKind.TEXT,
    bool: ValueKind.BOOL,
    int: ValueKind.INT,
    float: ValueKind.FLOAT,
}
_JSON_TYPES = frozenset({str, bool, int, float, type(None), dict, list})
_NESTING = frozenset({dict, list})
_SCALARS = _JSON_TYPES - _NESTING

Types: TypeAlias = Mapping[str, str]


class RecordShape:
    """The fields of a record, apart from any mapping."""

    __slots__ = ("fields", "forced", "objects", "refused", "suffix")

    def __init__(self) -> None:
        self.fields: dict[str, set[ValueKind]] = {}
        """The kinds of values at each field that may be mapped."""
        self.forced: set[str] = set()
        """Names that stand for more than one path or cannot be mapped: never indexed."""
        self.objects: set[str] = set()
        """Names of the fields that hold an object."""
        self.refused = False
        """Whether the server rejects documents with these keys."""
        self.suffix: bytes | None = None
        """The end of its documents, once the type of every field is known."""

    def new_fields(self, types: Types) -> Iterator[tuple[str, set[ValueKind]]]:
        """Yield the fields that have no type yet."""
        for name, kinds in self.fields.items():
            if name not in types:
                yield name, kinds

    def list_unindexed(self, types: Types) -> list[str]:
        """Return the marks of the fields whose values an index of these types does not hold exactly."""
        unindexed = set(self.forced)
        closed = []
        for name, kinds in self.fields.items():
            type_ = types.get(name)
            if not kinds <= _FITS.get(type_ or "", _NOTHING):
                unindexed.add(name)
            if type_ is None and ValueKind.OBJECTS in kinds:
                closed.append(name + ".")  # nothing below an unmapped list of objects is indexed
        if closed:
            unindexed.update(name for name in self.fields if name.startswith(tuple(closed)))
        if len(unindexed) > _MAX_UNINDEXED:
            return [EVERYWHERE]
        return sorted(map(field_mark, unindexed))

    def encode_suffix(self, types: Types) -> bytes:
        """Return the end of a document of this shape: its stored `odd` and `obj`."""
        return encode_marks(self.list_unindexed(types), sorted(map(field_mark, self.objects)))


class NotJsonTypes(Exception):
    """The record holds values of other than JSON types: examine its encoded form instead."""


class _NestedShapes:
    """The shapes of records with the same top-level keys and types, by what their values contain."""

    __slots__ = ("keys", "shapes")

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self.shapes: dict[Hashable, RecordShape] = {}


class ShapeCache:
    """The shapes of a collection's data or metadata."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._shapes: dict[Hashable, RecordShape | _NestedShapes] = {}
        self._nested = 0

    def forget(self) -> None:
        """Drop all shapes, as after the mapping was replaced."""
        self._shapes.clear()
        self._nested = 0

    def of(self, data: dict[str, Any]) -> RecordShape:
        """Return the shape of data whose values need not be examined (see `needs_values`).

        Raises `NotJsonTypes` if a value is of another than a JSON type.
        """
        key = (tuple(data), tuple(map(type, data.values())))
        known = self._shapes.get(key)
        if type(known) is _NestedShapes:
            inside = tuple([_signature(data[name]) for name in known.keys])
            return known.shapes.get(inside) or self._within(data, known, inside)
        return known or self._first(data, key)  # type: ignore[return-value]

    def of_many(self, items: Sequence[dict[str, Any]]) -> list[RecordShape]:
        """Return the shape of each, as `of` does, at half its cost where all have the same keys."""
        first = items[0]
        if set(map(type, items)) != {dict}:
            raise NotJsonTypes
        keys, kinds = tuple(first), tuple(map(type, first.values()))
        same = list(map(tuple, items)).count(keys) == len(items)
        same = same and [tuple(map(type, data.values())) for data in items].count(kinds) == len(items)
        known = self._shapes.get((keys, kinds)) if same else None
        if known is None:
            return list(map(self.of, items))
        if type(known) is RecordShape:
            return [known] * len(items)
        assert isinstance(known, _NestedShapes)
        columns = [_signatures([data[name] for data in items]) for name in known.keys]
        shapes = []
        for data, inside in zip(items, zip(*columns, strict=True), strict=True):
            shapes.append(known.shapes.get(inside) or self._within(data, known, inside))
        return shapes

    def _first(self, data: dict[str, Any], key: Hashable) -> RecordShape:
        kinds = set(map(type, data.values()))
        if not kinds <= _JSON_TYPES:
            raise NotJsonTypes
        if len(data) > _MANY:
            for value in data.values():
                if type(value) in _NESTING:
                    _signature(value)
            return walk(data, self.root)
        if len(self._shapes) > _KEPT_SHAPES:
            self.forget()
        if kinds.isdisjoint(_NESTING):
            shape = self._shapes[key] = walk(data, self.root)
            return shape
        nest = _NestedShapes(tuple(name for name, value in data.items() if type(value) in _NESTING))
        inside = tuple([_signature(data[name]) for name in nest.keys])
        self._shapes[key] = nest
        return self._within(data, nest, inside)

    def _within(self, data: dict[str, Any], nest: _NestedShapes, inside: Hashable) -> RecordShape:
        self._nested += 1
        if self._nested > _KEPT_SHAPES:
            self.forget()
        shape = nest.shapes[inside] = walk(data, self.root)
        return shape


def needs_values(encoded: bytes, *, long: bool = True) -> bool:
    """Return whether values may matter: a long text (with `long`), or an integer of sixteen digits."""
    if long and len(encoded) > LONGEST_TEXT:
        return True
    zeros = encoded.translate(_DIGITS)
    # A float's digits follow a point, an integer follows one of these; text may look like either.
    return _SIXTEEN in zeros and any(start in zeros for start in _WIDE_STARTS)


_EMPTY: frozenset[type] = frozenset()
_SIXTEEN = b"0" * 16
_WIDE_STARTS = tuple(sign + _SIXTEEN for sign in (b":", b",", b"[", b"-"))


def _signatures(column: list[Any]) -> list[Hashable | type[Any]]:
    """Return the signatures of values that are all dicts or all lists; computed once where they are alike."""
    if type(column[0]) is list:
        kinds = frozenset(map(type, chain.from_iterable(column)))
        if len(kinds) < 2 and kinds <= _SCALARS:
            return [kinds if value else _EMPTY for value in column]
    else:
        keys, kind = tuple(column[0]), tuple(map(type, column[0].values()))
        same = list(map(tuple, column)).count(keys) == len(column)
        if same and [tuple(map(type, value.values())) for value in column].count(kind) == len(column):
            return [_signature(column[0])] * len(column)
    return list(map(_signature, column))


def _signature(value: Any) -> Hashable | type[Any]:
    """Return the part of a value that a shape depends on: of a scalar its type."""
    kind = type(value)
    if kind is dict:
        kinds: Any = tuple(map(type, value.values()))
        if _SCALARS.issuperset(kinds):
            return (tuple(value), kinds)
        if not _JSON_TYPES.issuperset(kinds):
            raise NotJsonTypes
        return (tuple(value), *map(_signature, value.values()))
    if kind is list:
        kinds = frozenset(map(type, value))
        if kinds <= _SCALARS:
            return kinds  # type: ignore[no-any-return]
        if not kinds <= _JSON_TYPES:
            raise NotJsonTypes
        return frozenset(map(_signature, value))
    return kind


def walk(data: dict[str, Any], root: str) -> RecordShape:
    """Return the shape of canonical data by examining every value."""
    shape = RecordShape()
    _object(shape, data, root, natural=True)
    return shape


def _object(shape: RecordShape, value: dict[str, Any], name: str, *, natural: bool) -> None:
    for key, item in value.items():
        inner = f"{name}.{key}"
        if not key.strip() or len(key) > 10_000:
            shape.refused = True
        ours = natural and is_plain_key(key) and is_short_name(inner)
        _value(shape, item, inner, natural=ours, listed=False)


def _value(shape: RecordShape, value: Any, name: str, *, natural: bool, listed: bool) -> None:
    kind = type(value)
    if value is None:
        return
    if kind is list:
        for item in value:
            _value(shape, item, name, natural=natural, listed=True)
        return
    if kind is dict:
        shape.objects.add(name)
        if not natural:
            shape.forced.add(name)
        elif listed:
            shape.fields.setdefault(name, set()).add(ValueKind.OBJECTS)
        _object(shape, value, name, natural=natural)
    elif natural:
        shape.fields.setdefault(name, set()).add(_kind(value))
    else:
        shape.forced.add(name)


def _kind(value: Any) -> ValueKind:
    if type(value) is str:
        # Not counted where two units for each character would still be few enough.
        long = len(value) * 2 > LONGEST_TEXT and _units(value) > LONGEST_TEXT
        return ValueKind.LONG_TEXT if long else ValueKind.TEXT
    if type(value) is int and not -_EXACT < value < _EXACT:
        if value in (INT_MAX, INT_MIN):
            return ValueKind.EXTREME
        return ValueKind.WIDE if int(float(value)) == value else ValueKind.BIG
    return _BY_TYPE[type(value)]


def _units(text: str) -> int:
    """Return the length in UTF-16 code units, as Elasticsearch counts it."""
    return len(text.encode("utf-16-le")) // 2


def infer_type(votes: Mapping[ValueKind, int]) -> str:
    """Return the type for a new field, given how many records hold values of each kind."""
    texts = votes.get(ValueKind.TEXT, 0) + votes.get(ValueKind.LONG_TEXT, 0)
    bools = votes.get(ValueKind.BOOL, 0)
    wide = sum(votes.get(kind, 0) for kind in (ValueKind.WIDE, ValueKind.BIG, ValueKind.EXTREME))
    numbers = wide + votes.get(ValueKind.INT, 0) + votes.get(ValueKind.FLOAT, 0)
    if numbers and numbers >= max(texts, bools):
        return "long" if wide and not votes.get(ValueKind.FLOAT, 0) else "double"
    return "boolean" if bools > texts else "keyword"
