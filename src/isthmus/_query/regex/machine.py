"""Runs a program over a text in time linear in the text, whatever the pattern.

All paths through the program are followed at once: a set of states in place of one. The set that
follows on a character is cached, so that a text costs one look-up per character, and each set is
computed once (a deterministic automaton, built as far as texts need it). The cache is bounded; beyond
the bound it is dropped and rebuilt.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Final

from isthmus._query.find import check
from isthmus._query.regex import charset
from isthmus._query.regex.program import Program
from isthmus._query.regex.tree import Place

_KEPT = 10_000
_KEPT_PER_STATE = 10
"""Transitions, and states in the sets, that are kept: some 100 bytes each."""
_FIRST_BLOCK, _BLOCK = 64, 4_096
"""Characters between two looks at whether to go on."""
_WORK = 10_000
"""States, some milliseconds, between two such looks where the sets are large."""

# What is before a position, and what is after it.
_EDGE, _BREAK, _WORD, _ASCII_WORD, _LAST = 1, 2, 4, 8, 16
_USES: dict[Place, int] = {
    Place.TEXT_START: _EDGE,
    Place.TEXT_END: _EDGE,
    Place.LAST_LINE_END: _EDGE | _LAST,
    Place.LINE_START: _EDGE | _BREAK,
    Place.LINE_END: _EDGE | _BREAK,
    Place.WORD_BOUNDARY: _WORD,
    Place.NO_WORD_BOUNDARY: _WORD | _EDGE,
    Place.ASCII_WORD_BOUNDARY: _ASCII_WORD,
    Place.NO_ASCII_WORD_BOUNDARY: _ASCII_WORD | _EDGE,
}


class _Set(dict[str, "_Set"]):
    """A set of states after some text; maps the next character to the set that follows."""

    __slots__ = ("_machine", "after", "before", "states")

    def __init__(self, machine: Machine, states: frozenset[int], before: int) -> None:
        self._machine = machine
        self.states: Final = states
        self.before: Final = before
        self.after: Final[dict[tuple[frozenset[int], int], _Set]] = {}

    def __missing__(self, character: str) -> _Set:
        return self._machine.step(self, character)


class _Found(_Set):
    """Something was found: no further character changes that."""

    def __missing__(self, character: str) -> _Set:
        return self


class Machine:
    """A program made ready to run; safe to be used by several threads."""

    def __init__(self, program: Program) -> None:
        self._program = program
        places = [anchor for anchor in program.places if anchor is not None]
        self._uses = 0
        for anchor in places:
            self._uses |= _USES[anchor]
        self._anchored = program.places[program.start] is Place.TEXT_START
        self._ends_lines = Place.LAST_LINE_END in places
        # Between two of these code points, all characters are in the same sets.
        bounds = {edge for ranges in program.sets for low, high in ranges for edge in (low, high + 1)}
        self._bounds = sorted(bounds)
        self._members: dict[int, frozenset[int]] = {}
        self._found = _Found(self, frozenset(), 0)
        self._sets: dict[tuple[frozenset[int], int], _Set] = {}
        self._kept = self._work = 0
        self._most_kept = _KEPT + _KEPT_PER_STATE * len(program.takes)
        self._start = self._set(frozenset((program.start,)), _EDGE & self._uses)

    def search(self, text: str) -> bool:
        """Return whether the program finds something in the text."""
        last = self._ends_lines and text.endswith("\n")
        end = len(text) - last
        current = self._start
        index, block = 0, _FIRST_BLOCK
        while index < end:
            for character in text[index : min(index + block, end)]:
                current = current[character]
            if not current.states:  # found, or nothing can be found any more
                return current is self._found
            check()
            index, block = index + block, _BLOCK
        if last:
            current = self.step(current, "\n", _LAST)
        return current is self._found or self._closure(current, _EDGE) is None

    def step(self, current: _Set, character: str, flags: int = 0) -> _Set:
        """Return the set that follows on a character; `flags` says that it is a line break at the end."""
        if current is self._found:
            return current
        context = self._context(character)
        key = (self._sets_of(character), context | flags)
        follows = current.after.get(key)
        if follows is None:
            follows = current.after[key] = self._follow(current, *key, before=context)
        if not flags:
            current[character] = follows
            self._keep(1)
        return follows

    def _follow(self, current: _Set, members: frozenset[int], after: int, before: int) -> _Set:
        taking = self._closure(current, after)
        if taking is None:
            return self._found
        self._work += len(taking) + 1
        if self._work > _WORK:
            self._work = 0
            check()
        takes, follows = self._program.takes, self._program.follows
        states = {follows[state][0] for state in taking if takes[state] in members}
        if not self._anchored:
            # A match may begin at any position.
            states.add(self._program.start)
        return self._set(frozenset(states), before)

    def _closure(self, current: _Set, after: int) -> list[int] | None:
        """Return the states that take a character and are reached without one; None if MATCH is reached."""
        takes, places, follows = self._program.takes, self._program.places, self._program.follows
        taking: list[int] = []
        seen = set(current.states)
        stack = list(seen)
        while stack:
            state = stack.pop()
            if takes[state] >= 0:
                taking.append(state)
                continue
            if state == Program.MATCH:
                return None
            anchor = places[state]
            if anchor is None or _anchor_matches(anchor, current.before, after):
                for following in follows[state]:
                    if following not in seen:
                        seen.add(following)
                        stack.append(following)
        return taking

    def _set(self, states: frozenset[int], before: int) -> _Set:
        key = (states, before)
        known = self._sets.get(key)
        if known is None:
            self._keep(len(states))
            known = self._sets[key] = _Set(self, states, before)
        return known

    def _keep(self, count: int) -> None:
        self._kept += count
        if self._kept > self._most_kept:
            forgotten, start = list(self._sets.values()), self._start
            self._sets = {(start.states, start.before): start}
            self._members = {}
            self._kept = count
            # A thread that is at one of them goes on from it: what it lacks is worked out again.
            for known in forgotten:
                known.clear()
                known.after.clear()

    def _context(self, character: str) -> int:
        if not self._uses:
            return 0
        context = _BREAK if character == "\n" else 0
        if self._uses & (_WORD | _ASCII_WORD):
            code = ord(character)
            context |= _WORD * charset.contains(charset.character_class("word", ascii=False), code)
            context |= _ASCII_WORD * charset.contains(charset.character_class("word", ascii=True), code)
        return context & self._uses

    def _sets_of(self, character: str) -> frozenset[int]:
        """Return the numbers of the sets that hold the character."""
        code = ord(character)
        between = bisect.bisect_right(self._bounds, code)
        members = self._members.get(between)
        if members is None:
            sets: Iterable[int] = range(len(self._program.sets))
            members = frozenset(n for n in sets if charset.contains(self._program.sets[n], code))
            self._members[between] = members
        return members


def _anchor_matches(anchor: Place, before: int, after: int) -> bool:
    """Return whether a place is between what is before and what is after."""
    match anchor:
        case Place.TEXT_START:
            return bool(before & _EDGE)
        case Place.TEXT_END:
            return bool(after & _EDGE)
        case Place.LAST_LINE_END:
            return bool(after & (_EDGE | _LAST))
        case Place.LINE_START:
            return bool(before & (_EDGE | _BREAK))
        case Place.LINE_END:
            return bool(after & (_EDGE | _BREAK))
        case Place.WORD_BOUNDARY | Place.ASCII_WORD_BOUNDARY:
            kind = _WORD if anchor is Place.WORD_BOUNDARY else _ASCII_WORD
            return bool((before ^ after) & kind)
        case Place.NO_WORD_BOUNDARY | Place.NO_ASCII_WORD_BOUNDARY:
            kind = _WORD if anchor is Place.NO_WORD_BOUNDARY else _ASCII_WORD
            # Not in the empty text: so it is documented up to Python 3.13.
            return not (before ^ after) & kind and not before & after & _EDGE
