"""Which fields a record has and of which types, remembered by its shape.

Most records of a collection have the same keys with values of the same types, so what follows
from those is computed once for each shape. Only three things depend on values: text that is too
long to be indexed, integers that are no doubles, and -0.0, which the encoder has changed already.
Two byte tests on the encoded record tell when a look at the values is needed.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

from isthmus._values import _DIGITS, INT_MAX, INT_MIN
from isthmus.backends.elasticsearch.layout import EVERYWHERE, LONGEST_TEXT, mark, marks, plain, short

_MANY = 2_000
_KEPT_SHAPES = 5_000
_MOST_ODD = 200
_EXACT = 2**53


class Kind(enum.Enum):
    """What a value found at a field is, as far as an index minds."""

    TEXT = "text"
    LONG_TEXT = "text that is too long to be indexed"
    BOOL = "bool"
    FLOAT = "float"
    INT = "an integer below 2^53"
    WIDE = "a larger integer that is a double"
    BIG = "an integer that is no double"
    EXTREME = "2^63-1 or -2^63, which stand for 'missing' in a long field's order"
    OBJECTS = "a list that holds an object"


# Which kinds a field of a type answers for exactly.
_FITS: Mapping[str, frozenset[Kind]] = {
    "keyword": frozenset({Kind.TEXT, Kind.OBJECTS}),
    "double": frozenset({Kind.FLOAT, Kind.INT, Kind.WIDE, Kind.OBJECTS}),
    "long": frozenset({Kind.INT, Kind.WIDE, Kind.BIG, Kind.OBJECTS}),
    "boolean": frozenset({Kind.BOOL, Kind.OBJECTS}),
}
_NOTHING: frozenset[Kind] = frozenset()
_BY_TYPE: dict[type, Kind] = {str: Kind.TEXT, bool: Kind.BOOL, int: Kind.INT, float: Kind.FLOAT}
_JSON_TYPES = frozenset({str, bool, int, float, type(None), dict, list})
_NESTING = frozenset({dict, list})
_SCALARS = _JSON_TYPES - _NESTING

Types: TypeAlias = Mapping[str, str]


class Shape:
    """The fields of a record, apart from any mapping."""

    __slots__ = ("fields", "forced", "objects", "refused", "suffix")

    def __init__(self) -> None:
        self.fields: dict[str, set[Kind]] = {}
        """What is found at each field that may be mapped."""
        self.forced: set[str] = set()
        """Names that stand for more than one path or cannot be mapped: always odd."""
        self.objects: set[str] = set()
        """Names at which an object is found."""
        self.refused = False
        """Whether the server takes no document with these keys."""
        self.suffix: bytes | None = None
        """The end of its documents, once every field's type is known."""

    def missing(self, types: Types) -> Iterator[tuple[str, set[Kind]]]:
        """Yield the fields that have no type yet."""
        for name, kinds in self.fields.items():
            if name not in types:
                yield name, kinds

    def odd(self, types: Types) -> list[str]:
        """Return the fields at which an index of these types does not answer for this record."""
        odd = set(self.forced)
        shut = []
        for name, kinds in self.fields.items():
            type_ = types.get(name)
            if not kinds <= _FITS.get(type_ or "", _NOTHING):
                odd.add(name)
            if type_ is None and Kind.OBJECTS in kinds:
                shut.append(name + ".")  # nothing below an unmapped list of objects is indexed
        if shut:
            odd.update(name for name in self.fields if name.startswith(tuple(shut)))
        if len(odd) > _MOST_ODD:
            return [EVERYWHERE]
        return sorted(map(mark, odd))

    def ending(self, types: Types) -> bytes:
        """Return the end of a document that names its odd fields and its objects."""
        return marks(self.odd(types), sorted(map(mark, self.objects)))


class Foreign(Exception):
    """The record holds values of other than JSON types; look at its encoded form."""


class _Nest:
    """The shapes of records with the same top-level keys and types, by what is inside."""

    __slots__ = ("keys", "shapes")

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        self.shapes: dict[Hashable, Shape] = {}


