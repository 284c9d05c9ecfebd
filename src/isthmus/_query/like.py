"""Matches LIKE patterns (meaning §3) without backtracking."""

from __future__ import annotations

import functools
import re

from isthmus._query.find import check, find_text
from isthmus._query.text import ANY_ONE, ANY_RUN, fold, parse_like
from isthmus._value import Value

_SMALL = 20_000
"""Up to this product of pattern and text, a regex is faster: its steps are at most that many."""
_WINDOW = 1 << 14


class _Segment(Value):
    """What stands between two runs: a number of characters, with literal pieces at fixed offsets."""

    length: int
    pieces: tuple[tuple[int, str], ...]

    def at(self, text: str, start: int) -> bool:
        return all(text.startswith(piece, start + offset) for offset, piece in self.pieces)

    def find(self, text: str, start: int, end: int) -> int:
        """Return where it stands first within a part of the text, -1 if nowhere."""
        last = end - self.length
        if last < start or not self.pieces:
            return start if last >= start else -1
        if len(self.pieces) == 1:
            offset, piece = self.pieces[0]
            index = find_text(text, piece, start + offset, last + offset + len(piece))
            return index - offset if index >= 0 else -1
        window = max(_WINDOW, self.length)
        for first in range(start, last + 1, window):
            count = min(window, last + 1 - first)
            index = self._find_within(text[first : first + count - 1 + self.length], count)
            if index >= 0:
                return first + index
        return -1

    def _find_within(self, text: str, count: int) -> int:
        """Return the first of `count` positions at which it stands, by one bit for each position.

        Comparing position by position would take the product of both lengths in Python's steps; here
        thousands of positions are compared at once.
        """
        size = len(text)
        candidates = ((1 << count) - 1) << (size - count)
        for character, offsets in self._offsets().items():
            occurrences = _bits(text, character)
            for number, offset in enumerate(offsets):
                if number % 64 == 0:
                    check()
                candidates &= occurrences << offset
                if not candidates:
                    return -1
        return size - candidates.bit_length()

    def _offsets(self) -> dict[str, list[int]]:
        """Return at which offsets each character must stand, those that stand at few first."""
        offsets: dict[str, list[int]] = {}
        for offset, piece in self.pieces:
            for index, character in enumerate(piece, offset):
                offsets.setdefault(character, []).append(index)
        return dict(sorted(offsets.items(), key=lambda item: len(item[1])))


def _bits(text: str, character: str) -> int:
    """Return a bit for each position of the text, the first one highest: is this character there?"""
    bits = 0
    for start in range(0, len(text), _WINDOW):
        block = text[start : start + _WINDOW]
        digits = "1".join(["0" * len(between) for between in block.split(character)])
        bits = bits << len(block) | int(digits, 2)
    return bits


class LikePattern:
    """A LIKE pattern; `ilike` folds the text and the pattern."""

    def __init__(self, pattern: str, *, folded: bool) -> None:
        self._folded = folded
        segments: list[list[tuple[int, str]]] = [[]]
        lengths = [0]
        for part in parse_like(pattern):
            if part is ANY_RUN:
                segments.append([])
                lengths.append(0)
            elif part is ANY_ONE:
                lengths[-1] += 1
            else:
                assert isinstance(part, str)
                piece = fold(part) if folded else part
                segments[-1].append((lengths[-1], piece))
                lengths[-1] += len(piece)
        self._segments = tuple(
            _Segment(length, tuple(pieces)) for length, pieces in zip(lengths, segments, strict=True)
        )
        self._shortest = sum(lengths)
        self.size = len(pattern) + 1

    def match(self, text: str) -> bool:
        """Return whether the whole text matches."""
        if self._folded:
            text = _fold(text)
        if len(text) < self._shortest:
            return False
        if self.size * (len(text) + self.size) <= _SMALL:
            return self._regex.fullmatch(text) is not None
        first, *rest = self._segments
        if not rest:
            return len(text) == first.length and first.at(text, 0)
        last = rest.pop()
        start, end = first.length, len(text) - last.length
        if not (first.at(text, 0) and last.at(text, end)):
            return False
        for segment in rest:
            # The first place that fits is as good as any: a later one leaves less to the others.
            index = segment.find(text, start, end)
            if index < 0:
                return False
            start = index + segment.length
        return True

    @functools.cached_property
    def _regex(self) -> re.Pattern[str]:
        # Between two runs the parts are atomic: else "%x%x%x…" takes time exponential in its runs.
        first, *rest = map(_to_regex, self._segments)
        parts = [first, *(f"(?>.*?{segment})" for segment in rest[:-1] if segment)]
        if rest:
            parts.append(".*" + rest[-1])
        return re.compile("".join(parts), re.DOTALL)


def _to_regex(segment: _Segment) -> str:
    """Return the segment as a regular expression."""
    text, end = "", 0
    for offset, piece in segment.pieces:
        text += "." * (offset - end) + re.escape(piece)
        end = offset + len(piece)
    return text + "." * (segment.length - end)


def _fold(text: str) -> str:
    if len(text) <= _WINDOW or text.isascii():
        return fold(text)
    parts = []
    for start in range(0, len(text), _WINDOW):
        check()
        parts.append(fold(text[start : start + _WINDOW]))
    return "".join(parts)


@functools.lru_cache(maxsize=256)
def compile_like(pattern: str, *, folded: bool) -> LikePattern:
    """Return the compiled pattern."""
    return LikePattern(pattern, folded=folded)
