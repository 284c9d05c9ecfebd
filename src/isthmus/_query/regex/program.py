"""A pattern as a program of states: the tree with its repeats written out (Thompson's construction)."""

from __future__ import annotations

from dataclasses import dataclass, field

from isthmus._query.regex.charset import Ranges
from isthmus._query.regex.tree import Anchor, Branches, Characters, Node, Place, Repeat, Sequence


@dataclass(slots=True)
class Program:
    """States by number.

    A state takes one character of a set and goes on to `follows`, or holds at a place and goes on, or
    goes on to each of several without taking anything; the state `MATCH` has found something.
    """

    sets: list[Ranges] = field(default_factory=list)
    """The distinct sets, by number."""
    takes: list[int] = field(default_factory=list)
    """By state, the number of its set; -1 if it takes nothing."""
    places: list[Place | None] = field(default_factory=list)
    follows: list[tuple[int, ...]] = field(default_factory=list)
    start: int = 0

    MATCH = 0


def build(tree: Node) -> Program:
    """Return the program of a tree."""
    return _Builder().build(tree)


class _Builder:
    """Builds from the end: a node is given the state that follows it and returns the one to begin at."""

    def __init__(self) -> None:
        self._program = Program()
        self._numbers: dict[Ranges, int] = {}

    def build(self, tree: Node) -> Program:
        self._state(follows=())
        self._program.start = self._node(tree, Program.MATCH)
        return self._program

    def _state(self, takes: int = -1, anchor: Place | None = None, follows: tuple[int, ...] = ()) -> int:
        program = self._program
        program.takes.append(takes)
        program.places.append(anchor)
        program.follows.append(follows)
        return len(program.takes) - 1

    def _node(self, node: Node, then: int) -> int:
        match node:
            case Characters(ranges):
                return self._state(takes=self._set(ranges), follows=(then,))
            case Anchor(anchor):
                return self._state(anchor=anchor, follows=(then,))
            case Sequence(items):
                for item in reversed(items):
                    then = self._node(item, then)
                return then
            case Branches(items):
                return self._state(follows=tuple(self._node(item, then) for item in items))
            case Repeat():
                return self._repeat(node, then)

    def _set(self, ranges: Ranges) -> int:
        number = self._numbers.setdefault(ranges, len(self._numbers))
        if number == len(self._program.sets):
            self._program.sets.append(ranges)
        return number

    def _repeat(self, node: Repeat, then: int) -> int:
        low = node.low
        if node.high is None:
            loop = self._state()
            first = self._node(node.item, loop)
            self._program.follows[loop] = (first, then)
            then = first if low else loop
            low = max(low - 1, 0)
        else:
            end = then
            for _ in range(node.high - low):
                then = self._state(follows=(self._node(node.item, then), end))
        for _ in range(low):
            then = self._node(node.item, then)
        return then
