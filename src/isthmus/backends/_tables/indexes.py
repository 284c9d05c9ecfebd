"""Which columns of a table an index would serve for a page of records."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

from isthmus._path import Path, Root
from isthmus._query.ast import And, Between, Equal, In, Like, Ordered, Predicate, SortKey, StartsWith
from isthmus.backends._tables.column import Table, TableColumn


class Use(enum.Enum):
    """What an index is used for."""

    EQUALITY = "equality"
    RANGE = "range"
    PREFIX = "prefix"
    ORDER = "order"


def uses_of(
    table: Table, where: Predicate, order: Sequence[SortKey] | None
) -> Iterator[tuple[TableColumn, Use]]:
    """Yield the columns that a conjunction compares and that its rows are first sorted by, and for what."""
    wanted: list[tuple[Path, Use]] = []
    for term in where.terms if isinstance(where, And) else (where,):
        match term:
            case Equal() | In():
                wanted.append((term.path, Use.EQUALITY))
            case Ordered() | Between():
                wanted.append((term.path, Use.RANGE))
            case StartsWith(_, prefix) | Like(_, prefix, False) if prefix[:1] not in ("", "%", "_"):
                wanted.append((term.path, Use.PREFIX))
    wanted += [(key.path, Use.ORDER) for key in (order or ())[:1]]
    for path, use in wanted:
        column = table.by_name.get(path.keys[0]) if path.root is Root.DATA and len(path.keys) == 1 else None
        if column is not None:
            yield column, use
