"""Aggregates (meaning §7): partial states that stores and the core compute, merge and finish."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, assert_never

from isthmus._path import Path
from isthmus._query.ast import Function, Measure
from isthmus._query.bucket import Bucket, GroupKey, buckets_of, path_of
from isthmus._query.find import check
from isthmus._query.lookup import values_at
from isthmus._query.order import NONE, OBJECT, SortValue, _rank, sort_value, type_rank
from isthmus._record import Record
from isthmus._values import INT_MAX, INT_MIN, Scalar
from isthmus.errors import QueryError

T = TypeVar("T")

# COUNT: int. SUM and AVG: (sum, how many). MIN and MAX: a SortValue. COUNT_DISTINCT: a set of
# SortValues. PERCENTILE: how often each number was found.
State: TypeAlias = Any
# One group's key: a scalar, or None for records without a value, for each `by` path.
Key: TypeAlias = tuple["Scalar | None", ...]


class Groups:
    """Partial states by group; what a store returns for an aggregate, and what parts merge into."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        self._measures = tuple(measures)
        # Keyed with the bracket, since True == 1 and False == 0 as dictionary keys.
        self._states: dict[tuple[SortValue, ...], list[State]] = {}

    def add(self, key: Key, states: Sequence[State]) -> None:
        """Merge one group's states in: a scalar or None for each path, a state for each measure.

        A state is an int for COUNT, a pair of the sum and how many numbers it has for SUM and AVG,
        for MIN and MAX a sort value, (type rank, value) as in `cursor_position`, for COUNT_DISTINCT the
        set of the scalars' sort values, and for PERCENTILE a dict of how often each number was found.
        """
        self._add(tuple((NONE, None) if part is None else type_rank(part) for part in key), states)

    def _add(self, tagged: tuple[SortValue, ...], states: Sequence[State]) -> None:
        mine = self._states.get(tagged)
        if mine is None:
            self._states[tagged] = list(states)
            return
        for index, measure in enumerate(self._measures):
            mine[index] = _merge(measure.function, mine[index], states[index])

    def merge(self, other: Groups) -> None:
        """Take in the groups of other records, by the same measures."""
        for tagged, states in other._states.items():
            self._add(tagged, states)

    def __len__(self) -> int:
        return len(self._states)

    @property
    def width(self) -> int:
        """The number of measures."""
        return len(self._measures)

    def size(self) -> int:
        """Return how many values the groups hold, beyond a constant number for each."""
        held = [i for i, m in enumerate(self._measures) if m.function in _HOLDING]
        if not held:
            return 0
        return sum(len(states[index]) for states in self._states.values() for index in held)

    def add_record(self, record: Record, by: Sequence[GroupKey]) -> None:
        """Count one matching record in."""
        states = []
        for measure in self._measures:
            check()
            states.append(_state(measure, record))
        for key in group_keys(record, by):
            self.add(key, [copy.copy(state) if isinstance(state, set | dict) else state for state in states])

    def rows(self, by: Sequence[GroupKey]) -> list[tuple[Key, list[Any]]]:
        """Return finished values by group, groups in the order of §4 (records without a value last)."""
        if not self._states and not by:
            return [((), [_finish(m, _EMPTY[m.function]) for m in self._measures])]
        ordered = sorted(self._states.items(), key=lambda item: [_group_rank(v) for v in item[0]])
        return [
            (
                tuple(as_integer(value) for _, value in key),
                [_finish(m, state) for m, state in zip(self._measures, states, strict=True)],
            )
            for key, states in ordered
        ]


def _group_rank(value: SortValue) -> tuple[Any, ...]:
    return (OBJECT + 1,) if value[0] == NONE else _rank(value)


_EMPTY: dict[Function, State] = {
    Function.COUNT: 0,
    Function.SUM: (0, 0),
    Function.AVG: (0, 0),
    Function.MIN: (NONE, None),
    Function.MAX: (NONE, None),
    Function.COUNT_DISTINCT: set(),
    Function.PERCENTILE: {},
}
# Their states grow with the values.
_HOLDING = (Function.COUNT_DISTINCT, Function.PERCENTILE)


def holds_values(measures: Iterable[Measure]) -> bool:
    """Return whether a measure needs the values themselves: `count_distinct` and `percentile`."""
    return any(measure.function in _HOLDING for measure in measures)


