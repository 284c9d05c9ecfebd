"""Aggregates at the server where that is exact, else over the streamed records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isthmus._core.executor import AggregateRequest, AggregateResult
from isthmus._path import Path
from isthmus._query.aggregate import Groups, holds_values
from isthmus._query.ast import Function, Measure
from isthmus._query.bucket import GroupKey, path_of
from isthmus._query.order import NONE as NO_VALUE
from isthmus._query.order import type_rank
from isthmus.backends.elasticsearch.read.filter import Compiler, is_field
from isthmus.backends.elasticsearch.read.plan import SearchPlan
from isthmus.backends.elasticsearch.read.point_in_time import PointInTime
from isthmus.backends.elasticsearch.read.reader import IndexReader

_BUCKETS = 5_000
_EXACT = 2.0**53
# The error of compensated summation of doubles, relative to the sum of absolute values.
_LOSS = 4.5e-16
_TOLERANCE = 1e-12
_NUMERIC = frozenset({"double", "long"})


class Inexact(Exception):
    """The server's figures may differ from the exact ones."""


def can_aggregate(types: Mapping[str, str], measures: Sequence[Measure], by: Sequence[GroupKey]) -> bool:
    """Return whether the server computes these exactly, given the mapped types.

    Its distinct counts and percentiles are approximate, its calendar is not Python's.
    """
    compiler = Compiler(types, ())
    if holds_values(measures) or not all(isinstance(key, Path) and is_field(key) for key in by):
        return False
    for measure in measures:
        path = measure.path
        if path is None:
            continue
        if not is_field(path):
            return False
        kind = compiler.type_of(path)
        if measure.function is Function.COUNT and kind == "keyword":
            return False  # doc values hold each text of a record once
        if by and kind in ("keyword", "boolean") and measure.function in (Function.MIN, Function.MAX):
            return False
    return True


async def aggregate(reader: IndexReader, request: AggregateRequest) -> AggregateResult:
    """Return partial states of the main records, and the recheck candidates, from one point in time."""
    paths = [m.path for m in request.measures if m.path is not None and is_field(m.path)]
    by, index = [path_of(key) for key in request.by], reader.index
    async with reader.point_in_time() as pit:
        plan = await reader.plan(request.where, (), [*paths, *by])
        recheck = await reader.candidates(plan, pit)
        try:
            if not can_aggregate(index.types, request.measures, by):
                raise Inexact
            groups = await _aggregate_at_server(plan, Compiler(index.types, ()), request, pit)
        except Inexact:
            groups = Groups(request.measures)
            async for record in reader.main(plan, pit):
                groups.add_record(record, by)
    return AggregateResult(groups, recheck)


async def _aggregate_at_server(
    plan: SearchPlan, compiler: Compiler, request: AggregateRequest, pit: PointInTime
) -> Groups:
    groups = Groups(request.measures)
    inner: dict[str, Any] = {}
    for number, measure in enumerate(request.measures):
        inner |= _clause(f"m{number}", measure, compiler)
    body: dict[str, Any] = {**plan.clause(), "size": 0, "track_total_hits": True}
    sources = [
        (number, path)
        for number, path in enumerate(map(path_of, request.by))
        if compiler.type_of(path) is not None
    ]
    if not sources:
        if inner:
            body["aggs"] = inner
        answer = await pit.search(body)
        total = answer["hits"]["total"]["value"]
        if total:
            states = _states(request.measures, answer.get("aggregations", {}), total, compiler)
            groups.add((None,) * len(request.by), states)
        return groups
    composite: dict[str, Any] = {
        "size": _BUCKETS,
        "sources": [
            {f"g{number}": {"terms": {"field": compiler.field(path), "missing_bucket": True}}}
            for number, path in sources
        ],
    }
    while True:
        body["aggs"] = {"groups": {"composite": composite, **({"aggs": inner} if inner else {})}}
        body["track_total_hits"] = False
        answer = (await pit.search(body))["aggregations"]["groups"]
        for bucket in answer["buckets"]:
            key: list[Any] = [None] * len(request.by)
            for number, path in sources:
                key[number] = _scalar(bucket["key"][f"g{number}"], compiler.type_of(path))
            groups.add(tuple(key), _states(request.measures, bucket, bucket["doc_count"], compiler))
        if len(answer["buckets"]) < _BUCKETS:
            return groups
        composite["after"] = answer["after_key"]


def _clause(name: str, measure: Measure, compiler: Compiler) -> dict[str, Any]:
    if measure.path is None:
        return {}
    kind = compiler.type_of(measure.path)
    field = compiler.field(measure.path)
    if kind is None:
        return {}
    match measure.function:
        case Function.COUNT:
            return {name: {"value_count": {"field": field}}}
        case Function.SUM | Function.AVG:
            return {name: {"stats": {"field": field}}} if kind in _NUMERIC else {}
        case Function.MIN | Function.MAX:
            if kind in _NUMERIC:
                return {name: {"stats": {"field": field}}}
            direction = "asc" if measure.function is Function.MIN else "desc"
            return {name: {"terms": {"field": field, "size": 1, "order": {"_key": direction}}}}
        case _:
            raise AssertionError(f"{measure.function.value} is not pushed down")


def _states(
    measures: Sequence[Measure], answer: Mapping[str, Any], count: int, compiler: Compiler
) -> list[Any]:
    return [
        count if m.path is None else _state(m, answer.get(f"m{number}"), compiler.type_of(m.path))
        for number, m in enumerate(measures)
    ]


def _state(measure: Measure, figures: Mapping[str, Any] | None, kind: str | None) -> Any:
    match measure.function:
        case Function.COUNT:
            return 0 if figures is None else figures["value"]
        case Function.SUM | Function.AVG:
            if figures is None or not figures["count"]:
                return (0, 0)
            return (_sum(figures, kind), figures["count"])
        case Function.MIN | Function.MAX:
            if figures is None:
                return (NO_VALUE, None)
            if "buckets" in figures:
                buckets = figures["buckets"]
                return type_rank(_scalar(buckets[0]["key"], kind)) if buckets else (NO_VALUE, None)
            value = figures[measure.function.value]
            if value is None:
                return (NO_VALUE, None)
            if kind == "long" and abs(value) >= _EXACT:
                raise Inexact
            return type_rank(_scalar(value, kind))
        case _:
            raise AssertionError(f"{measure.function.value} is not pushed down")


def _sum(figures: Mapping[str, Any], kind: str | None) -> int | float:
    """Return the sum if it is exact for integers and within 1e-12 for floats; else raises `Inexact`."""
    low, high, total = figures["min"], figures["max"], figures["sum"]
    if not isinstance(total, float | int) or not isinstance(high, float | int):  # "Infinity"
        raise Inexact
    bound = abs(total) if low >= 0 or high <= 0 else figures["count"] * max(abs(low), abs(high))
    if bound >= _EXACT:
        raise Inexact  # integers may have lost digits
    if bound * _LOSS > _TOLERANCE * abs(total) and kind != "long":
        raise Inexact
    return int(total) if float(total).is_integer() else total


def _scalar(value: Any, kind: str | None) -> Any:
    """Return a bucket's key or a statistic as the value that was stored."""
    if kind == "boolean" and value is not None:
        return bool(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value
