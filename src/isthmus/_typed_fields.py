"""What lambdas over a model use besides its fields: `f()` and the other helpers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast, overload

from isthmus._arguments import shorten
from isthmus._field_proxy import (
    HOW,
    Column,
    Condition,
    ElementProxy,
    ProxyHolder,
    as_condition,
    is_element,
    one_of_values,
    proxy_of,
)
from isthmus._lambda_calls import condition_on_element
from isthmus._model_operands import check_sortable, holds_numbers, holds_text, kinds_of_types, name_types
from isthmus._query.ast import Function, Predicate
from isthmus._query.changes import FieldChange
from isthmus._query.field import Field, any_object, between, equal, match, nearest
from isthmus._suggest import suggest
from isthmus.errors import QueryError

T = TypeVar("T")
E = TypeVar("E")
L = TypeVar("L")
S = TypeVar("S", bound=str)
N = TypeVar("N", int, float, Decimal)


class TypedField(ProxyHolder, Generic[T]):
    """A field by `f(p.name)`: the operators of `Field` with operands of the field's type."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __eq__(self, other: T | None) -> Condition: ...  # type: ignore[override]
        def __ne__(self, other: T | None) -> Condition: ...  # type: ignore[override]
    else:

        def __eq__(self, other):
            return self._proxy == other

        def __ne__(self, other):
            return self._proxy != other

    def __hash__(self) -> NoReturn:
        raise QueryError(f"f({self._proxy!r}) is no key of a set or a dict: {HOW}")

    def __lt__(self, other: T) -> Condition:
        return self._proxy < other

    def __le__(self, other: T) -> Condition:
        return self._proxy <= other

    def __gt__(self, other: T) -> Condition:
        return self._proxy > other

    def __ge__(self, other: T) -> Condition:
        return self._proxy >= other

    def __bool__(self) -> NoReturn:
        raise QueryError(f"f({self._proxy!r}) has no truth value: {HOW}")

    def __repr__(self) -> str:
        return f"f({self._proxy!r})"

    def eq(self, value: T | None) -> Condition:
        """Return the condition that some value equals this; None means `is_null`."""
        return self._proxy == value

    def ne(self, value: T | None) -> Condition:
        """Return the condition that no value equals this."""
        return self._proxy != value

    def in_(self, values: Collection[T]) -> Condition:
        """Return the condition that some value equals one of these."""
        return one_of_values(self._proxy, values)

    def not_in(self, values: Collection[T]) -> Condition:
        """Return the condition that no value equals one of these."""
        return ~self.in_(values)

    def between(self, low: T, high: T) -> Condition:
        """Return the condition that one value lies within both inclusive bounds."""
        proxy = self._proxy
        return proxy._condition(between(proxy._path, proxy._item(low), proxy._item(high)))

    def not_between(self, low: T, high: T) -> Condition:
        """Return the condition that no value lies within both inclusive bounds."""
        return ~self.between(low, high)

    def exists(self) -> Condition:
        """Return the condition that there is a value; None and the empty list are none."""
        return self._proxy._condition(self._field.exists())

    def is_null(self) -> Condition:
        """Return the condition that there is no value."""
        return ~self.exists()

    def set(self, value: T | None) -> FieldChange:
        """Store a value here, in `modify` and `update_where`."""
        return self._change().set(self._proxy._value(value))

    def unset(self) -> FieldChange:
        """Remove the field."""
        return self._change().unset()

    def inc(
        self: TypedField[int] | TypedField[float] | TypedField[Decimal], amount: float | Decimal
    ) -> FieldChange:
        """Add a number to the one here; from nothing it begins at 0."""
        return self._change().inc(self._proxy._item(amount))

    def max(self, value: T) -> FieldChange:
        """Store a number or text if there is none here, or one that is less."""
        return self._change().max(self._proxy._item(value))

    def min(self, value: T) -> FieldChange:
        """Store a number or text if there is none here, or one that is greater."""
        return self._change().min(self._proxy._item(value))

    def _change(self) -> Field:
        """Return the field of a change; raises `QueryError` for one that is in a list."""
        if is_element(self._proxy) or self._proxy._field.repeated:
            raise QueryError(f"{self._proxy!r} is in a list: change the list itself")
        return self._field

    @property
    def _field(self) -> Field:
        return Field(self._proxy._path)


