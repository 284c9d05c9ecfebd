"""What the store pretends to push down, and how it evaluates pushed predicates."""

from __future__ import annotations

import zlib

from isthmus.spi import (
    RANKED,
    And,
    GroupKey,
    Leaf,
    Measure,
    Not,
    Or,
    Predicate,
    Pushdown,
    Record,
    SortKey,
    leaf_matches,
    predicate_text,
)
from isthmus_rough.config import RoughConfig

_LEVELS = (Pushdown.EXACT, Pushdown.EXACT, Pushdown.SUPERSET, Pushdown.NONE)


class RoughSupport:
    """Decides by a hash of the seed and the leaf, so that a leaf always has the same level."""

    def __init__(self, config: RoughConfig) -> None:
        self._seed = config.seed
        self._nothing = config.evaluates == "nothing"

    def pushdown(self, leaf: Leaf) -> Pushdown:
        """Return any level."""
        if self._nothing or isinstance(leaf, RANKED):
            return Pushdown.NONE
        return _LEVELS[self._hash("leaf", predicate_text(leaf)) % len(_LEVELS)]

    def orders(self, order: tuple[SortKey, ...]) -> bool:
        """Return whether this order is one that the store pretends to know."""
        return not self._nothing and self._hash("order", repr(order)) % 3 != 0

    def aggregates(self, measures: tuple[Measure, ...], by: tuple[GroupKey, ...]) -> bool:
        """Return whether the store pretends to compute these."""
        return not self._nothing and self._hash("aggregate", repr((measures, by))) % 2 == 0

    def odd(self, record: Record) -> bool:
        """Return whether the record is one that the store pretends not to evaluate."""
        return not self._nothing and self._hash("odd", record.id or "") % 5 == 0

    def matches(self, predicate: Predicate, record: Record, *, positive: bool = True) -> bool:
        """Evaluate a pushed predicate: a SUPERSET leaf also matches some records that it should not."""
        match predicate:
            case And(terms):
                return all(self.matches(term, record, positive=positive) for term in terms)
            case Or(terms):
                return any(self.matches(term, record, positive=positive) for term in terms)
            case Not(term):
                return not self.matches(term, record, positive=not positive)
            case leaf:
                pushdown = self.pushdown(leaf)
                assert pushdown is not Pushdown.NONE, f"pushed although NONE: {predicate_text(leaf)}"
                assert positive or pushdown is Pushdown.EXACT, (
                    f"pushed under not although not exact: {predicate_text(leaf)}"
                )
                wrong = (
                    pushdown is Pushdown.SUPERSET
                    and self._hash(predicate_text(leaf), record.id or "") % 3 == 0
                )
                return wrong or leaf_matches(leaf, record)

    def _hash(self, *parts: str) -> int:
        return zlib.crc32("\0".join((str(self._seed), *parts)).encode("utf-8", "surrogatepass"))


def exact(predicate: Predicate, support: RoughSupport) -> bool:
    """Return whether every leaf is EXACT."""
    match predicate:
        case And(terms) | Or(terms):
            return all(exact(term, support) for term in terms)
        case Not(term):
            return exact(term, support)
        case leaf:
            return support.pushdown(leaf) is Pushdown.EXACT
