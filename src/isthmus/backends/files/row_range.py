"""Conditions on the id as a range of rows."""

from __future__ import annotations

from typing import NamedTuple

from isthmus._path import Path, Root
from isthmus._query.ast import And, Between, Equal, Order, Ordered, Predicate, StartsWith
from isthmus._query.normalize import normalize
from isthmus.backends.files.catalog import Catalog

_ID = Path(Root.ID, ())
Place = tuple[int, int]


class RowRange(NamedTuple):
    """Rows from one place (a file's index and a row's number) to before another."""

    low: Place
    high: Place | None
    """None is the end."""
    rest: Predicate
    """The conditions that the range does not decide."""


def row_range(catalog: Catalog, where: Predicate, after: str | None = None) -> RowRange:
    """Return the range that the top-level conditions on the id leave, of the ids after one."""
    low: Place = (0, 0) if after is None else catalog.first_after(after)
    high: Place | None = None
    rest: list[Predicate] = []
    for term in where.terms if isinstance(where, And) else (where,):
        match term:
            case Ordered(path, op, str(bound)) if path == _ID:
                place = catalog.first_after(bound, inclusive=op in (Order.GE, Order.LT))
                if op in (Order.GT, Order.GE):
                    low = max(low, place)
                else:
                    high = place if high is None else min(high, place)
            case Between(path, str(first), str(last)) if path == _ID:
                low = max(low, catalog.first_after(first, inclusive=True))
                place = catalog.first_after(last)
                high = place if high is None else min(high, place)
            case Equal(path, str(id)) if path == _ID:
                low = max(low, catalog.first_after(id, inclusive=True))
                place = catalog.first_after(id)
                high = place if high is None else min(high, place)
            case StartsWith(path, prefix) if path == _ID:
                low = max(low, catalog.first_after(prefix, inclusive=True))
                rest.append(term)
            case _:
                rest.append(term)
    return RowRange(low, high, normalize(And(tuple(rest))))
