"""One verb on one query: what the backend answers, and what the evaluator says that it must."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from isthmus import AsyncDatabase, Query
from isthmus._path import Path, Root
from isthmus._query.aggregate import Groups
from isthmus._query.ast import Function, Measure, SortKey
from isthmus._query.bucket import UNITS, GroupKey, make_bucket
from isthmus._query.columns import first_rows, measures
from isthmus._query.evaluate import matches, select
from isthmus._query.lookup import values_at
from isthmus._query.order import cursor_position, sort_key, sort_records
from isthmus._record import Record
from isthmus._value import replace
from isthmus._values import same
from isthmus.testing.queries import GeneratedPredicate, QueryMaker
from tests.differential import streams

VERBS = (
    *("search",) * 4, *("count", "page") * 2, *("aggregate", "find_one", "exists"), *("stream", "consistent"),
    *("left", "resumed"),
)  # fmt: skip
# Of so many streams one is read in partitions, each by a handle of its own.
_PARTITIONED = 10
_PAGES = (1, 2, 3, 7, 2_000)


# Sums and averages of floats agree within 1e-12 only, so that no order by them is the same.
_ROUNDED = (Function.SUM, Function.AVG)
_PERCENTS = (0.1, 33.3, 50, 95, 99.9, 100)


@dataclass(frozen=True, slots=True)
class Check:
    """A verb, its query and the rest of its arguments; `size` is of pages, `part` as `streams` has it."""

    verb: str
    query: Query
    size: int = 0
    by: tuple[GroupKey, ...] = ()
    measures: tuple[Measure, ...] = ()
    part: int = 0
    id_key: Callable[[str], Any] = str
    """What ids sort by: in a table with keys that are numbers, those."""

    def expected(
        self,
        records: Sequence[Record],
        matching: Sequence[Record] | None = None,
        *,
        sort: Callable[[Sequence[Record], tuple[SortKey, ...]], list[Record]] = sort_records,
    ) -> Any:
        """Return the answer by the evaluator; the records are as they were read back.

        `matching` is what the predicate selects of them, if that was found out already.
        """
        query = self.query
        if matching is None:
            matching = [record for record in records if matches(query.where, record)]
        if self.verb == "aggregate":
            groups = Groups(self.measures)
            for record in matching:
                groups.add_record(record, self.by)
            labels = [*map(str, self.by), *(m.name for m in self.measures)]
            rows = [dict(zip(labels, [*key, *row], strict=True)) for key, row in groups.rows(self.by)]
            return [self._split(row) for row in first_rows(rows, self._first_groups())]
        if self.verb in ("count", "delete_where"):
            return len(matching)
        if self.verb == "exists":
            return bool(matching)
        end = None if query.count is None else query.skip + query.count
        ordered = sort(matching, query.order) if self.id_key is str else self._sorted(matching)
        rows = [_row(record, query) for record in ordered[query.skip : end]]
        if self.verb == "find_one":
            return rows[:1]
        if self.verb == "page":
            return [rows[at : at + self.size] for at in range(0, len(rows), self.size)] or [[]]
        if self.verb == "left":
            return [min(self.part, len(rows)), True] if _unordered(query) else rows[: self.part]
        return sorted(rows, key=_id_of) if self._is_unordered else rows

    def _sorted(self, records: Sequence[Record]) -> list[Record]:
        key = sort_key(self.query.order, self.id_key)
        return sorted(records, key=lambda record: key(cursor_position(record, self.query.order)))

    @property
    def _is_unordered(self) -> bool:
        return self.verb in streams.VERBS and self.verb != "resumed" and _unordered(self.query)

    async def actual(self, db: AsyncDatabase) -> Any:
        """Return the backend's answer in the same form."""
        query = self.query
        match self.verb:
            case "search":
                return [[r.id, r.data] for r in await db.search(query)]
            case "find_one":
                one = await db.find_one(query)
                return [] if one is None else [[one.id, one.data]]
            case "count":
                return await db.count(query)
            case "exists":
                return await db.exists(query)
            case "delete_where":
                return await db.delete_where(query)
            case "left" if _unordered(query):
                rows = await streams.read(db, "left", query, self.size, self.part)
                matching = [[r.id, r.data] for r in await db.search(query)]
                distinct = len({id for id, _ in rows}) == len(rows)
                return [len(rows), distinct and all(row in matching for row in rows)]
            case verb if verb in streams.VERBS:
                rows = await streams.read(db, verb, query, self.size, self.part)
                return sorted(rows, key=_id_of) if self._is_unordered else rows
            case "page":
                return await _pages(db, query, self.size)
            case "aggregate":
                columns: Any = {m.name: _column(m) for m in self.measures}
                rows = await db.aggregate(self._first_groups(), by=self.by, **columns)
                return [self._split(row) for row in rows]
        raise AssertionError(self.verb)

    def _first_groups(self) -> Query:
        """Return the query of an aggregate, sorted by the columns that it still has."""
        labels = [*map(str, self.by), *(m.name for m in self.measures)]
        kept = tuple(key for key in self.query.order if str(key.path) in labels)
        return replace(self.query, order=kept)

    def _split(self, row: dict[str, Any]) -> list[list[Any]]:
        return [list(row.values())[: len(self.by)], list(row.values())[len(self.by) :]]

    def agree(self, records: Sequence[Record], expected: Any, actual: Any) -> bool:
        """Return whether two answers are the same; sums and averages within 1e-12 of what was added."""
        if self.verb != "aggregate":
            return same(expected, actual)
        if len(expected) != len(actual):
            return False
        close = self._close(records)
        return all(
            same(key, other_key) and all(map(close, self.measures, row, other))
            for (key, row), (other_key, other) in zip(expected, actual, strict=True)
        )

    def _close(self, records: Sequence[Record]) -> Any:
        def close(measure: Measure, left: Any, right: Any) -> bool:
            if same(left, right):
                return True
            if measure.function not in (Function.SUM, Function.AVG) or left is None or right is None:
                return False
            assert measure.path is not None
            numbers = [v for r in records for v in values_at(r, measure.path) if type(v) in (int, float)]
            exact = all(isinstance(n, int) for n in numbers)
            if exact and measure.function is Function.SUM:
                return False
            # Terms that cancel each other leave the error of the largest.
            scale = max((abs(float(n)) for n in numbers), default=0.0) * len(numbers)
            # Next to zero floats have few digits; their texts, which PostgreSQL adds, are off by half a step.
            steps = len(numbers) * 5e-324
            return math.isclose(left, right, rel_tol=1e-12, abs_tol=scale * 1e-12 + steps)

        return close


