"""Regular expressions: Python's `re.search`, in time linear in the text (meaning §3).

`compile_regex` answers whether a pattern finds something in a text. It is our own engine, so that
acceptance and answers are the same on every machine, and needs no compiled dependency.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from isthmus._query.find import find_text
from isthmus._query.regex.machine import Machine
from isthmus._query.regex.program import build
from isthmus._query.regex.tree import (
    MAX_LENGTH,
    MAX_STATES,
    Characters,
    Node,
    NotLinearError,
    PatternError,
    Sequence,
    parse,
    size,
)

__all__ = [
    "MAX_LENGTH",
    "MAX_STATES",
    "NotLinearError",
    "Pattern",
    "PatternError",
    "compile_regex",
]


class Pattern:
    """A pattern that runs in linear time; made ready at its first search."""

    nonlinear_part: str | None = None

    def __init__(self, tree: Node, weight: int) -> None:
        self.tree = tree
        self.size = size(tree)
        self.weight = weight
        self._literal = _find_required_text(tree)
        self._machine: Machine | None = None

    def search(self, text: str) -> bool:
        """Return whether the pattern is found in the text."""
        if self._literal and find_text(text, self._literal, 0, len(text)) < 0:
            return False
        machine = self._machine
        if machine is None:
            machine = self._machine = Machine(build(self.tree))
            _machines.add(self)
        return machine.search(text)

    def forget(self) -> None:
        """Give up what searches have made; the next one makes it again."""
        self._machine = None


class BacktrackingPattern:
    """A pattern for which there is only Python's own engine, which may take exponential time."""

    def __init__(self, pattern: str, part: str) -> None:
        self._pattern = pattern
        self.nonlinear_part: str | None = part
        self.size = self.weight = len(pattern)
        self._search: Callable[[str], re.Match[str] | None] | None = None

    def search(self, text: str) -> bool:
        """Return whether the pattern is found in the text; cannot be stopped."""
        if self._search is None:
            # Not when the query is built: compiling alone may take seconds, and most handles refuse it.
            self._search = re.compile(self._pattern).search
        return self._search(text) is not None


def _find_required_text(tree: Node) -> str:
    """Return the longest text that every match holds."""
    best = run = ""
    for item in tree.items if isinstance(tree, Sequence) else (tree,):
        one = isinstance(item, Characters) and len(item.ranges) == 1 and item.ranges[0]
        run = run + chr(one[0]) if one and one[0] == one[1] else ""
        best = max(best, run, key=len)
    return best


class _Patterns:
    """Patterns that were read, the least recently used given up, bounded by the sum of their weights.

    Those of one query fit, so that its plan and its evaluation read none again.
    """

    _MOST = 500_000
    _EACH, _PER_WEIGHT = 100, 4

    def __init__(self) -> None:
        self._known: OrderedDict[str, Pattern | BacktrackingPattern] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def get(self, pattern: str) -> Pattern | BacktrackingPattern:
        with self._lock:
            known = self._known.get(pattern)
            if known is not None:
                self._known.move_to_end(pattern)
                return known
        try:
            made: Pattern | BacktrackingPattern = Pattern(*parse(pattern))
        except NotLinearError as error:
            made = BacktrackingPattern(pattern, str(error))
        with self._lock:
            if pattern not in self._known:
                self._known[pattern] = made
                self._total += self._cost(made)
            while self._total > self._MOST and len(self._known) > 1:
                _, given_up = self._known.popitem(last=False)
                self._total -= self._cost(given_up)
        return made

    def _cost(self, pattern: Pattern | BacktrackingPattern) -> int:
        return self._EACH + self._PER_WEIGHT * pattern.weight


class _Machines:
    """Patterns with a machine, which takes up to a megabyte; the first made are given up first."""

    _MOST = 100_000
    _EACH = 500

    def __init__(self) -> None:
        self._made: deque[Pattern] = deque()
        self._total = 0
        self._lock = threading.Lock()

    def add(self, pattern: Pattern) -> None:
        with self._lock:
            self._made.append(pattern)
            self._total += pattern.size + self._EACH
            while self._total > self._MOST and len(self._made) > 1:
                given_up = self._made.popleft()
                given_up.forget()
                self._total -= given_up.size + self._EACH


_machines = _Machines()
_patterns = _Patterns()


def compile_regex(pattern: str) -> Pattern | BacktrackingPattern:
    """Return the compiled pattern; raises `PatternError` for one that is bad or too large."""
    return _patterns.get(pattern)