def paths_read(by: Iterable[GroupKey], measures: Iterable[Measure]) -> list[Path]:
    """Return the different paths of group keys and measures."""
    measured = (measure.path for measure in measures if measure.path is not None)
    return list(dict.fromkeys([*map(path_of, by), *measured]))


def group_keys(record: Record, by: Sequence[GroupKey]) -> list[Key]:
    """Return the groups of a record: each distinct value or bucket of each path, or None without one."""
    keys: list[Key] = [()]
    for key_path in by:
        if isinstance(key_path, Bucket):
            parts: list[Any] = buckets_of(values_at(record, key_path.path), key_path)
        else:
            distinct = {type_rank(v): v for v in values_at(record, key_path) if not isinstance(v, dict)}
            parts = [value for (_, value) in distinct] or [None]
        keys = [(*key, part) for key in keys for part in parts]
    return keys


def _state(measure: Measure, record: Record) -> State:
    if measure.path is None:
        return 1
    values = values_at(record, measure.path)
    match measure.function:
        case Function.COUNT:
            return len(values)
        case Function.SUM | Function.AVG:
            numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
            return (total(numbers), len(numbers))
        case Function.MIN:
            return sort_value(values, largest=False)
        case Function.MAX:
            return sort_value(values, largest=True)
        case Function.COUNT_DISTINCT:
            return {type_rank(value) for value in values if not isinstance(value, dict)}
        case Function.PERCENTILE:
            return Counter(v for v in values if isinstance(v, int | float) and not isinstance(v, bool))
        case _:
            assert_never(measure.function)


def total(numbers: Iterable[int | float]) -> Any:
    """Return the exact sum: an int if all are integers, else a fraction that `_finished` rounds once.

    Floats cancel and overflow on the way to a sum that is fine; only an exact sum is the same in
    whatever order a store adds.
    """
    result: Any = 0
    for number in numbers:
        result = _add(result, number)
    return result


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    from fractions import Fraction  # loads decimal

    try:
        return Fraction(left) + Fraction(right)
    except (OverflowError, ValueError):  # a store's own sum went beyond the floats
        return float(left) + float(right)


def _round(exact: Any, measure: Measure) -> int | float:
    """Return an int as it is, a fraction as the nearest float; an integral one is an int.

    Raises `QueryError` for a sum beyond the floats.
    """
    if isinstance(exact, int):
        return exact
    try:
        rounded = float(exact)
    except OverflowError:
        rounded = math.inf
    if math.isinf(rounded):
        raise QueryError(f"{measure.name}: the sum of {measure.path} is beyond the range of floats")
    return as_integer(rounded)


def _merge(function: Function, left: State, right: State) -> State:
    match function:
        case Function.COUNT:
            return left + right
        case Function.SUM | Function.AVG:
            return (_add(left[0], right[0]), left[1] + right[1])
        case Function.MIN | Function.MAX:
            if left[0] == NONE or right[0] == NONE:
                return right if left[0] == NONE else left
            return (min if function is Function.MIN else max)(left, right, key=_rank)
        case Function.COUNT_DISTINCT:
            left |= right
            return left
        case Function.PERCENTILE:
            for number, count in right.items():
                left[number] = left.get(number, 0) + count
            return left
        case _:
            assert_never(function)


def nearest_rank(counts: Mapping[int | float, int], percent: tuple[int, int]) -> int | float | None:
    """Return the number of which ⌈percent·n/100⌉ of the n are less or equal; None of nothing."""
    numerator, denominator = percent
    rank = -(-numerator * sum(counts.values()) // (100 * denominator))
    for number in sorted(counts):
        rank -= counts[number]
        if rank <= 0:
            return as_integer(number)
    return None


def as_integer(value: T) -> T | int:
    """Return a number as an int if it is a 64-bit integer: equal numbers look alike on every backend."""
    if isinstance(value, float) and value.is_integer() and INT_MIN <= value <= INT_MAX:
        return int(value)
    return value


def _finish(measure: Measure, state: State) -> Any:
    function = measure.function
    match function:
        case Function.COUNT:
            return state
        case Function.SUM:
            return _round(state[0], measure) if state[1] else None
        case Function.AVG:
            return _round(_add(state[0], 0.0) / state[1], measure) if state[1] else None
        case Function.MIN | Function.MAX:
            return {} if state[0] == OBJECT else as_integer(state[1])
        case Function.COUNT_DISTINCT:
            return len(state)
        case Function.PERCENTILE:
            return nearest_rank(state, measure.percent or (0, 1))
        case _:
            assert_never(function)
