"""Splits a predicate for a store whose filters are of a bounded size."""

from __future__ import annotations

from isthmus._core.executor import Support
from isthmus._core.supports import LimitsFilters
from isthmus._path import Path
from isthmus._query.ast import Predicate, leaves
from isthmus._query.split import Split, split


def split_for(predicate: Predicate, support: Support) -> Split:
    """Return the part for the store, within its bounds, and the residual for the evaluator."""
    parts = split(predicate, support.pushdown)
    if not isinstance(support, LimitsFilters):
        return parts
    return Split(support.limit(parts.pushed), parts.residual)


def paths_sent(predicate: Predicate, support: Support, parts: Split) -> frozenset[Path] | None:
    """Return the paths of the leaves that are sent; None if the store's bounds leave out none."""
    if parts.pushed == split(predicate, support.pushdown).pushed:
        return None
    return frozenset(leaf.path for leaf in leaves(parts.pushed))
