"""What a Python pattern means, as a tree of sets of characters, sequences, branches and repeats.

Python's own parser reads the pattern, so that what is a pattern is never in question. Flags, classes and
case are resolved here: the tree says which characters, and nothing of how they were written. Backends
that push patterns down to a server translate this tree.
"""

from __future__ import annotations

import enum
import re
import re._constants as sre  # type: ignore[import-not-found]  # typeshed has no stubs for it
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from isthmus._query.regex import charset
from isthmus._query.regex.charset import Ranges

MAX_LENGTH = 10_000
"""The longest pattern, in characters."""
MAX_STATES = 10_000
"""The largest program, in states: characters and branches with all bounded repeats written out."""
MAX_DEPTH = 100
"""The deepest nesting of groups and repeats."""
_MAX_RANGES = 50_000
"""The work of putting together sets of characters, in ranges."""
_RANGES_PER_CHARACTER = 4
"""How many of them take the time of reading one character of a pattern."""

_ASCII = re.ASCII.value
_IGNORECASE = re.IGNORECASE.value
_MULTILINE = re.MULTILINE.value
_DOTALL = re.DOTALL.value


class PatternError(Exception):
    """The pattern is not one of Python's, or its program is too large."""


class NotLinearError(Exception):
    """The pattern has a construct that no linear-time engine takes; the message names it."""


class Place(enum.Enum):
    """A position in the text that an anchor stands for."""

    TEXT_START = r"\A"
    TEXT_END = r"\Z"
    LAST_LINE_END = "$"
    """The end, or before a line break that ends the text."""
    LINE_START = "(?m)^"
    LINE_END = "(?m)$"
    WORD_BOUNDARY = r"\b"
    NO_WORD_BOUNDARY = r"\B"
    ASCII_WORD_BOUNDARY = r"(?a)\b"
    NO_ASCII_WORD_BOUNDARY = r"(?a)\B"


@dataclass(frozen=True, slots=True)
class Characters:
    """One character out of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Anchor:
    """No character; holds at a place."""

    anchor: Place


@dataclass(frozen=True, slots=True)
class Sequence:
    """One node after another; the empty sequence matches the empty text."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Branches:
    """Any one of the nodes."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A node `low` to `high` times; None is without bound. Greed decides how much, never whether."""

    item: Node
    low: int
    high: int | None


Node: TypeAlias = "Characters | Anchor | Sequence | Branches | Repeat"

_NOTHING = Characters(())
_CLASSES: dict[Any, tuple[str, bool]] = {
    sre.CATEGORY_DIGIT: ("digit", False),
    sre.CATEGORY_NOT_DIGIT: ("digit", True),
    sre.CATEGORY_SPACE: ("space", False),
    sre.CATEGORY_NOT_SPACE: ("space", True),
    sre.CATEGORY_WORD: ("word", False),
    sre.CATEGORY_NOT_WORD: ("word", True),
}
_NAMES: dict[Any, str] = {
    sre.ASSERT: "look-around",
    sre.ASSERT_NOT: "look-around",
    sre.GROUPREF: "a back reference",
    sre.GROUPREF_EXISTS: "a conditional",
    sre.ATOMIC_GROUP: "an atomic group",
    sre.POSSESSIVE_REPEAT: "a possessive repeat",
}


