"""What a predicate means, as a program (meaning §3): the oracle that every backend is compared with.

Slow and obvious on purpose. It imports nothing from a backend, and no backend but memory (and
SQLite, through its SQL functions) calls it. Text is searched in linear time; `find.stoppable` lets a
thread end long work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, assert_never

from isthmus._path import Path, Root
from isthmus._query.ast import (
    KNN,
    And,
    AnyObject,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    In,
    Leaf,
    Like,
    Not,
    Or,
    Order,
    Ordered,
    Predicate,
    Regex,
    StartsWith,
    TextMatch,
)
from isthmus._query.find import find_text
from isthmus._query.like import compile_like
from isthmus._query.lookup import value_at, value_in, values_at, values_in
from isthmus._query.patterns import compile_regex
from isthmus._record import Record
from isthmus._values import JSON, kind_of, same
from isthmus.errors import UnsupportedError

_FEW: Final = 8
_HASHED: Final = "_hashed"
"""The attribute of an `In` that keeps the hashes of its values."""


def matches(predicate: Predicate, record: Record) -> bool:
    """Return whether the predicate is true of the record; never raises for what is stored."""
    match predicate:
        case And(terms):
            return all(matches(term, record) for term in terms)
        case Or(terms):
            return any(matches(term, record) for term in terms)
        case Not(term):
            return not matches(term, record)
        case leaf:
            return leaf_matches(leaf, record)


def leaf_matches(leaf: Leaf, record: Record) -> bool:
    """Return whether a leaf is true of the record."""
    match leaf:
        case EqualList(path, operand):
            value = value_at(record, path)
            return isinstance(value, list) and same(value, operand)
        case Exists(path):
            return bool(values_at(record, path))
        case TextMatch():
            raise UnsupportedError("match() is evaluated by the store alone", capability="relevance")
        case KNN():
            raise UnsupportedError("nearest() is evaluated by the store alone", capability="vectors")
        case _:
            test = leaf_test(leaf)
            return any(test(value) for value in values_at(record, leaf.path))


def object_matches(predicate: Predicate, value: dict[str, JSON]) -> bool:
    """Return whether the predicate is true of an object inside a record; its paths begin there."""
    match predicate:
        case And(terms):
            return all(object_matches(term, value) for term in terms)
        case Or(terms):
            return any(object_matches(term, value) for term in terms)
        case Not(term):
            return not object_matches(term, value)
        case EqualList(path, operand):
            whole = value_in(value, path.keys)
            return isinstance(whole, list) and same(whole, operand)
        case leaf:
            return any(map(leaf_test(leaf), values_in(value, leaf.path.keys)))


def leaf_test(leaf: Leaf) -> Callable[[JSON], bool]:
    """Return the test that one value found must pass, for a leaf that is existential over values."""
    match leaf:
        case Equal(_, operand):
            return lambda value: same(value, operand)
        case In():
            return _in_test(leaf)
        case Ordered(_, op, operand):
            return lambda value: kind_of(value) == kind_of(operand) and _compare(op, value, operand)
        case Between(_, low, high):
            return lambda value: kind_of(value) == kind_of(low) and low <= value <= high  # type: ignore[operator]
        case Like(_, pattern, folded):
            return _text_test(compile_like(pattern, folded=folded).match)
        case Regex(_, pattern):
            return _text_test(compile_regex(pattern).search)
        case StartsWith(_, prefix):
            return _text_test(lambda text: text.startswith(prefix))
        case EndsWith(_, suffix):
            return _text_test(lambda text: text.endswith(suffix))
        case Contains(_, part):
            return _text_test(lambda text: find_text(text, part, 0, len(text)) >= 0)
        case Exists():
            return lambda _: True
        case AnyObject(_, where):
            return lambda value: isinstance(value, dict) and object_matches(where, value)
        case EqualList() | TextMatch() | KNN():
            raise ValueError("not a test of one value")
        case _:
            assert_never(leaf)


def _in_test(leaf: In) -> Callable[[JSON], bool]:
    """Return the test of `in`: of many values by their hashes, which are made once for all records."""
    operands = leaf.values
    if len(operands) <= _FEW:
        return lambda value: any(same(value, operand) for operand in operands)
    known = leaf.__dict__.get(_HASHED)
    if known is None:
        known = leaf.__dict__[_HASHED] = frozenset((kind_of(operand), operand) for operand in operands)
    return lambda value: not isinstance(value, dict) and (kind_of(value), value) in known


def _text_test(test: Callable[[str], bool]) -> Callable[[JSON], bool]:
    return lambda value: isinstance(value, str) and test(value)


def _compare(op: Order, value: Any, operand: Any) -> bool:
    match op:
        case Order.LT:
            return bool(value < operand)
        case Order.LE:
            return bool(value <= operand)
        case Order.GT:
            return bool(value > operand)
        case Order.GE:
            return bool(value >= operand)
        case _:
            assert_never(op)


def select(record_data: dict[str, Any], paths: Iterable[Path]) -> dict[str, Any]:
    """Return the parts of the data that the paths lead to, in their shape (meaning §4)."""
    wanted = [path.keys for path in paths if path.root is Root.DATA]
    kept = _select(record_data, wanted)
    return kept if isinstance(kept, dict) else {}


def top_level_fields(paths: Iterable[Path]) -> frozenset[str] | None:
    """Return the fields of a selection; None if it leads into one."""
    keys = [path.keys for path in paths if path.root is Root.DATA]
    return frozenset(one[0] for one in keys) if all(len(one) == 1 for one in keys) else None


_NOTHING: Any = object()


def _select(value: Any, wanted: list[tuple[str, ...]]) -> Any:
    """Return the value cut to the wanted key sequences, or `_NOTHING` if none leads into it."""
    if any(not keys for keys in wanted):
        return value
    if isinstance(value, list):
        cut = [kept for item in value if (kept := _select(item, wanted)) is not _NOTHING]
        return cut if cut else _NOTHING
    if isinstance(value, dict):
        result = {}
        for key, item in value.items():
            inner = [keys[1:] for keys in wanted if keys[0] == key]
            if inner and (kept := _select(item, inner)) is not _NOTHING:
                result[key] = kept
        return result if result else _NOTHING
    return _NOTHING
