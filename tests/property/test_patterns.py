"""Regular expressions and LIKE patterns against Python's own engine, on generated ones."""

from __future__ import annotations

import random
import re
import warnings

import pytest

from isthmus._query import like, regex
from isthmus._query.text import fold
from tests.seeds import drawn

# Letters with several cases, of other scripts and beyond U+FFFF, digits, line breaks and blanks.
_CHARACTERS = "abAZſKkßẞıIİiµμΣςσ\n 1٣_éÉDždžDŽ\u2028\x1c\x85\u00a0\u1e9e\ufb05\ufb06日"
_BEYOND = "𐐀𐐨💥"
_PATTERNS = 3_000


class _Patterns:
    """Random patterns that `re` can search in a short text without ado."""

    def __init__(self, rng: random.Random, characters: str) -> None:
        self._rng = rng
        self._characters = characters

    def text(self) -> str:
        text = "".join(self._rng.choice(self._characters) for _ in range(self._rng.randint(0, 6)))
        return text + "\n" if self._rng.random() < 0.2 else text

    def pattern(self) -> str:
        return self._rng.choice(["", "(?i)", "(?s)", "(?m)", "(?im)", "(?a)", "(?ai)", ""]) + self._part(0)

    def _part(self, depth: int) -> str:
        choice, chance = self._rng.choice, self._rng.random()
        if depth > 3 or chance < 0.33:
            return re.escape(choice(self._characters))
        if chance < 0.43:
            return choice([r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", "."])
        if chance < 0.53:
            anchor = choice(["^", "$", r"\A", r"\Z", r"\b", r"\B"])
            return anchor + (self._part(depth + 1) if self._rng.random() < 0.5 else "")
        if chance < 0.63:
            return self._set()
        if chance < 0.8:
            return self._part(depth + 1) + self._part(depth + 1)
        if chance < 0.87:
            return f"(?:{self._part(depth + 1)}|{self._part(depth + 1)})"
        if chance < 0.96:
            repeat = choice(["*", "+", "?", "{2}", "{0,2}", "*?", "+?", "{1,3}"])
            return f"({self._part(depth + 1)}){repeat}"
        return f"(?{choice(['i', 's', 'm', 'is', '-i'])}:{self._part(depth + 1)})"

    def _set(self) -> str:
        choice = self._rng.choice
        low, high = sorted([choice(self._characters), choice(self._characters)])
        span = f"{re.escape(low)}-{re.escape(high)}"
        more = choice(["", span, r"\w", r"\s", r"\d", r"\D"])
        return f"[{choice(['', '', '^'])}{re.escape(choice(self._characters))}{more}]"


def test_search_is_pythons() -> None:
    """The same answer for each pattern and text, wherever CPython keeps to its documentation."""
    rng = random.Random(drawn())
    # Under (?i) CPython forgets cases beyond U+FFFF in sets, and under (?ai) folds ranges by Unicode.
    plain, beyond = _Patterns(rng, _CHARACTERS), _Patterns(rng, _CHARACTERS + _BEYOND)
    searched = 0

    while searched < _PATTERNS:
        made = rng.choice([plain, beyond])
        pattern = made.pattern()
        if re.search(r"\(\?[a-z]*i", pattern) and (made is beyond or pattern.startswith("(?a")):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                expected = re.compile(pattern).search
        except (re.error, FutureWarning):
            continue
        searched += 1
        compiled = regex.compile_regex(pattern)
        assert isinstance(compiled, regex.Pattern)
        for text in (made.text() for _ in range(6)):
            assert compiled.search(text) == (expected(text) is not None), (pattern, text)


def test_like_is_the_same_by_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short texts go by a regex, long ones by searching piece after piece."""
    rng = random.Random(drawn())

    for _ in range(_PATTERNS):
        pattern = "".join(rng.choice("ab%%__é\\") for _ in range(rng.randint(0, 9)))
        text = "".join(rng.choice("abAÉé_%\n") for _ in range(rng.randint(0, 14)))
        folded = rng.random() < 0.3
        expected = _like(pattern, text, folded=folded)

        assert like.LikePattern(pattern, folded=folded).match(text) is expected, (pattern, text)
        with monkeypatch.context() as patch:
            patch.setattr(like, "_SMALL", 0)
            patch.setattr(like, "_WINDOW", rng.choice([1, 3, 1_000]))
            assert like.LikePattern(pattern, folded=folded).match(text) is expected, (pattern, text)


def _like(pattern: str, text: str, *, folded: bool) -> bool:
    """Return what a pattern means, by the textbook's recursion."""
    if folded:
        pattern, text = fold(pattern), fold(text)
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(_like(pattern[1:], text[start:], folded=False) for start in range(len(text) + 1))
    if pattern[0] == "_":
        return bool(text) and _like(pattern[1:], text[1:], folded=False)
    width = 2 if pattern[0] == "\\" and len(pattern) > 1 else 1
    return text[:1] == pattern[width - 1] and _like(pattern[width:], text[1:], folded=False)
