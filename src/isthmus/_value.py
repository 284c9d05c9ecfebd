"""Immutable value classes that cost nothing to import.

A frozen dataclass compiles its methods when its module is imported, about half a millisecond a
class; the query tree and the operations alone would be half of the import budget. `Value` reads
the annotations once and shares its methods. Type checkers see a frozen dataclass.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, TypeVar, dataclass_transform


@dataclass_transform(frozen_default=True)
class Value:
    """Annotated fields in order, positional or by keyword; class attributes are defaults."""

    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        annotations = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 - `inspect` costs 10 ms
        own = [name for name, kind in annotations.items() if not str(kind).startswith("ClassVar")]
        cls._fields = (*cls._fields, *own)
        cls.__match_args__ = cls._fields  # type: ignore[misc]  # what match statements read
        cls._defaults = {
            **cls._defaults,
            **{name: cls.__dict__[name] for name in own if name in cls.__dict__},
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        own, fields = self.__dict__, self._fields
        if len(args) == len(fields) and not kwargs:  # as the operations of single records are made
            own.update(zip(fields, args, strict=False))
            return
        own.update(self._defaults)
        own.update(zip(fields, args, strict=False))
        if not kwargs and len(own) == len(fields) > len(args):  # as most requests and pages are made
            return
        own.update(kwargs)
        if len(own) != len(fields) or len(args) > len(fields) or kwargs.keys() & fields[: len(args)]:
            given = [*fields[: len(args)], *kwargs]
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(fields)}; given were {given}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def _parts(self) -> tuple[Any, ...]:
        own = self.__dict__
        return tuple(own[name] for name in self._fields)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash((type(self), self._parts()))

    def __repr__(self) -> str:
        # No frames of a generator: the deepest query that is accepted has to fit Python's stack.
        inner = ", ".join(map("{}={!r}".format, self._fields, self._parts()))
        return f"{type(self).__name__}({inner})"

    def __replace__(self, **mutations: Any) -> Self:
        """Return a copy with other values; what `replace` calls."""
        own = self.__dict__
        values = [mutations.pop(name) if name in mutations else own[name] for name in self._fields]
        return type(self)(*values, **mutations)  # of those that are left it raises an error

    def __getstate__(self) -> dict[str, Any]:
        # Without what was derived from the fields and cached in the object.
        own = self.__dict__
        return {name: own[name] for name in self._fields}


V = TypeVar("V", bound=Value)


def replace(value: V, **mutations: Any) -> V:
    """Return a copy of a value with some fields changed."""
    return value.__replace__(**mutations)
