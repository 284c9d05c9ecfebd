"""Fields of a model in the lambdas of typed queries: `lambda p: (p.age >= 25) & (p.name == "Ann")`.

To a type checker `p` is the model itself. At run time it is a `FieldProxy`, whose comparisons build a
`Condition`. What Python or a checker lets through but a query cannot express (`and`, `not`, `in`,
chained comparisons, methods of a value) raises `QueryError` when the lambda is called, which is when
the query is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

from isthmus._arguments import shorten
from isthmus._conversion import list_items
from isthmus._model_operands import check_whole, convert_operand, key_as_stored, kinds_of_types, name_types
from isthmus._model_paths import ModelField, ModelPaths
from isthmus._path import Path, Root
from isthmus._query.ast import PREDICATES, And, Equal, Function, Measure, Not, Or, Order, Predicate
from isthmus._query.field import compare, equal, one_of
from isthmus._value import Value
from isthmus.errors import QueryError

T = TypeVar("T")
E = TypeVar("E")
S = TypeVar("S", bound=str)
N = TypeVar("N", int, float, Decimal)

HOW = (
    "`and`, `or`, `not`, `in`, `if` and chained comparisons cannot be part of a query; write "
    "(p.age >= 20) & (p.age <= 30), | for or, not_(...), f(p.name).in_([...])"
)
# Methods of Python's own values that have another name, or none, in a query.
_INSTEAD = {
    "startswith": "f({0}).starts_with(...)",
    "endswith": "f({0}).ends_with(...)",
    "lower": "f({0}).ilike(...)",
    "upper": "f({0}).ilike(...)",
    "casefold": "f({0}).ilike(...)",
    "find": "f({0}).contains(...)",
}


class Condition:
    """A condition of a typed query; combine with `&`, `|`, and negate with `not_()` or `~`."""

    __slots__ = ("inside", "predicate")

    def __init__(self, predicate: Predicate, inside: int | None = None) -> None:
        self.predicate = predicate
        self.inside = inside
        """How many keys lead to the object that the predicate's paths begin at; None: at any."""

    def __and__(self, other: Condition | Predicate | bool) -> Condition:
        right = as_condition(other)
        return Condition(And((self.predicate, right.predicate)), self._join(right))

    def __or__(self, other: Condition | Predicate | bool) -> Condition:
        right = as_condition(other)
        return Condition(Or((self.predicate, right.predicate)), self._join(right))

    def __rand__(self, other: Predicate | bool) -> Condition:
        return as_condition(other) & self

    def __ror__(self, other: Predicate | bool) -> Condition:
        return as_condition(other) | self

    def __invert__(self) -> Condition:
        return Condition(Not(self.predicate), self.inside)

    def _join(self, other: Condition) -> int | None:
        """Return where both begin; raises `QueryError` for conditions on an element and on its record."""
        if self.inside is not None and other.inside is not None and self.inside != other.inside:
            raise QueryError(
                "any() takes conditions on the element alone; join those on the record outside it"
            )
        return other.inside if self.inside is None else self.inside

    def __bool__(self) -> NoReturn:
        raise QueryError(f"a condition has no truth value: {HOW}")

    def __hash__(self) -> NoReturn:
        raise QueryError(f"a condition is no key: {HOW}")

    def __eq__(self, other: object) -> NoReturn:
        raise QueryError(f"a condition is not compared: {HOW}")

    __ne__ = __eq__

    def __repr__(self) -> str:
        return f"Condition({self.predicate!r})"


class Column(Value):
    """A measure in the row of a `group`; type checkers see the value that it computes."""

    function: Function
    field: ModelField | None

    def measure(self, name: str) -> Measure:
        """Return the measure as a column of that name."""
        return Measure(name, self.function, None if self.field is None else self.field.path)


def _refuse(text: str) -> Callable[..., NoReturn]:
    """Return a method that raises `QueryError`; `{0}` in the text is the field."""

    def method(self: FieldProxy, *_: object, **__: object) -> NoReturn:
        raise QueryError(text.format(self._expression))

    return method


class ProxyHolder:
    """The base of what `f()` returns, so that a proxy knows it."""

    __slots__ = ("_proxy",)

    def __init__(self, proxy: FieldProxy) -> None:
        self._proxy = proxy


