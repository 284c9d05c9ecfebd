"""Random records and queries with values that databases get wrong, from a seed."""

from __future__ import annotations

from random import Random
from typing import Any

from isthmus._path import Path, Root
from isthmus._query.ast import (
    FALSE,
    And,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    Function,
    In,
    Like,
    Measure,
    Not,
    Or,
    Order,
    Ordered,
    Predicate,
    Regex,
    SortKey,
    StartsWith,
)
from isthmus._query.lookup import values_at
from isthmus._query.normalize import normalize
from isthmus._record import Record

COMMON_KEYS = ["a", "b", "n"]
ODD_KEYS = ["a.b", 'q"x', "b\\s", "", " ", "$", "[0]", "é", "\x01", "_id", "id", "data", "'"]
KEYS = COMMON_KEYS + ODD_KEYS
TEXTS = [
    "", "a", "A", "ab", "abc", "%", "_", "a%b", "*", "?", "[", "[a]", "]", "^", "\\", "é", "e\u0301", "ß",
    "ẞ", "İ", "ı", "😀", "a😀b", "\ufffd", "\uffff", "\ufffe", "\ue000", "\ud7ff", "\U0010ffff", "z" * 300,
    "line\nbreak", "\x01", "\x7f", "10", "10.0", "true", "null", "K", "\u212a", "ſ", "Σ", "ς", "'", '"',
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 10, 99, 2**53, 2**53 + 1, 2**53 - 1, -(2**53) - 1, 2**62, 2**63 - 1, -(2**63), -0.0, 0.5,
    1.5, -1.5, 1e300, -1e300, 1e-320, 5e-324, 0.1, 0.30000000000000004, 1e19, 123456.789,
    1.7976931348623157e308,
]  # fmt: skip
PATTERN_PARTS = ["%", "_", "a", "b", "A", "é", "\\", "😀", "\\%", "\\_", "*", "[", "\ufffd", "ß", "k", "s"]
REGEXES = ["a", "^a", "b$", ".", "[A-Z]", "(?i)ab", r"\d+", "", "é|ß", r"(a)\1", "(?<=a)b"]
ATTRIBUTES = [Root.ID, Root.VERSION, Root.CREATED_AT, Root.UPDATED_AT]


def scalar(random: Random) -> Any:
    """Return a scalar or None."""
    kind = random.random()
    if kind < 0.3:
        return random.choice(NUMBERS)
    if kind < 0.45:
        return random.randrange(-5, 15)
    if kind < 0.57:
        return random.choice([True, False])
    if kind < 0.64:
        return None
    return random.choice(TEXTS)


def value(random: Random, depth: int = 0) -> Any:
    """Return a value that may be nested."""
    kind = random.random()
    if depth < 4 and kind < 0.18:
        return [value(random, depth + 1) for _ in range(random.choice([0, 1, 1, 2, 3]))]
    if depth < 4 and kind < 0.34:
        return {random.choice(KEYS): value(random, depth + 1) for _ in range(random.choice([0, 1, 2, 3]))}
    return scalar(random)


def data(random: Random) -> dict[str, Any]:
    """Return a record's data: mostly a few common keys, so that queries meet values."""
    common = {key: value(random) for key in COMMON_KEYS if random.random() < 0.8}
    return common | {random.choice(KEYS): value(random) for _ in range(random.randrange(0, 3))}


def path(random: Random) -> Path:
    """Return a path into data, metadata or an attribute."""
    kind = random.random()
    if kind < 0.06:
        return Path(random.choice(ATTRIBUTES), ())
    keys = COMMON_KEYS if random.random() < 0.85 else KEYS
    if kind < 0.14:
        return Path(Root.METADATA, tuple(random.choice(keys) for _ in range(random.randrange(0, 3))))
    return Path(Root.DATA, tuple(random.choice(keys) for _ in range(random.choice([1, 1, 1, 1, 1, 1, 2, 3]))))


class Queries:
    """Makes predicates whose operands are mostly values that the records hold."""

    def __init__(self, random: Random, records: list[Record]) -> None:
        self._random = random
        self._records = records

    def _operand(self, at: Path) -> Any:
        random = self._random
        if self._records and random.random() < 0.65:
            held = [v for v in values_at(random.choice(self._records), at) if not isinstance(v, dict)]
            if held:
                return random.choice(held)
        taken = scalar(random)
        return 0 if taken is None else taken

    def _text(self, at: Path) -> str:
        taken = self._operand(at)
        text = taken if isinstance(taken, str) else self._random.choice(TEXTS)
        start = self._random.randrange(0, 3)
        return text[start : start + self._random.randrange(0, 4)] if self._random.random() < 0.7 else text

    def leaf(self) -> Predicate:
        """Return a leaf of any kind."""
        random = self._random
        at = path(random)
        operand = self._operand(at)
        match random.randrange(15):
            case 0 | 1:
                return Equal(at, operand)
            case 2 | 3 | 4:
                return Ordered(at, random.choice(list(Order)), operand)
            case 5:
                return self._between(at, operand)
            case 6:
                return In(at, tuple(self._operand(at) for _ in range(random.randrange(0, 6))))
            case 7:
                return Like(at, self._pattern(at), random.random() < 0.4)
            case 8:
                return Regex(at, random.choice(REGEXES))
            case 9:
                return StartsWith(at, self._text(at))
            case 10:
                return EndsWith(at, self._text(at))
            case 11:
                return Contains(at, self._text(at))
            case 12:
                return Exists(at)
            case 13:
                return EqualList(at, [scalar(random) for _ in range(random.randrange(0, 3))])
            case _:
                return Equal(at, {random.choice(KEYS): scalar(random) for _ in range(random.randrange(0, 3))})

    def _between(self, at: Path, low: Any) -> Predicate:
        kind = str if isinstance(low, str) else bool if isinstance(low, bool) else float
        for _ in range(50):
            high = self._operand(at)
            if (str if isinstance(high, str) else bool if isinstance(high, bool) else float) is kind:
                return Between(at, *((low, high) if self._random.random() < 0.2 else sorted([low, high])))
        return Between(at, low, low)

    def _pattern(self, at: Path) -> str:
        random = self._random
        if random.random() < 0.5:
            return random.choice(["", "%"]) + self._text(at).replace("b", "_") + random.choice(["", "%"])
        return "".join(random.choice(PATTERN_PARTS) for _ in range(random.randrange(0, 5)))

    def predicate(self, depth: int = 0) -> Predicate:
        """Return a tree."""
        random = self._random
        kind = random.random()
        if depth > 4 or kind < 0.5:
            return self.leaf()
        if kind < 0.65:
            return Not(self.predicate(depth + 1))
        terms = tuple(self.predicate(depth + 1) for _ in range(random.choice([0, 1, 2, 2, 2, 2, 3, 3])))
        return And(terms) if random.random() < 0.5 else Or(terms)

    def where(self) -> Predicate:
        """Return a tree as it reaches a backend: normalized, and not FALSE, which the planner answers."""
        while (predicate := normalize(self.predicate())) == FALSE:
            pass
        return predicate

    def order(self) -> tuple[SortKey, ...]:
        """Return up to three sort keys."""
        random = self._random
        return tuple(
            SortKey(path(random), random.random() < 0.5, random.random() < 0.4)
            for _ in range(random.choice([0, 1, 1, 2, 3]))
        )

    def measures(self) -> tuple[Measure, ...]:
        """Return up to two measures and a count of records."""
        random = self._random
        some = [
            Measure(str(number), random.choice(list(Function)), path(random))
            for number in range(random.choice([1, 2]))
        ]
        return (*some, Measure("records", Function.COUNT))