class TextField(TypedField[S]):
    """A text field by `f(p.name)`: a `TypedField` with the operators of text."""

    __slots__ = ()

    def like(self, pattern: str) -> Condition:
        """Return the condition that a whole text matches: `%` any run, `_` one character, `\\` escapes."""
        return self._proxy._condition(self._text.like(pattern))

    def not_like(self, pattern: str) -> Condition:
        """Return the condition that no text matches."""
        return ~self.like(pattern)

    def ilike(self, pattern: str) -> Condition:
        """`like` with each character folded to one case."""
        return self._proxy._condition(self._text.ilike(pattern))

    def regex(self, pattern: str) -> Condition:
        """Return the condition that `re.search` finds the pattern in some text."""
        return self._proxy._condition(self._text.regex(pattern))

    def starts_with(self, text: str) -> Condition:
        """Return the condition that some text starts with this."""
        return self._proxy._condition(self._text.starts_with(text))

    def ends_with(self, text: str) -> Condition:
        """Return the condition that some text ends with this."""
        return self._proxy._condition(self._text.ends_with(text))

    def contains(self, text: str) -> Condition:
        """Return the condition that some text contains this; `has` is for an element of a list."""
        return self._proxy._condition(self._text.contains(text))

    def match(self, text: str) -> Condition:
        """Return a full-text match, for backends with the capability `relevance`."""
        return self._proxy._condition(match(self._text, text))

    @property
    def _text(self) -> Field:
        """The field of a condition on text; raises `QueryError` for one that a checker sees as another."""
        proxy, field = self._proxy, self._proxy._field
        if field.types is not None:
            if field.listed and not is_element(proxy):
                raise QueryError(f"{proxy!r} is a list: write f(each({proxy!r})).like(...) and the like")
            if not holds_text(field.types):
                raise QueryError(
                    f"{proxy!r}: holds {name_types(field.types)}, not text; "
                    f"field({str(field.path)!r}) has the operators of what is stored"
                )
        return self._field


class ListField(TypedField[L], Generic[L, E]):
    """A list by `f(p.tags)`: a `TypedField` with those of lists; `E` is the type of its elements."""

    __slots__ = ()

    def has(self, item: E) -> Condition:
        """Return the condition that the list has an element that equals this."""
        proxy = self._proxy
        if isinstance(item, list | tuple):
            raise QueryError(f"{proxy!r}: has() takes an element, got a list")
        if item is None:
            raise QueryError(
                f"{proxy!r}: a query does not see None in a list; f({proxy!r}).is_null() is for no element"
            )
        if proxy._field.types is not None and (is_element(proxy) or not proxy._field.listed):
            raise QueryError(
                f"{proxy!r} is no list: write {proxy!r} == {shorten(item)}; contains() is for text"
            )
        return proxy._condition(equal(proxy._path, proxy._item(item)))

    def any(self, where: Callable[[E], bool | Condition | Predicate]) -> Condition:
        """Return the condition that one element, a model, satisfies the whole condition.

        `f(o.lines).any(lambda i: (i.sku == "a") & (i.quantity >= 2))`; conditions on `each(o.lines)`
        may hold for different elements.
        """
        proxy = self._proxy
        return proxy._condition(any_object(proxy._path, condition_on_element(where, proxy)))

    def push(self, *items: E) -> FieldChange:
        """Append elements to the list."""
        return self._change().push(*map(self._proxy._item, items))

    def add(self, *items: E) -> FieldChange:
        """Append each element to the list, unless one is equal to it."""
        return self._change().add(*map(self._proxy._item, items))

    def pull(self, item: E) -> FieldChange:
        """Remove every element that is equal to this from the list."""
        return self._change().pull(self._proxy._item(item))

    def nearest(self: ListField[L, float], vector: Iterable[float], k: int = 10) -> Condition:
        """Hold for one of the `k` nearest to a vector, for backends with the capability `vectors`."""
        proxy, types = self._proxy, self._proxy._field.types
        if types is not None and not (proxy._field.listed and holds_numbers(types)):
            raise QueryError(f"{proxy!r}: nearest() is for a list of numbers, not of {name_types(types)}")
        return proxy._condition(nearest(proxy._path, vector, k))


