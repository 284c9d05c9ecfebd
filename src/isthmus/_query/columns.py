"""The columns and groups of an aggregate as users write them, and which of the groups come first."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from isthmus._arguments import shorten
from isthmus._path import Path, Root
from isthmus._query.aggregate import Groups
from isthmus._query.ast import Function, Measure, SortKey
from isthmus._query.bucket import Bucket, GroupKey
from isthmus._query.field import Field, FieldName, as_path
from isthmus._query.order import NONE, SortValue, type_rank
from isthmus._query.query import Query
from isthmus._suggest import suggest
from isthmus.errors import QueryError

GroupName: TypeAlias = "FieldName | Bucket"
GroupNames: TypeAlias = "GroupName | Iterable[GroupName] | Mapping[str, GroupName]"
Column: TypeAlias = "str | tuple[str, FieldName] | tuple[str, FieldName, int | float]"
Row: TypeAlias = dict[str, Any]
# On a document of 5 MB a process of PostgreSQL takes 150 MB for so many.
_MAX_COLUMNS = 100


def measures(spec: Mapping[str, Any]) -> tuple[Measure, ...]:
    """Return measures for `{"n": "count", "oldest": ("max", "age"), "p95": ("percentile", "price", 95)}`."""
    return tuple(_measure(name, what) for name, what in spec.items())


def _measure(name: str, what: Any) -> Measure:
    if not isinstance(what, str | tuple | list):
        raise QueryError(f"aggregate(): {name}= is 'count' or (function, field), got {shorten(what)}")
    parts = (what,) if isinstance(what, str) else tuple(what)
    function = parts[0] if parts else None
    known = [f.value for f in Function]
    if function not in known:
        raise QueryError(f"unknown aggregate {shorten(function)}{suggest(function, known)}")
    if function == "percentile":
        if len(parts) != 3:
            raise QueryError("percentile needs a field and a percent: ('percentile', 'price', 95)")
        return Measure(name, Function.PERCENTILE, _path_to_measure(parts[1]), _percent(parts[2]))
    if len(parts) > 2:
        raise QueryError(f"{function} takes a field alone: ({function!r}, 'age')")
    if len(parts) == 1 and function != "count":
        raise QueryError(f"{function} needs a field: ({function!r}, 'age')")
    return Measure(name, Function(function), None if len(parts) == 1 else _path_to_measure(parts[1]))


def _path_to_measure(name: FieldName) -> Any:
    path = as_path(name)
    if path.root is Root.SCORE:
        raise QueryError("_score can be sorted by, not aggregated")
    return path


def _percent(percent: Any) -> tuple[int, int]:
    from decimal import Decimal

    is_number = isinstance(percent, int | float) and not isinstance(percent, bool)
    if not is_number or not 0 < percent <= 100:
        raise QueryError(f"a percentile is above 0, at most 100, got {shorten(percent)}")
    # 0.1 means a tenth of a percent, not the double next to it.
    return Decimal(repr(percent)).as_integer_ratio()


def group_keys_by_label(by: GroupNames) -> dict[str, GroupKey]:
    """Return the keys to group by, with the names of their columns: given, or such as `city` and `at:day`."""
    if isinstance(by, Mapping):
        return {label: _group_key(name) for label, name in by.items()}
    if isinstance(by, str | Bucket | Field | Path):
        by = [by]
    if not isinstance(by, Iterable):
        raise QueryError(f"aggregate(): by= is a field, or a list or dict of fields, got {shorten(by)}")
    keys = [_group_key(name) for name in by]
    labels = [str(key) for key in keys]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise QueryError(f"aggregate(): two columns are named {min(twice)!r}")
    return dict(zip(labels, keys, strict=True))


def _group_key(name: Any) -> GroupKey:
    return name if isinstance(name, Bucket) else as_path(name)


def check_first(query: Query, labels: Iterable[str]) -> None:
    """Raise `QueryError` unless a query only orders by the columns and limits, and these are not too many."""
    if query.skip or query.fields is not None:
        raise QueryError("aggregate() takes conditions, a sort and a limit: it has an offset or select")
    known = list(labels)
    if len(known) > _MAX_COLUMNS:
        raise QueryError(f"aggregate() has at most {_MAX_COLUMNS} columns, its group keys among them")
    for key in query.order:
        if str(key.path) not in known:
            raise QueryError(
                f"aggregate() sorts by its columns, and {str(key.path)!r} is none{suggest(key.path, known)}"
            )


def finish_rows(
    groups: Groups, keys: Sequence[tuple[str, GroupKey]], computed: Sequence[Measure], query: Query
) -> list[Row]:
    """Return the rows of an aggregate: for each group its keys by name and its measures, as `first_rows`."""
    names = [*(name for name, _ in keys), *(measure.name for measure in computed)]
    found = groups.rows([key for _, key in keys])
    return first_rows([dict(zip(names, (*key, *values), strict=True)) for key, values in found], query)


def first_rows(rows: list[Row], query: Query) -> list[Row]:
    """Return the rows in the query's order, ties by key as they come, and as many as its limit.

    Rows without a value come last in both directions, unless the key has `nulls="first"`.
    """
    if query.order:
        compare = functools.partial(_compare, order=query.order)
        rows = sorted(rows, key=functools.cmp_to_key(compare))
    return rows if query.count is None else rows[: query.count]


def _compare(left: Row, right: Row, order: Sequence[SortKey]) -> int:
    for key in order:
        one, other = _sort_value(left, key), _sort_value(right, key)
        if one == other:
            continue
        if NONE in (one[0], other[0]):
            return -1 if (one[0] == NONE) == key.nulls_first else 1
        before = one[0] < other[0] if one[0] != other[0] else one[1] < other[1]
        return -1 if before != key.descending else 1
    return 0


def _sort_value(row: Row, key: SortKey) -> SortValue:
    value = row[str(key.path)]
    return (NONE, None) if value is None else type_rank(value)
