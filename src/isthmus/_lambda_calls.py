"""Calls lambdas over a model with its fields, and refuses what Python decides before a query sees it."""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

from isthmus._field_proxy import HOW, FieldProxy, ProxyHolder, as_condition
from isthmus._model_paths import ModelPaths
from isthmus._query.ast import Predicate
from isthmus.errors import QueryError

T = TypeVar("T")


def call_with_model(function: Callable[[Any], Any], paths: ModelPaths, finish: Callable[[Any], T]) -> T:
    """Return what `finish` makes of what a lambda over the model builds.

    Any misuse of a field is a `QueryError`, which names the field as the lambda does.
    """
    if not callable(function):
        raise QueryError(f"expected a lambda such as lambda p: p.name, got {type(function).__name__}")
    try:
        return finish(_call(function, FieldProxy(paths, None, _parameter_of(function))))
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, QueryError):
            raise
        raise QueryError(
            f"a query over {paths.model.__name__} cannot express this ({error}): {HOW}"
        ) from error


def condition_on_element(where: Callable[[Any], object], proxy: FieldProxy) -> Predicate:
    """Return the condition of `any` on an element of a list, with paths that begin at the element."""
    field = proxy._field
    own = proxy._own
    if own is None or (field.types is not None and not field.listed):
        raise QueryError(f"{proxy!r}: any() is for a list of models")
    inside = len(own.keys)
    made = as_condition(_call(where, FieldProxy(proxy._paths, own, _parameter_of(where), inside=inside)))
    if made.inside is not None and made.inside != inside:
        raise QueryError("any() takes conditions on the element alone; join those on the record outside it")
    return made.predicate


def _call(function: Callable[[Any], Any], proxy: FieldProxy) -> Any:
    """Return what a lambda makes of a proxy; raises `QueryError` if it compares a field by `is`.

    Python decides `is` without asking the field: `p.nick is None or p.nick == "x"` leaves a query for
    the second part alone. What tells of it is a field that was named and then not used.
    """
    made = function(proxy)
    if proxy._named and _uses_is(_code_of(function)):
        returned = made if isinstance(made, tuple) else (made,)
        for named in proxy._named:
            if not named._used and not any(part is named for part in returned):
                raise QueryError(
                    f"{named!r} is compared by `is`, which Python decides: write {named!r} == ... "
                    f"for a value, f({named!r}).is_null() for None, f({named!r}).exists() for the opposite"
                )
    return made


@functools.lru_cache(maxsize=1_000)
def _uses_is(code: CodeType | None) -> bool:
    """Return whether the code compares by `is`; Python 3.11 has jumps of their own for None."""
    return code is not None and any(
        step.opname == "IS_OP" or step.opname.endswith("_NONE") for step in dis.get_instructions(code)
    )


def _code_of(function: Any) -> CodeType | None:
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _parameter_of(function: Callable[[Any], Any]) -> str:
    code = getattr(function, "__code__", None)
    return code.co_varnames[0] if code is not None and code.co_varnames else "p"


def is_field(made: object) -> bool:
    """Return whether a lambda made a field of the model."""
    return isinstance(made, FieldProxy | ProxyHolder)