def _column(measure: Measure) -> Any:
    if measure.path is None:
        return measure.function.value
    if measure.percent is None:
        return (measure.function.value, measure.path)
    numerator, denominator = measure.percent
    return (measure.function.value, measure.path, numerator / denominator)


def _id_of(row: list[Any]) -> Any:
    return row[0]


def _unordered(query: Query) -> bool:
    return not query.order and query.count is None and not query.skip


def _row(record: Record, query: Query) -> list[Any]:
    data = record.data if query.fields is None else select(record.data, query.fields)
    return [record.id, data]


async def _pages(db: AsyncDatabase, query: Query, size: int) -> list[Any]:
    pages, cursor = [], None
    for _ in range(10_000):
        page = await db.page(query, size=size, cursor=cursor)
        pages.append([[r.id, r.data] for r in page.records])
        cursor = page.cursor
        if cursor is None:
            return pages
    raise AssertionError("the cursors never end")


def make(rng: random.Random, maker: QueryMaker, made: GeneratedPredicate) -> Check:
    """Return a check of a made predicate: a verb with an order, limits, fields or groups."""
    verb = rng.choice(VERBS)
    query = Query(where=made.predicate)
    if verb == "aggregate":
        functions = rng.choices(list(Function), k=rng.randint(1, 3) if rng.random() < 0.95 else 7)
        columns = tuple(_measure(rng, maker, f"m{i}", function) for i, function in enumerate(functions))
        by = {str(key): key for key in (_group(rng, maker) for _ in range(rng.choice((0, 1, 1, 2))))}
        by = {name: key for name, key in by.items() if name not in {m.name for m in columns}}
        first = _first(rng, query, [*by, *(m.name for m in columns if m.function not in _ROUNDED)])
        return Check(verb, first, by=tuple(by.values()), measures=columns)
    if verb in ("count", "exists"):
        return Check(verb, query)
    query = Query(made.predicate, maker.order(made))
    if verb == "page":
        return Check(verb, _cut(rng, maker, query), size=rng.randint(1, 12))
    if verb == "resumed":
        return Check(verb, _cut(rng, maker, query), size=rng.choice(_PAGES), part=rng.randint(1, 12))
    if verb == "stream" and rng.randrange(_PARTITIONED) == 0:
        parts = rng.randint(1, 4)
        return Check("partitions", _cut(rng, maker, Query(where=made.predicate)), part=parts)
    if verb == "search" or verb in streams.VERBS:
        if rng.random() < 0.5:
            query = query.limit(rng.choice((0, 1, 2, 5, 10, 100)))
        if rng.random() < 0.3:
            query = query.offset(rng.choice((0, 1, 2, 5, 20)))
        query = _cut(rng, maker, query)
    if verb == "search" or verb not in streams.VERBS:
        return Check(verb, query)
    return Check(verb, query, size=rng.choice(_PAGES), part=rng.randint(0, 8) if verb == "left" else 0)


def _measure(rng: random.Random, maker: QueryMaker, name: str, function: Function) -> Measure:
    if function is Function.COUNT and rng.random() < 0.5:
        return Measure(name, function)
    if function is Function.PERCENTILE:
        return measures({name: ("percentile", maker.path(), rng.choice(_PERCENTS))})[0]
    return Measure(name, function, maker.path())


def _group(rng: random.Random, maker: QueryMaker) -> GroupKey:
    """Return a group key: in one of three cases a bucket of time or numbers."""
    path = maker.path()
    if rng.random() < 0.65:
        return path
    if rng.random() < 0.4:
        return make_bucket(path, rng.choice((1, 2, 10, 1_000, 2**53, 2**62, 2**63, 3 * 10**23, 10**39)), None)
    return make_bucket(path, rng.choice(UNITS), rng.choice(("UTC", "Europe/Oslo", "America/St_Johns")))


def _first(rng: random.Random, query: Query, labels: list[str]) -> Query:
    """Return the query for the first groups by some columns, in half of the cases."""
    if rng.random() < 0.5:
        return query
    keys = rng.sample(labels, min(len(labels), rng.choice((0, 1, 1, 2))))
    order = tuple(SortKey(Path(Root.DATA, (label,)), rng.random() < 0.5) for label in keys if label)
    # A label is a column's, whatever path it would be.
    query = replace(query, order=tuple(key for key in order if str(key.path) in labels))
    return query.limit(rng.choice((0, 1, 2, 5, 100))) if rng.random() < 0.7 else query


def _cut(rng: random.Random, maker: QueryMaker, query: Query) -> Query:
    if rng.random() < 0.2:
        paths = [maker.path() for _ in range(rng.randint(1, 3))]
        return (
            query.select(*(p for p in paths if p.root is Root.DATA)) if paths[0].root is Root.DATA else query
        )
    return query