class Shapes:
    """The shapes seen in one collection, of its data or of its metadata."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._known: dict[Hashable, Shape | _Nest] = {}
        self._nested = 0

    def forget(self) -> None:
        """Drop everything, as after another mapping was found."""
        self._known.clear()
        self._nested = 0

    def of(self, data: dict[str, Any]) -> Shape:
        """Return the shape of data that needs no look at its values.

        Raises `Foreign` if some value is of another than a JSON type.
        """
        key = (tuple(data), tuple(map(type, data.values())))
        known = self._known.get(key)
        if type(known) is _Nest:
            inside = tuple([_signature(data[name]) for name in known.keys])
            return known.shapes.get(inside) or self._within(data, known, inside)
        return known or self._first(data, key)  # type: ignore[return-value]

    def of_many(self, items: Sequence[dict[str, Any]]) -> list[Shape]:
        """Return the shape of each, as `of` does; at half its price where all have the same keys."""
        first = items[0]
        if set(map(type, items)) != {dict}:
            raise Foreign
        keys, kinds = tuple(first), tuple(map(type, first.values()))
        same = list(map(tuple, items)).count(keys) == len(items)
        same = same and [tuple(map(type, data.values())) for data in items].count(kinds) == len(items)
        known = self._known.get((keys, kinds)) if same else None
        if known is None:
            return list(map(self.of, items))
        if type(known) is Shape:
            return [known] * len(items)
        assert isinstance(known, _Nest)
        columns = [_signatures([data[name] for data in items]) for name in known.keys]
        shapes = []
        for data, inside in zip(items, zip(*columns, strict=True), strict=True):
            shapes.append(known.shapes.get(inside) or self._within(data, known, inside))
        return shapes

    def _first(self, data: dict[str, Any], key: Hashable) -> Shape:
        kinds = set(map(type, data.values()))
        if not kinds <= _JSON_TYPES:
            raise Foreign
        if len(data) > _MANY:
            for value in data.values():
                if type(value) in _NESTING:
                    _signature(value)
            return walk(data, self.root)
        if len(self._known) > _KEPT_SHAPES:
            self.forget()
        if kinds.isdisjoint(_NESTING):
            shape = self._known[key] = walk(data, self.root)
            return shape
        nest = _Nest(tuple(name for name, value in data.items() if type(value) in _NESTING))
        inside = tuple([_signature(data[name]) for name in nest.keys])
        self._known[key] = nest
        return self._within(data, nest, inside)

    def _within(self, data: dict[str, Any], nest: _Nest, inside: Hashable) -> Shape:
        self._nested += 1
        if self._nested > _KEPT_SHAPES:
            self.forget()
        shape = nest.shapes[inside] = walk(data, self.root)
        return shape


def needs_look(encoded: bytes, *, long: bool = True) -> bool:
    """Return whether values may matter: a long text (if that may be), or an integer of sixteen digits."""
    if long and len(encoded) > LONGEST_TEXT:
        return True
    zeros = encoded.translate(_DIGITS)
    # A float's digits follow a point; an integer follows one of these. Text may look like either.
    return _SIXTEEN in zeros and any(start in zeros for start in _WIDE_STARTS)


_EMPTY: frozenset[type] = frozenset()
_SIXTEEN = b"0" * 16
_WIDE_STARTS = tuple(sign + _SIXTEEN for sign in (b":", b",", b"[", b"-"))


def _signatures(column: list[Any]) -> list[Hashable | type[Any]]:
    """Return the signatures of values that are all dicts or all lists; found once for lists of one type."""
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
    """Return what the shape of a dict or list depends on; a scalar's is its type."""
    kind = type(value)
    if kind is dict:
        kinds: Any = tuple(map(type, value.values()))
        if _SCALARS.issuperset(kinds):
            return (tuple(value), kinds)
        if not _JSON_TYPES.issuperset(kinds):
            raise Foreign
        return (tuple(value), *map(_signature, value.values()))
    if kind is list:
        kinds = frozenset(map(type, value))
        if kinds <= _SCALARS:
            return kinds  # type: ignore[no-any-return]
        if not kinds <= _JSON_TYPES:
            raise Foreign
        return frozenset(map(_signature, value))
    return kind


def walk(data: dict[str, Any], root: str) -> Shape:
    """Return the shape of canonical data, found by looking at every value."""
    shape = Shape()
    _object(shape, data, root, natural=True)
    return shape


def _object(shape: Shape, value: dict[str, Any], name: str, *, natural: bool) -> None:
    for key, item in value.items():
        inner = f"{name}.{key}"
        if not key.strip() or len(key) > 10_000:
            shape.refused = True
        ours = natural and plain(key) and short(inner)
        _value(shape, item, inner, natural=ours, listed=False)


def _value(shape: Shape, value: Any, name: str, *, natural: bool, listed: bool) -> None:
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
            shape.fields.setdefault(name, set()).add(Kind.OBJECTS)
        _object(shape, value, name, natural=natural)
    elif natural:
        shape.fields.setdefault(name, set()).add(_kind(value))
    else:
        shape.forced.add(name)


def _kind(value: Any) -> Kind:
    if type(value) is str:
        # No need to count where two units for each character would still be few enough.
        long = len(value) * 2 > LONGEST_TEXT and _units(value) > LONGEST_TEXT
        return Kind.LONG_TEXT if long else Kind.TEXT
    if type(value) is int and not -_EXACT < value < _EXACT:
        if value in (INT_MAX, INT_MIN):
            return Kind.EXTREME
        return Kind.WIDE if int(float(value)) == value else Kind.BIG
    return _BY_TYPE[type(value)]


def _units(text: str) -> int:
    """Return the length in UTF-16, which is what Elasticsearch counts."""
    return len(text.encode("utf-16-le")) // 2


def inferred(votes: Mapping[Kind, int]) -> str:
    """Return the type for a new field from how many records hold which kinds."""
    texts = votes.get(Kind.TEXT, 0) + votes.get(Kind.LONG_TEXT, 0)
    bools = votes.get(Kind.BOOL, 0)
    wide = sum(votes.get(kind, 0) for kind in (Kind.WIDE, Kind.BIG, Kind.EXTREME))
    numbers = wide + votes.get(Kind.INT, 0) + votes.get(Kind.FLOAT, 0)
    if numbers and numbers >= max(texts, bools):
        return "long" if wide and not votes.get(Kind.FLOAT, 0) else "double"
    return "boolean" if bools > texts else "keyword"