class AnyField(TextField[Any], ListField[Any, Any]):
    """What `f()` returns: type checkers see the class for the field's type."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            methods = [known for known in dir(type(self)) if not known.startswith("_")]
            raise QueryError(f"f({self._proxy!r}) has no method {name!r}{suggest(name, methods)}")


# The helpers of lambdas


# The overloads overlap for None alone, which is no field.
@overload
def f(value: S | None) -> TextField[S]: ...  # type: ignore[overload-overlap]
@overload
def f(value: list[E] | None) -> ListField[list[E], E]: ...  # type: ignore[overload-overlap]
@overload
def f(value: set[E] | None) -> ListField[set[E], E]: ...  # type: ignore[overload-overlap]
@overload
def f(value: frozenset[E] | None) -> ListField[frozenset[E], E]: ...
@overload
def f(value: T | None) -> TypedField[T]: ...
def f(value: object) -> TypedField[Any]:
    """Return a field with the operators that its type lacks: `f(p.years) >= 3`, `f(p.name).like("A%")`.

    Takes optional fields too, which Python's own operators do not.
    """
    return AnyField(proxy_of(value, "f()"))


def some(value: T | None) -> T:
    """Return an optional nested model, to name a field of it: `f(some(p.home).city)`.

    A condition on such a field does not hold for records without the nested model.
    """
    return cast("T", proxy_of(value, "some()"))


def each(values: Collection[T] | None) -> T:
    """Return the elements of a list, to name a field of them: `each(p.items).price >= 10`.

    A condition holds if it does for some element; two conditions may hold for different ones. The
    complements `!=`, `not_in` and `is_null` hold if their positive form does for none.
    """
    proxy = proxy_of(values, "each()")
    types = proxy._field.types
    if types is not None and not proxy._field.listed:
        raise QueryError(f"each({proxy!r}): the field is not a list")
    return cast("T", proxy._copy(ElementProxy, f"each({proxy._expression})", maybe=False))


def maybe(value: T) -> T | None:
    """Return a field that some records lack, for a row of `select` or `group`: `maybe(each(p.tags))`."""
    proxy = proxy_of(value, "maybe()")
    return cast("T", proxy._copy(type(proxy), proxy._expression, maybe=True))


def not_(condition: Condition | Predicate | bool) -> Condition:
    """Return the exact complement of a condition."""
    return ~as_condition(condition)


def like(value: str | None, pattern: str) -> Condition:
    """Return `f(value).like(pattern)`."""
    return f(value).like(pattern)


def one_of(value: T | None, values: Collection[T]) -> Condition:
    """Return `f(value).in_(values)`."""
    return one_of_values(proxy_of(value, "one_of()"), values)


def _column(function: Function, value: object) -> Column:
    """Return a measure of a field; raises `QueryError` where it has no value in the field's type."""
    use = f"{function.value}()"
    proxy = proxy_of(value, use)
    field = proxy._field
    if function is Function.COUNT or field.types is None:
        return Column(function, field)
    if field.listed and not is_element(proxy):
        raise QueryError(f"{use}: {proxy!r} is a list: write each({proxy!r})")
    if function in (Function.SUM, Function.AVG):
        if not holds_numbers(field.types):
            raise QueryError(f"{use}: {proxy!r} holds {name_types(field.types)}, not numbers")
    else:
        check_sortable(field.path, field.types)
        if kinds_of_types(field.types) == {"object"}:
            raise QueryError(f"{use}: {proxy!r} is an object, which has no order: name a field of it")
    return Column(function, field)


def count(value: object = None) -> int:
    """Return the number of records of a group, or of the values of a field, as a column of `group`."""
    column = Column(Function.COUNT, None) if value is None else _column(Function.COUNT, value)
    return cast("int", column)


def sum_(value: N | None) -> N | None:
    """Return the sum of a field as a column of `group`; None of no values."""
    return cast("N", _column(Function.SUM, value))


def avg(value: float | Decimal | None) -> float | None:
    """Return the average of a field as a column of `group`; None of no values."""
    return cast("float", _column(Function.AVG, value))


def min_(value: T | None) -> T | None:
    """Return the least value of a field as a column of `group`; None of no values."""
    return cast("T", _column(Function.MIN, value))


def max_(value: T | None) -> T | None:
    """Return the greatest value of a field as a column of `group`; None of no values."""
    return cast("T", _column(Function.MAX, value))