class FieldProxy:
    """A field of the model, and the model itself, in a lambda.

    It has no public attribute of its own: every name is a field of the model.
    """

    __slots__ = ("_expression", "_inside", "_maybe", "_named", "_own", "_paths", "_used")

    def __init__(
        self,
        paths: ModelPaths,
        own: Path | None,
        expression: str,
        *,
        inside: int = 0,
        maybe: bool = False,
        named: list[FieldProxy] | None = None,
    ) -> None:
        self._paths = paths
        self._own = own
        self._expression = expression
        """The field as the lambda names it, for errors."""
        self._inside = inside
        """How many keys lead to the element of `any()` that the paths of conditions begin at."""
        self._maybe = maybe
        self._named: list[FieldProxy] = [] if named is None else named
        """All fields that the lambda named, for those that it did not use."""
        self._used = False

    @property
    def _field(self) -> ModelField:
        if self._own is None:
            raise QueryError(
                f"a condition needs a field of {self._paths.model.__name__}: {self._expression}.<name>"
            )
        self._used = True
        return self._paths.locate(self._own)

    def _copy(self, kind: type[FieldProxy], expression: str, *, maybe: bool) -> FieldProxy:
        """Return another proxy for the same field."""
        return kind(self._paths, self._own, expression, inside=self._inside, maybe=maybe, named=self._named)

    @property
    def _path(self) -> Path:
        """The path of conditions on the field."""
        path = self._field.path
        if self._own is not None and self._inside and len(self._own.keys) == self._inside:
            raise QueryError(f"{self._expression} is an object of any(): compare a field of it")
        return Path(path.root, path.keys[self._inside :])

    def _condition(self, predicate: Predicate) -> Condition:
        return Condition(predicate, self._inside)

    def __getattr__(self, name: str) -> FieldProxy:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._own is not None and self._is_dict():
            raise QueryError(f"{self._expression} is a dict: its keys are {self._expression}['key']")
        try:
            return self._child(name, f"{self._expression}.{name}")
        except QueryError:
            if self._own is None or name not in _INSTEAD:
                raise
        instead = _INSTEAD[name].format(self._expression)
        raise QueryError(f"{self._expression}.{name} is a method of the value; write {instead}")

    def _is_dict(self) -> bool:
        kinds = [getattr(kind, "__origin__", kind) for kind in self._field.types or (object,)]
        return all(isinstance(kind, type) and issubclass(kind, Mapping | type(None)) for kind in kinds)

    def _child(self, key: str, expression: str) -> FieldProxy:
        if self._own is not None and self._field.listed and not self._is_one():
            raise QueryError(f"{self._expression} is a list: write each({self._expression}).{key}")
        keys = (*(() if self._own is None else self._own.keys), key)
        path = Path(Root.DATA, keys)
        self._paths.locate(path)
        child = FieldProxy(self._paths, path, expression, inside=self._inside, named=self._named)
        self._named.append(child)
        return child

    def _is_one(self) -> bool:
        """Return whether it stands for each element of the list, or for one of them."""
        return bool(self._inside) and self._own is not None and len(self._own.keys) == self._inside

    def __getitem__(self, key: object) -> FieldProxy:
        expression = f"{self._expression}[{shorten(key)}]"
        if self._own is not None and not self._field.listed:
            if isinstance(key, str) and self._field.types is None:
                return self._child(key, expression)
            if self._is_dict():
                return self._child(key_as_stored(self._expression, self._field.types, key), expression)
        raise QueryError(f"{expression}: only dicts have keys here; of a list write each({self._expression})")

    def _value(self, operand: object) -> Any:
        """Return an operand in stored form; raises `QueryError` if the field never holds its type."""
        if isinstance(operand, FieldProxy | ProxyHolder):
            raise QueryError(f"{self._expression} is compared with a value, not with another field")
        field = self._field
        if isinstance(operand, list | tuple | set | frozenset):
            self._check_list(field)
        elif field.listed and operand is not None:
            raise QueryError(
                f"{self._expression} is a list: write f({self._expression}).has({shorten(operand)})"
            )
        return self._item(operand)

    def _check_list(self, field: ModelField) -> None:
        """Raise `QueryError` for a list as operand where it would equal nothing."""
        if field.types is None or kinds_of_types(field.types) is None:
            return
        if not field.listed:
            raise QueryError(f"{self._expression}: holds {name_types(field.types)}, got a list")
        keys = self._own.keys if self._own is not None else ()
        ways = (self._paths.locate(Path(Root.DATA, keys[:n])) for n in range(self._inside + 1, len(keys)))
        if any(way.listed for way in ways):
            raise QueryError(
                f"{self._expression} lies in a list, and a list is compared as a whole: write "
                "f(p.items).any(lambda i: i.tags == [...])"
            )

    def _item(self, operand: object) -> Any:
        field = self._field
        if field.types is None:
            return operand
        as_text = field.path.root is not Root.DATA
        return convert_operand(self._expression, field.types, operand, as_text=as_text, strict=True)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        value = self._value(other)
        if isinstance(other, list | tuple | set | frozenset | Mapping) and self._field.types is not None:
            check_whole(self._expression, self._field.annotation, other)
        return self._condition(equal(self._path, value))

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return ~(self == other)

    def __lt__(self, other: object) -> Condition:
        return self._condition(compare(self._path, Order.LT, self._value(other)))

    def __le__(self, other: object) -> Condition:
        return self._condition(compare(self._path, Order.LE, self._value(other)))

    def __gt__(self, other: object) -> Condition:
        return self._condition(compare(self._path, Order.GT, self._value(other)))

    def __ge__(self, other: object) -> Condition:
        return self._condition(compare(self._path, Order.GE, self._value(other)))

    def _truth(self) -> Condition:
        """Return the condition that a bool field is true."""
        types = self._field.types
        if types is not None and any(kind not in (bool, type(None)) for kind in types):
            raise QueryError(
                f"{self._expression} is no condition: compare it, as in {self._expression} == ..."
            )
        return self._condition(Equal(self._path, True))

    def __and__(self, other: Condition | Predicate | bool) -> Condition:
        return self._truth() & other

    def __or__(self, other: Condition | Predicate | bool) -> Condition:
        return self._truth() | other

    def __rand__(self, other: Predicate | bool) -> Condition:
        return other & self._truth()

    def __ror__(self, other: Predicate | bool) -> Condition:
        return other | self._truth()

    def __invert__(self) -> Condition:
        return ~self._truth()

    def __hash__(self) -> NoReturn:
        raise QueryError(f"{self._expression} is no key of a set or a dict: {HOW}")

    def __bool__(self) -> NoReturn:
        raise QueryError(f"{self._expression} has no truth value in a query: {HOW}")

    def __repr__(self) -> str:
        return self._expression

    def __contains__(self, item: object) -> NoReturn:
        if self._is_dict():
            how = f"f({self._expression}[{shorten(item)}]).exists()"
        else:
            how = f"f({self._expression}).{'has' if self._field.listed else 'contains'}({shorten(item)})"
        raise QueryError(f"`in {self._expression}` has no meaning in a query: write {how}")

    __iter__ = _refuse("{0} cannot be iterated in a query: write each({0})")
    __len__ = _refuse("{0} has no length in a query")
    __call__ = _refuse("{0} is a field, not a method; methods are those of f(...)")
    __str__ = __format__ = _refuse("{0} is not text in a query: compare it with a value")
    __int__ = __float__ = __index__ = __round__ = __abs__ = __neg__ = __pos__ = _refuse(
        "{0} is no number in a query: compare it with a value"
    )
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse(
        "a query computes nothing from {0}: move the arithmetic to the other side, p.age >= 25 - 5"
    )
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __pow__ = __xor__ = __rxor__ = __add__


