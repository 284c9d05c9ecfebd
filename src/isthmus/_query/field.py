"""Predicates as users write them: `field()`, `match()`, `nearest()`, and operators by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from isthmus._arguments import shorten
from isthmus._conversion import describe_failure, list_items, raise_interrupt
from isthmus._path import Path, Root, parse_path
from isthmus._query.ast import (
    KNN,
    PREDICATES,
    RANKED,
    AnyObject,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    In,
    Like,
    Not,
    Or,
    Order,
    Ordered,
    Predicate,
    Regex,
    StartsWith,
    TextMatch,
    check_size,
    leaves,
)
from isthmus._query.bucket import Bucket, Unit, make_bucket
from isthmus._query.changes import (
    Add,
    FieldChange,
    Inc,
    Max,
    Min,
    Pull,
    Push,
    Set,
    Unset,
    change_of,
)
from isthmus._suggest import suggest as nearest_name
from isthmus._values import canonical_operand, kind_of
from isthmus.errors import InvalidRecordError, QueryError

FieldName: TypeAlias = "str | Sequence[str] | Field | Path"
Condition: TypeAlias = Predicate

MAX_VECTOR = 4_096
MAX_NEAREST = 10_000


class Field:
    """A field in a query: compare it, or call its methods, to get a predicate or a change.

    `field("age") >= 25`, `field("name").like("A%")`, `field(["a.b"]) == 1` for a key with a dot.
    """

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"field({str(self.path)!r})"

    def __eq__(self, other: object) -> Predicate:  # type: ignore[override]
        return equal(self.path, other)

    def __ne__(self, other: object) -> Predicate:  # type: ignore[override]
        return Not(equal(self.path, other))

    __hash__ = None  # type: ignore[assignment]

    def __lt__(self, other: Any) -> Predicate:
        return compare(self.path, Order.LT, other)

    def __le__(self, other: Any) -> Predicate:
        return compare(self.path, Order.LE, other)

    def __gt__(self, other: Any) -> Predicate:
        return compare(self.path, Order.GT, other)

    def __ge__(self, other: Any) -> Predicate:
        return compare(self.path, Order.GE, other)

    def __bool__(self) -> bool:
        raise TypeError("a field has no truth value; use .exists()")

    def in_(self, values: Sequence[Any]) -> Predicate:
        """Return the condition that `=` holds for one of the values."""
        return one_of(self.path, values)

    def not_in(self, values: Sequence[Any]) -> Predicate:
        """Return the condition that `=` holds for none of the values."""
        return Not(one_of(self.path, values))

    def between(self, low: Any, high: Any) -> Predicate:
        """Return the condition that one value lies within both inclusive bounds."""
        return between(self.path, low, high)

    def not_between(self, low: Any, high: Any) -> Predicate:
        """Return the condition that no value lies within both inclusive bounds."""
        return Not(between(self.path, low, high))

    def like(self, pattern: str) -> Predicate:
        """Return the condition that a whole text matches: `%` any run, `_` one character, `\\` escapes."""
        return Like(self.path, _operand_text(self.path, "like", pattern))

    def not_like(self, pattern: str) -> Predicate:
        """Return the condition that no text matches."""
        return Not(self.like(pattern))

    def ilike(self, pattern: str) -> Predicate:
        """Return the condition of `like` with each character folded to one case."""
        return Like(self.path, _operand_text(self.path, "ilike", pattern), fold=True)

    def regex(self, pattern: str) -> Predicate:
        """Return the condition that `re.search` finds the pattern in some text.

        The pattern has at most 10,000 characters, and as many states once its bounded repeats are
        written out. Look-around, back references and the like, which take more than linear time, are
        refused by a handle unless its `Policy` has `backtracking="allow"`.
        """
        return regex(self.path, pattern)

    def starts_with(self, text: str) -> Predicate:
        """Return the condition that some text starts with this."""
        return StartsWith(self.path, _operand_text(self.path, "starts_with", text))

    def ends_with(self, text: str) -> Predicate:
        """Return the condition that some text ends with this."""
        return EndsWith(self.path, _operand_text(self.path, "ends_with", text))

    def contains(self, text: str) -> Predicate:
        """Return the condition that some text contains this; membership of a list is plain `==`."""
        return Contains(self.path, _operand_text(self.path, "contains", text))

    def exists(self) -> Predicate:
        """Return the condition that there is a value; missing, null and `[]` are none."""
        return Exists(self.path)

    def is_null(self) -> Predicate:
        """Return the condition that there is no value, the complement of `exists()`."""
        return Not(Exists(self.path))

    def by(self, size: Unit | int, *, zone: str | None = None) -> Bucket:
        """Return a group key for `aggregate(by=…)`: a period of time, or a range of numbers.

        `field("at").by("day", zone="Europe/Oslo")`: hour, day, week (from Monday), month, quarter or year of
        texts that are a date or an RFC 3339 date-time. The key of an hour is the instant at which it begins,
        of the others the first day as `YYYY-MM-DD` in the zone, UTC by default. A date without a time is
        that day in every zone and is in no hour. `field("price").by(10)`: ranges of that width, whose key
        is the lower bound. Raises `QueryError` for an unknown unit or zone.
        """
        return make_bucket(self.path, size, zone)

    def any(self, where: Predicate) -> Predicate:
        """Return the condition that one object satisfies the whole predicate, whose paths begin at it.

        `field("items").any((field("sku") == "a") & (field("qty") >= 2))`: without `any`, two conditions
        on a list may be satisfied by two elements. It can be nested. A single object at the path counts.
        Raises `QueryError` for `_id` and other record attributes, `match()` and `nearest()` inside.
        """
        return any_object(self.path, where)

    # Changes, for `modify` and `update_where`

    def set(self, value: Any) -> FieldChange:
        """Return the change that stores a value here."""
        return change_of(Set, self.path, value)

    def unset(self) -> FieldChange:
        """Return the change that removes the key."""
        return change_of(Unset, self.path)

    def inc(self, amount: float) -> FieldChange:
        """Return the change that adds a number to the one here, or to 0; sums of ints are exact."""
        return change_of(Inc, self.path, amount)

    def max(self, value: Any) -> FieldChange:
        """Return the change that stores a number or text if there is none here, or one that is less."""
        return change_of(Max, self.path, value)

    def min(self, value: Any) -> FieldChange:
        """Return the change that stores a number or text if there is none here, or one that is greater."""
        return change_of(Min, self.path, value)

    def push(self, *values: Any) -> FieldChange:
        """Return the change that appends values to the list here."""
        return change_of(Push, self.path, *values)

    def pull(self, value: Any) -> FieldChange:
        """Return the change that removes every element of the list here that is deeply equal to the value."""
        return change_of(Pull, self.path, value)

    def add(self, *values: Any) -> FieldChange:
        """Append each value to the list here, unless an element is deeply equal to it."""
        return change_of(Add, self.path, *values)


def field(name: str | Sequence[str]) -> Field:
    """Return a field to build predicates from; `["a.b"]` is one key that has a dot."""
    return Field(as_path(name))


def match(name: FieldName, text: str) -> Predicate:
    """Return a full-text match, for backends with the capability `relevance`."""
    path = as_path(name)
    return TextMatch(path, _operand_text(path, "match", text))


def nearest(name: FieldName, vector: Iterable[float], k: int = 10) -> Predicate:
    """Return the condition to be one of the `k` nearest to a vector, for backends with `vectors`.

    Nearest among the records that the other conditions hold for; by the similarity of the field's
    setting.
    """
    path = as_path(name)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_NEAREST:
        raise QueryError(f"{path} nearest: k is a whole number from 1 to {MAX_NEAREST}, got {shorten(k)}")
    return KNN(path, _vector(path, vector), k)


def _vector(path: Path, given: Any) -> tuple[float, ...]:
    if isinstance(given, str | bytes | dict) or not hasattr(given, "__iter__"):
        raise QueryError(f"{path} nearest: needs a list of numbers, got {type(given).__name__}")
    numbers = []
    for value in list_items(f"{path} nearest", given):
        # The numbers of arrays are no floats, but become some.
        if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
            raise QueryError(f"{path} nearest: a vector is made of numbers, got {type(value).__name__}")
        try:
            numbers.append(float(value))
        except OverflowError:
            numbers.append(math.inf)  # refused below
        except Exception as error:
            raise_interrupt(error)
            raise QueryError(f"{path} nearest: {describe_failure(error)}") from error
    if not 1 <= len(numbers) <= MAX_VECTOR:
        raise QueryError(f"{path} nearest: a vector has 1 to {MAX_VECTOR} numbers, got {len(numbers)}")
    if not all(map(math.isfinite, numbers)):
        raise QueryError(f"{path} nearest: a vector has finite numbers only")
    return tuple(numbers)


def as_path(name: FieldName) -> Path:
    return name.path if isinstance(name, Field) else parse_path(name)


def _operand(path: Path, op: str, value: Any) -> Any:
    try:
        return canonical_operand(value, "value")
    except InvalidRecordError as error:
        raise QueryError(f"{path} {op}: {error}") from error.__cause__


def _operand_text(path: Path, op: str, value: Any) -> str:
    text = _operand(path, op, value)
    if not isinstance(text, str):
        raise QueryError(f"{path} {op}: needs text, got {kind_of(text)}")
    return text


def equal(path: Path, value: Any) -> Predicate:
    """Return `=`: None means is_null, a list compares the whole value."""
    operand = _operand(path, "=", value)
    if operand is None:
        return Not(Exists(path))
    if isinstance(operand, list):
        return EqualList(path, operand)
    return Equal(path, operand)


def compare(path: Path, op: Order, value: Any) -> Predicate:
    """Return an order comparison with a scalar."""
    operand = _operand(path, op.value, value)
    if not isinstance(operand, bool | int | float | str):
        raise QueryError(f"{path} {op.value}: needs a number, text or bool, got {kind_of(operand)}")
    return Ordered(path, op, operand)


def between(path: Path, low: Any, high: Any) -> Predicate:
    """Return an inclusive range with bounds of one type."""
    bounds = [_operand(path, "between", bound) for bound in (low, high)]
    kinds = [kind_of(bound) for bound in bounds]
    if kinds[0] != kinds[1] or kinds[0] not in ("bool", "number", "text"):
        raise QueryError(f"{path} between: needs two numbers, texts or bools, got {kinds[0]} and {kinds[1]}")
    return Between(path, bounds[0], bounds[1])


def one_of(path: Path, values: Any) -> Predicate:
    """Return `in`: `=` holds for one of the values."""
    if isinstance(values, str | bytes | dict) or not hasattr(values, "__iter__"):
        raise QueryError(f"{path} in: needs a list of values, got {type(values).__name__}")
    operands = [_operand(path, "in", value) for value in list_items(f"{path} in", values)]
    scalars = tuple(v for v in operands if isinstance(v, bool | int | float | str))
    others = [equal(path, v) for v in operands if not isinstance(v, bool | int | float | str)]
    if not others:
        return In(path, scalars)
    return Or((In(path, scalars), *others) if scalars else tuple(others))


def regex(path: Path, pattern: Any) -> Predicate:
    """Return a `re.search` test; a pattern that is bad or too large is refused here."""
    # The engine and its tables of characters are loaded by the first regex, not at import.
    from isthmus._query.regex import PatternError, compile_regex

    text = _operand_text(path, "regex", pattern)
    try:
        compile_regex(text)
    except PatternError as error:
        raise QueryError(f"{path} regex: {error}") from None
    return Regex(path, text)


def any_object(path: Path, where: Any) -> Predicate:
    """Return `any`: one object found satisfies the predicate."""
    if not isinstance(where, PREDICATES):
        raise QueryError(
            f"{path} any: needs a predicate such as field('sku') == 'a', got {type(where).__name__}"
        )
    for leaf in leaves(where):
        if isinstance(leaf, RANKED):
            raise QueryError(f"{path} any: match() and nearest() are about records, not about objects in one")
        if leaf.path.root is not Root.DATA:
            raise QueryError(
                f"{path} any: {leaf.path} is of the record; inside, a path begins at the object"
                f" (a key of that name is field([{leaf.path.root.value!r}]))"
            )
    found = AnyObject(path, where)
    check_size(found)
    return found


def _unary(kind: Callable[[Path], Predicate]) -> Callable[[Path, Any], Predicate]:
    def build(path: Path, value: Any) -> Predicate:
        if value is not None:
            raise QueryError(f"{path}: exists, not_exists and is_null take no value")
        return kind(path)

    return build


def _between(path: Path, value: Any) -> Predicate:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise QueryError(f"{path} between: needs a pair [low, high], got {shorten(value)}")
    return between(path, value[0], value[1])


def _not(build: Callable[[Path, Any], Predicate]) -> Callable[[Path, Any], Predicate]:
    return lambda path, value: Not(build(path, value))


OPERATORS: dict[str, Callable[[Path, Any], Predicate]] = {
    "=": equal,
    "!=": _not(equal),
    "<": lambda path, value: compare(path, Order.LT, value),
    "<=": lambda path, value: compare(path, Order.LE, value),
    ">": lambda path, value: compare(path, Order.GT, value),
    ">=": lambda path, value: compare(path, Order.GE, value),
    "in": one_of,
    "not_in": _not(one_of),
    "like": lambda path, value: Field(path).like(value),
    "not_like": lambda path, value: Field(path).not_like(value),
    "ilike": lambda path, value: Field(path).ilike(value),
    "regex": regex,
    "exists": _unary(Exists),
    "not_exists": _unary(lambda path: Not(Exists(path))),
    "is_null": _unary(lambda path: Not(Exists(path))),
    "between": _between,
    "not_between": _not(_between),
    "starts_with": lambda path, value: Field(path).starts_with(value),
    "ends_with": lambda path, value: Field(path).ends_with(value),
    "contains": lambda path, value: Field(path).contains(value),
    "any": any_object,
}
_SPELLINGS = {"==": "=", "<>": "!=", "eq": "=", "ne": "!=", "gte": ">=", "lte": "<=", "gt": ">", "lt": "<"}


def comparison(name: FieldName, op: str, value: Any = None) -> Predicate:
    """Return the predicate for an operator's name; raises `QueryError` with the nearest valid one."""
    build = OPERATORS.get(op) if isinstance(op, str) else None
    if build is None:
        hint = nearest_name(_SPELLINGS.get(op, op), OPERATORS) if isinstance(op, str) else ""
        raise QueryError(f"unknown operator {shorten(op)}{hint}")
    return build(as_path(name), value)
