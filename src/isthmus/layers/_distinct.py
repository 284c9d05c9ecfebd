"""`count_distinct` as groups: a store that groups by a path has each distinct value as a group's key."""

from __future__ import annotations

from isthmus._core.executor import AggregateRequest
from isthmus._query.aggregate import Groups
from isthmus._query.ast import Function, Measure
from isthmus._query.bucket import GroupKey
from isthmus._query.order import type_rank
from isthmus._value import replace


def distinct_as_groups(request: AggregateRequest) -> AggregateRequest | None:
    """Return the request whose groups are those of a request and of its path's distinct values.

    None if the request has other measures, which would count a record with several values several times.
    """
    paths = {m.path for m in request.measures if m.function is Function.COUNT_DISTINCT}
    path = paths.pop() if len(paths) == 1 else None
    if path is None or any(m.function is not Function.COUNT_DISTINCT for m in request.measures):
        return None
    return replace(request, measures=(Measure("n", Function.COUNT),), by=(*request.by, path))


def merge_distinct(counted: Groups, by: tuple[GroupKey, ...], request: AggregateRequest) -> Groups:
    """Return the groups of a request, made of those of `distinct_as_groups`, which are by `by`."""
    groups = Groups(request.measures)
    for (*key, value), _ in counted.rows(by):
        found = set() if value is None else {type_rank(value)}
        groups.add(tuple(key), [set(found) for _ in request.measures])
    return groups