def parse(pattern: str) -> tuple[Node, int]:
    """Return the tree of a pattern and its weight, the work of reading it in characters.

    Raises `PatternError` if it is no pattern or too large, `NotLinearError` for look-around and the like.
    """
    if len(pattern) > MAX_LENGTH:
        raise PatternError(f"a pattern has at most {MAX_LENGTH:,} characters, this one has {len(pattern):,}")
    try:
        tree = parser.parse(pattern)
    except RecursionError:
        raise PatternError(_TOO_DEEP) from None
    except (re.error, OverflowError) as error:
        raise PatternError(f"{pattern[:80]!r} is no pattern: {error}") from None
    if (depth := _depth(tree)) > MAX_DEPTH:
        raise PatternError(f"{_TOO_DEEP}, this one is {depth}")
    reader = _Reader()
    try:
        node = reader.sequence(tree, tree.state.flags)
    except NotLinearError:
        _check_look_behinds(pattern, tree)
        raise
    if (states := size(node)) > MAX_STATES:
        raise PatternError(
            f"the program has at most {MAX_STATES:,} states with bounded repeats written out, this one has"
            f" {states:,}; repeat less, or without a bound"
        )
    return node, max(len(pattern), states, reader.ranges // _RANGES_PER_CHARACTER)


def _check_look_behinds(pattern: str, tree: Any) -> None:
    """Raise `PatternError` for a look-behind of no fixed width, the one error that only compiling finds.

    Compiling itself takes seconds for a few thousand sets without case, and a handle refuses the pattern.
    """
    stack = [tree]
    while stack:
        part = stack.pop()
        if isinstance(part, parser.SubPattern):
            part = part.data
        if isinstance(part, list | tuple):
            if len(part) == 2 and part[0] in (sre.ASSERT, sre.ASSERT_NOT):
                direction, inner = part[1]
                low, high = inner.getwidth()
                if direction < 0 and low != high:
                    raise PatternError(
                        f"{pattern[:80]!r} is no pattern: look-behind requires fixed-width pattern"
                    )
            stack.extend(part)


_TOO_DEEP = f"a pattern is nested at most {MAX_DEPTH} deep"


def _depth(tree: Any) -> int:
    """Return how deep subpatterns are nested, without recursion."""
    deepest = 0
    stack = [(tree, 0)]
    while stack:
        part, depth = stack.pop()
        if isinstance(part, parser.SubPattern):
            depth += 1
            deepest = max(deepest, depth)
            part = part.data
        if isinstance(part, list | tuple):
            stack.extend((inner, depth) for inner in part)
    return deepest


def size(node: Node) -> int:
    """Return the number of states of the node's program."""
    match node:
        case Characters() | Anchor():
            return 1
        case Sequence(items):
            return sum(map(size, items))
        case Branches(items):
            return len(items) + sum(map(size, items))
        case Repeat(item, low, high):
            return size(item) * (max(low, 1) if high is None else high) + (1 if high is None else high - low)


class _Reader:
    """Reads one parsed pattern; the same set is put together once."""

    def __init__(self) -> None:
        self._sets: dict[tuple[Any, ...], Characters] = {}
        self.ranges = 0
        """How many ranges of characters were put together so far."""

    def sequence(self, items: Iterable[tuple[Any, Any]], flags: int) -> Node:
        nodes = [self._node(op, argument, flags) for op, argument in items]
        return nodes[0] if len(nodes) == 1 else Sequence(tuple(nodes))

    def _node(self, op: Any, argument: Any, flags: int) -> Node:
        if op is sre.LITERAL or op is sre.NOT_LITERAL:
            return self._set(((sre.LITERAL, argument),), flags, negated=op is sre.NOT_LITERAL)
        if op is sre.ANY:
            return self._set(() if flags & _DOTALL else ((sre.LITERAL, 10),), 0, negated=True)
        if op is sre.IN:
            negated = argument[0][0] is sre.NEGATE
            return self._set(tuple(argument[negated:]), flags, negated=negated)
        if op is sre.BRANCH:
            return Branches(tuple(self.sequence(branch, flags) for branch in argument[1]))
        if op is sre.SUBPATTERN:
            _, added, removed, inner = argument
            return self.sequence(inner, (flags | added) & ~removed)
        if op is sre.MAX_REPEAT or op is sre.MIN_REPEAT:
            low, high, inner = argument
            return Repeat(self.sequence(inner, flags), int(low), None if high is sre.MAXREPEAT else int(high))
        if op is sre.AT:
            return Anchor(_place(argument, flags))
        if op is sre.FAILURE:
            return _NOTHING
        raise NotLinearError(_NAMES.get(op, str(op).lower()))

    def _set(self, members: tuple[Any, ...], flags: int, *, negated: bool) -> Characters:
        key = (members, flags & (_IGNORECASE | _ASCII), negated)
        known = self._sets.get(key)
        if known is None:
            known = self._sets[key] = Characters(self._combine(members, flags, negated))
        return known

    def _combine(self, members: tuple[Any, ...], flags: int, negated: bool) -> Ranges:
        ascii = bool(flags & _ASCII)
        ranges: list[tuple[int, int]] = []
        letters: list[tuple[int, int]] = []
        for op, argument in members:
            if op is sre.CATEGORY:
                name, other = _CLASSES[argument]
                known = charset.character_class(name, ascii=ascii)
                ranges += charset.complement(known) if other else known
            else:
                letters.append((argument, argument) if op is sre.LITERAL else argument)
        written = charset.union(letters)
        if flags & _IGNORECASE:
            self._spend(0 if ascii else charset.count_cased(written))
            written = charset.ignore_case(written, ascii=ascii)
        self._spend(len(ranges) + len(letters))
        whole = charset.union((*ranges, *written)) if ranges else written
        return charset.complement(whole) if negated else whole

    def _spend(self, ranges: int) -> None:
        self.ranges += ranges
        if self.ranges > _MAX_RANGES:
            raise PatternError("the sets of characters are too large together; write fewer or simpler ones")


def _place(argument: Any, flags: int) -> Place:
    ascii = bool(flags & _ASCII)
    if argument is sre.AT_BEGINNING:
        return Place.LINE_START if flags & _MULTILINE else Place.TEXT_START
    if argument is sre.AT_END:
        return Place.LINE_END if flags & _MULTILINE else Place.LAST_LINE_END
    if argument is sre.AT_BEGINNING_STRING:
        return Place.TEXT_START
    if argument is sre.AT_END_STRING:
        return Place.TEXT_END
    if argument is sre.AT_BOUNDARY:
        return Place.ASCII_WORD_BOUNDARY if ascii else Place.WORD_BOUNDARY
    if argument is sre.AT_NON_BOUNDARY:
        return Place.NO_ASCII_WORD_BOUNDARY if ascii else Place.NO_WORD_BOUNDARY
    raise NotLinearError(str(argument).lower())