class ElementProxy(FieldProxy):
    """The elements of a list: compared one by one."""

    __slots__ = ()

    def _is_one(self) -> bool:
        return True

    def _value(self, operand: object) -> Any:
        if isinstance(operand, FieldProxy | ProxyHolder):
            return super()._value(operand)
        if isinstance(operand, list | tuple | set | frozenset):
            raise QueryError(f"{self!r} is compared with one element, got a list")
        return self._item(operand)


def one_of_values(proxy: FieldProxy, values: object) -> Condition:
    """Return the condition that the field equals one of the values."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise QueryError(f"{proxy!r} in: needs a list of values, got {type(values).__name__}")
    return proxy._condition(
        one_of(proxy._path, [proxy._item(value) for value in list_items(f"{proxy!r} in", values)])
    )


def as_condition(value: object) -> Condition:
    """Return the condition of a lambda's result; raises `QueryError` for anything else."""
    if isinstance(value, Condition):
        return value
    if isinstance(value, FieldProxy):
        return value._truth()
    if isinstance(value, ProxyHolder):
        return value._proxy._truth()
    if isinstance(value, PREDICATES):
        return Condition(value)
    if isinstance(value, bool):
        raise QueryError(
            f"a condition is always {value}: it compares no field of the model, or compares it by `is`; "
            "write f(p.nick).is_null() for p.nick is None, f(p.nick).exists() for the opposite, "
            "and p.state == State.PAID for a value"
        )
    raise QueryError(f"expected a condition such as p.age >= 25, got {type(value).__name__}")


def proxy_of(value: object, use: str) -> FieldProxy:
    """Return the proxy behind a field of the model; raises `QueryError` for anything else."""
    if isinstance(value, ProxyHolder):
        return value._proxy
    if isinstance(value, FieldProxy) and value._own is not None:
        value._used = True
        return value
    raise QueryError(f"{use} takes a field of the model such as p.age, got {type(value).__name__}")


def field_of(proxy: FieldProxy) -> ModelField:
    """Return the field of the model; a proxy has no public attribute, since each names a field."""
    return proxy._field


def is_element(proxy: FieldProxy) -> bool:
    """Return whether the proxy is `each(...)` of a list."""
    return isinstance(proxy, ElementProxy)


def is_lacking(proxy: FieldProxy) -> bool:
    """Return whether records of the model may have no value there that its type does not tell of."""
    field = proxy._field
    return field.optional or field.repeated or is_element(proxy)


def is_maybe(proxy: FieldProxy) -> bool:
    """Return whether the proxy is `maybe(...)` of a field."""
    return proxy._maybe
