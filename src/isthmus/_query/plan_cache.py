"""Compiled statements by the shape of their predicate; a call binds its operands.

A compiler knows nothing of it. The second time that a shape is seen, its predicate is compiled once more
with stand-ins in place of the operands; where these show up in the statement, the operands go. The
result is kept only if binding gives, for several sets of operands of each kind, the very statement that
compiling them gives; else queries of the shape are compiled each time. A cache belongs to what else a
statement depends on, such as a table with its indexes and columns, and goes with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import orjson

from isthmus._query.ast import Predicate
from isthmus._query.shape import Operand, Shaped, shape_of, with_operands

Statement: TypeAlias = "tuple[str, Sequence[Any]]"
Compile: TypeAlias = Callable[[Predicate], Statement]
_Bind: TypeAlias = Callable[[list[Operand]], Any]

_MAX_KEPT = 1_000
_MAX_ARGUMENTS = 200
# Unlike any limit or other number in a statement, since a compiler may bind equal values once.
_PROBES: dict[type, tuple[Any, ...]] = {
    str: ("x", 'a"b\\c\n', "%_*?[]^$1", "\U0010ffff\ue000", "70007", "null", "é" * 99),
    int: (70_007, -70_009, 2**31 + 11, -(2**31) - 13, 2**53 - 17, -(2**53) + 19, 70_021),
    float: (0.5, -0.0625, 70_007.25, -1e14 - 0.25, 0.0001220703125, 123456.789, -7.1),
}
_NO_RECIPE: Any = object()


class _Template:
    """A statement with a function for each argument that an operand decides."""

    __slots__ = ("_arguments", "_binds", "text")

    def __init__(self, text: str, arguments: Sequence[Any], binds: list[tuple[int, _Bind]]) -> None:
        self.text = text
        self._arguments = list(arguments)
        self._binds = binds

    def bind(self, operands: list[Operand]) -> Statement:
        """Return the statement for some operands."""
        arguments = self._arguments.copy()
        for index, bind in self._binds:
            arguments[index] = bind(operands)
        return self.text, arguments


class PlanCache:
    """The statements of one table."""

    __slots__ = ("_seen", "_templates", "hits")

    def __init__(self) -> None:
        self._templates: dict[Hashable, _Template | None] = {}
        self._seen: set[Hashable] = set()
        self.hits = 0
        """The number of statements that were bound and not compiled."""

    def statement(self, form: Hashable, where: Predicate, compile: Compile) -> Statement:
        """Return the statement of a predicate; `form` is whatever else `compile` depends on."""
        shaped = shape_of(where)
        if shaped is None:
            return compile(where)
        key = (shaped.shape, form)
        template = self._templates.get(key)
        if template is not None:
            self.hits += 1
            return template.bind(shaped.operands)
        if key in self._templates:
            return compile(where)
        if key not in self._seen:
            # Most shapes with a pattern in them are seen once.
            if len(self._seen) >= _MAX_KEPT:
                self._seen.clear()
            self._seen.add(key)
            return compile(where)
        if len(self._templates) >= _MAX_KEPT:
            del self._templates[next(iter(self._templates))]
        self._templates[key] = _learn(where, shaped, compile)
        return compile(where)


def _learn(where: Predicate, shaped: Shaped, compile: Compile) -> _Template | None:
    """Return the template of a shape; None if its statements differ in more than the operands."""
    kinds = shaped.shape.kinds
    stand_ins = [_stand_in(kind, index) for index, kind in enumerate(kinds)]
    text, arguments = compile(with_operands(where, iter(stand_ins)))
    if len(arguments) > _MAX_ARGUMENTS:
        return None
    finder = _Finder(stand_ins)
    binds = [
        (index, bind)
        for index, argument in enumerate(arguments)
        if (bind := finder.find(argument)) is not _NO_RECIPE
    ]
    template = _Template(text, arguments, binds)
    rounds = len(next(iter(_PROBES.values()))) if kinds else 0
    for turn in range(rounds):
        probes = [_probe(kind, index, turn) for index, kind in enumerate(kinds)]
        expected = compile(with_operands(where, iter(probes)))
        if not _same(expected, template.bind(probes)):
            return None
    return template


def _stand_in(kind: type, index: int) -> Operand:
    if kind is str:
        return f"stand-in-{index}-5d1f0c7be3a94"
    return 4_815_162_342_000_001 + 7 * index if kind is int else 48_151_623.0078125 + 64 * index


def _probe(kind: type, index: int, turn: int) -> Operand:
    """Return an operand for a place; no two places have equal ones in a turn."""
    probes = _PROBES[kind]
    value = probes[(index + turn) % len(probes)]
    lap = index // len(probes)
    if not lap:
        return value  # type: ignore[no-any-return]
    return f"{lap}{value}"[:100] if kind is str else value - 32 * lap if value > 0 else value + 32 * lap


def _same(one: Statement, other: Statement) -> bool:
    """Return whether two statements are the same, the types of their arguments included."""
    return one[0] == other[0] and repr(list(one[1])) == repr(list(other[1]))


def _json(value: Operand) -> str:
    return orjson.dumps(value).decode()


class _Finder:
    """Finds stand-ins in the arguments of a statement."""

    def __init__(self, stand_ins: Sequence[Operand]) -> None:
        self._as_is = {(type(value), value): index for index, value in enumerate(stand_ins)}
        texts = [_json(value) for value in stand_ins]
        self._as_json = {text: index for index, text in enumerate(texts)}
        self._numbers = {
            Decimal(text): index for index, text in enumerate(texts) if not isinstance(stand_ins[index], str)
        }
        self._pattern = re.compile("|".join(map(re.escape, texts))) if texts else None

    def find(self, argument: Any) -> Any:
        """Return the function from operands to an argument; `_NO_RECIPE` for a constant."""
        match argument:
            case list():
                return self._find_in_list(argument)
            case Decimal():
                return self._number(self._numbers.get(argument))
            case str() | int() | float():
                index = self._as_is.get((type(argument), argument))
                if index is not None:
                    return lambda operands: operands[index]
                return self._find_in_json(argument) if isinstance(argument, str) else _NO_RECIPE
            case _:
                return _NO_RECIPE

    def _find_in_list(self, argument: list[Any]) -> Any:
        binds = [self.find(item) for item in argument]
        if all(bind is _NO_RECIPE for bind in binds):
            return _NO_RECIPE

        def bind_list(operands: list[Operand]) -> list[Any]:
            return [
                item if bind is _NO_RECIPE else bind(operands)
                for item, bind in zip(argument, binds, strict=True)
            ]

        return bind_list

    def _number(self, index: int | None) -> Any:
        if index is None:
            return _NO_RECIPE
        return lambda operands: Decimal(_json(operands[index]))

    def _find_in_json(self, argument: str) -> Any:
        """Return the function for JSON text in which stand-ins are values."""
        if self._pattern is None:
            return _NO_RECIPE
        found = [self._as_json[text] for text in self._pattern.findall(argument)]
        pieces = self._pattern.split(argument)
        if not found:
            return _NO_RECIPE
        if len(found) == 1:
            [index], [before, after] = found, pieces
            return lambda operands: f"{before}{_json(operands[index])}{after}"

        def bind_json(operands: list[Operand]) -> str:
            parts = [pieces[0]]
            for index, piece in zip(found, pieces[1:], strict=True):
                parts += (_json(operands[index]), piece)
            return "".join(parts)

        return bind_json
