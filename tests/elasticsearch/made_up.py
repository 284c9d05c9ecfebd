"""Random records and queries that are hard on an index: types that disagree, odd keys, huge values."""

from __future__ import annotations

import random
from typing import Any

from isthmus._path import Path, Root
from isthmus._query.ast import (
    And,
    Between,
    Contains,
    EndsWith,
    Equal,
    EqualList,
    Exists,
    In,
    Like,
    Not,
    Or,
    Order,
    Ordered,
    Predicate,
    Regex,
    SortKey,
    StartsWith,
)

TEXTS = (
    "",
    "a",
    "b",
    "ab",
    "Ab",
    "aB",
    "abc",
    "a\nb",
    "é",
    "É",
    "ß",
    "😀",
    "a*b",
    "a?b",
    "a\\b",
    "1",
    "true",
    "z" * 20,
)
LONG_TEXTS = ("x" * 8191, "x" * 8192, "😀" * 5000, "y" * 40_000, "é" * 240, "😀" * 240, "z" * 2000, "x" * 250)
# No -1e300: a sum that cancels it has no digits left to agree in.
NUMBERS = (
    0,
    1,
    1.0,
    1.5,
    -1,
    2,
    10,
    99.25,
    1e300,
    -1e15,
    5e-324,
    2**53,
    2**53 + 1,
    -(2**53) - 1,
    2**62,
    2**60 + 1,
)
EXTREMES = (2**63 - 1, -(2**63), 2**63 - 2, -(2**63) + 1)
KEYS = ("n", "s", "b", "m", "o", "l", "deep")
ODD_KEYS = (
    "a.b",
    "",
    " ",
    "n.",
    ".n",
    "a*",
    "o.x",
    "id",
    "odd",
    "data",
    "__match",
    "_id",
    "\u00a0",
    "k" * 300,
)
INNER = ("x", "y", "n")


class Maker:
    """Makes records and queries from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def scalar(self) -> Any:
        """Return a null, bool, number or text."""
        roll = self.random.random()
        if roll < 0.08:
            return None
        if roll < 0.2:
            return self.random.random() < 0.5
        if roll < 0.55:
            return self.random.choice(NUMBERS if roll < 0.5 else EXTREMES)
        return self.random.choice(TEXTS if roll < 0.98 else LONG_TEXTS)

    def value(self, depth: int = 0) -> Any:
        """Return any JSON value."""
        roll = self.random.random()
        if depth > 2 or roll < 0.6:
            return self.scalar()
        if roll < 0.8:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        return {self.random.choice(INNER): self.value(depth + 1) for _ in range(self.random.randrange(3))}

    def mostly(self, key: str) -> Any:
        """Return a value as most records have it under this key."""
        pick = self.random
        match key:
            case "n":
                return pick.choice((*NUMBERS[:8], [1, 5], [2.5, 2.5, 1]))
            case "s":
                return pick.choice((*TEXTS, ["a", "a", "b"]))
            case "b":
                return pick.random() < 0.5
            case "m":
                return pick.choice((2**53 + 1, 2**62, 2**60 + 1, -(2**60) - 1, 5, 2**63 - 2))
            case "o":
                return {"x": pick.choice(NUMBERS[:8]), "y": pick.choice(TEXTS)}
            case "l":
                return [
                    {"x": pick.choice(NUMBERS[:8]), "y": pick.choice(TEXTS)} for _ in range(pick.randrange(4))
                ]
        return {"x": [{"y": [pick.choice(NUMBERS[:6]), pick.choice(NUMBERS[:6])]}]}

    def data(self) -> dict[str, Any]:
        """Return a record's data: mostly of one shape."""
        data: dict[str, Any] = {}
        for key in KEYS:
            roll = self.random.random()
            if roll < 0.65:
                data[key] = self.mostly(key)
            elif roll < 0.8:
                data[key] = self.value()
        if self.random.random() < 0.12:
            data[self.random.choice(ODD_KEYS)] = self.value()
        if self.random.random() < 0.05:
            data["o"] = {self.random.choice(ODD_KEYS): self.value()}
        return data

    def path(self) -> Path:
        """Return a path that records may have something at."""
        roll = self.random.random()
        if roll < 0.04:
            return Path(Root.ID, ())
        if roll < 0.1:
            return Path(Root.METADATA, ("source",))
        if roll < 0.18:
            return Path(Root.DATA, (self.random.choice(ODD_KEYS),))
        if roll < 0.22:
            return Path(Root.DATA, ("o", self.random.choice(ODD_KEYS)))
        if roll < 0.25:
            return Path(Root.DATA, ("nowhere",))
        if roll < 0.27:
            return Path(Root.DATA, ("a", "b"))
        key = self.random.choice(KEYS)
        if key in ("o", "l") and roll < 0.8:
            return Path(Root.DATA, (key, self.random.choice(INNER)))
        if key == "deep" and roll < 0.9:
            return Path(Root.DATA, (key, "x", "y"))
        return Path(Root.DATA, (key,))

    def operand(self) -> Any:
        """Return a scalar that is not null."""
        while True:
            value = self.scalar()
            if value is not None:
                return value

    def leaf(self) -> Predicate:
        """Return a leaf of any kind."""
        pick, path = self.random, self.path()
        text = pick.choice(TEXTS)
        match pick.randrange(13):
            case 0 | 1:
                return Equal(path, self.operand())
            case 2 | 3:
                value = self.operand()
                return Ordered(path, pick.choice(list(Order)), value)
            case 4:
                low, high = self.operand(), self.operand()
                kind = (bool,) if isinstance(low, bool) else (str,) if isinstance(low, str) else (int, float)
                same = isinstance(high, kind) and isinstance(high, bool) == isinstance(low, bool)
                return Between(path, low, high if same else low)
            case 5:
                return In(path, tuple(self.operand() for _ in range(pick.randrange(4))))
            case 6:
                pattern = pick.choice(
                    ("%", "a%", "%b", "%a%", "_", "a_b", "a\\%", "", "%\\", "A%", "é", "%\n%", text)
                )
                return Like(path, pattern, pick.random() < 0.4)
            case 7:
                return Regex(
                    path,
                    pick.choice(("a", "^a", "b$", "^a.b$", "[ab]+", "\\d", "(?i)A", "^$", "a|b", ".", "")),
                )
            case 8:
                return StartsWith(path, text)
            case 9:
                return EndsWith(path, text)
            case 10:
                return Contains(path, text)
            case 11:
                value = self.value(1)
                if isinstance(value, list):
                    return EqualList(path, value)
                return Equal(path, value) if isinstance(value, dict) else Exists(path)
        return Exists(path)

    def predicate(self, depth: int = 0) -> Predicate:
        """Return a tree."""
        roll = self.random.random()
        if depth > 2 or roll < 0.5:
            return self.leaf()
        if roll < 0.65:
            return Not(self.predicate(depth + 1))
        terms = tuple(self.predicate(depth + 1) for _ in range(self.random.randrange(1, 4)))
        return And(terms) if roll < 0.82 else Or(terms)

    def order(self) -> tuple[SortKey, ...]:
        """Return up to three sort keys."""
        pick = self.random
        return tuple(
            SortKey(self.path(), pick.random() < 0.5, pick.random() < 0.5) for _ in range(pick.randrange(4))
        )
