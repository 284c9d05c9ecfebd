"""Random queries on SQLite give what the evaluator gives: records, order, pages, counts, aggregates."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from fractions import Fraction
from pathlib import Path as FilePath
from random import Random
from typing import Any

import pytest

from isthmus._core.executor import MORE, After, AggregateRequest, Mutation, PageRequest, WriteKind
from isthmus._query.aggregate import Groups, Key, group_keys
from isthmus._query.ast import TRUE, Function, Measure
from isthmus._query.evaluate import matches
from isthmus._query.lookup import values_at
from isthmus._query.order import SortValue, cursor_position, sort_records, type_rank
from isthmus._record import Record
from isthmus.backends.sqlite import plugin
from isthmus.backends.sqlite.backend import SQLiteBackend
from isthmus.errors import QueryError
from tests.sqlite.generated import Queries, data, path

INDEXES = ["a", "b", "n", "a.b", "a.n", "_metadata.a"]
SETS = int(os.environ.get("ISTHMUS_SQLITE_SETS", "8"))
QUERIES = int(os.environ.get("ISTHMUS_SQLITE_QUERIES", "60"))
COLLECTION = "records"


async def _filled(backend: SQLiteBackend, random: Random) -> list[Record]:
    """Replace what is there by some random records and return them as stored."""
    await backend.remove(COLLECTION, TRUE)
    changes = [
        Mutation(
            random.choice(["", "é", "😀", "\uffff", "Z", "a/"]) + f"{random.random()}",
            data(random),
            data(random),
        )
        for _ in range(random.choice([0, 5, 60, 60, 60, 60, 60, 60]))
    ]
    results = await backend.write(COLLECTION, WriteKind.CREATE, changes, atomic=True)
    assert results == [change.id for change in changes]
    stored = await backend.read(COLLECTION, [change.id for change in changes])
    return [record for record in stored if record is not None]


async def _pages(backend: SQLiteBackend, request: PageRequest) -> list[Record]:
    records: list[Record] = []
    after = None
    while True:
        offset = request.offset if after is None else 0
        page = await backend.fetch(
            COLLECTION,
            PageRequest(
                request.where,
                request.order,
                request.size,
                after=after,
                offset=offset,
                consistent=request.consistent,
            ),
        )
        assert len(page.records) <= request.size_up_to(len(page.records))
        records += page.records
        if page.after is None:
            return records
        after = page.after
        if after == MORE:
            after = After(cursor_position(page.records[-1], request.order or ()))


def _numbers(
    request: AggregateRequest, records: list[Record], measure: Measure
) -> dict[Any, list[int | float]]:
    """Return the numbers that a measure sees, by group."""
    numbers: dict[Any, list[int | float]] = defaultdict(list)
    for record in records:
        values = [] if measure.path is None else values_at(record, measure.path)
        for key in group_keys(record, request.by):
            numbers[_tagged(key)] += [
                v for v in values if isinstance(v, int | float) and not isinstance(v, bool)
            ]
    return numbers


def _tagged(key: Key) -> tuple[SortValue | None, ...]:
    return tuple(None if part is None else type_rank(part) for part in key)


def _check_float(measure: Measure, mine: float, numbers: list[int | float]) -> None:
    """Compare with the exact sum, since the evaluator adds record by record and loses what cancels."""
    exact = sum(map(Fraction, numbers), Fraction(0))
    largest = max(map(abs, numbers))
    if sum(map(Fraction, map(abs, numbers))) > 1.7e308:
        return  # what is beyond the doubles depends on the order of adding, here and there
    if measure.function is Function.AVG:
        exact /= len(numbers)
    # Records with lists are added one by one, each rounded: the error is relative to the largest term.
    assert math.isclose(mine, float(exact), rel_tol=1e-12, abs_tol=1e-12 * largest), measure


def _check_aggregates(request: AggregateRequest, records: list[Record], got: Groups) -> None:
    expected = Groups(request.measures)
    for record in records:
        expected.add_record(record, request.by)
    try:
        expected_rows = expected.rows(request.by)
    except QueryError as error:  # a sum beyond the floats
        with pytest.raises(QueryError, match=re.escape(str(error))):
            got.rows(request.by)
        return
    got_rows = got.rows(request.by)
    assert [key for key, _ in got_rows] == [key for key, _ in expected_rows]
    for at, measure in enumerate(request.measures):
        numbers = _numbers(request, records, measure)
        for (key, mine), (_, theirs) in zip(got_rows, expected_rows, strict=True):
            if measure.function in (Function.SUM, Function.AVG) and isinstance(theirs[at], float):
                _check_float(measure, mine[at], numbers[_tagged(key)])
            else:
                assert bracketed_or_none(mine[at]) == bracketed_or_none(theirs[at]), (measure, key)


def bracketed_or_none(value: Any) -> Any:
    """Return a value with its type's place, so that 1 is not True."""
    return None if value is None else type_rank(value)


@pytest.mark.backend("sqlite")
@pytest.mark.asyncio
@pytest.mark.breadth(4)
@pytest.mark.parametrize("indexed", [False, True], ids=["plain", "indexed"])
@pytest.mark.parametrize("seed", range(4))
async def test_random_queries_mean_what_the_evaluator_says(
    tmp_path: FilePath, seed: int, indexed: bool
) -> None:
    """Every predicate, order, page, count and stream equals the evaluator's, with and without indexes."""
    print(f"seed {seed}, {SETS} sets of {QUERIES} queries")
    random = Random(f"{seed} {indexed}")
    where = ":memory:" if seed == 0 else str(tmp_path / "d.db")
    backend = plugin.build(plugin.config().load({"path": where, "indexes": INDEXES if indexed else []}))
    await backend.open(COLLECTION)
    selective = 0
    for _ in range(SETS):
        records = await _filled(backend, random)
        queries = Queries(random, records)
        for _ in range(QUERIES):
            predicate, order = queries.where(), queries.order()
            expected = sort_records([record for record in records if matches(predicate, record)], order)
            selective += 0 < len(expected) < len(records)
            ids = [record.id for record in expected]
            size = random.choice([1, 3, 7, 20])

            whole = await backend.fetch(
                COLLECTION, PageRequest(predicate, order, random.choice([100, 10**6]))
            )
            tally = await backend.count(COLLECTION, predicate)
            paged = await _pages(backend, PageRequest(predicate, order, size, offset=random.choice([0, 2])))
            streamed = await _pages(
                backend, PageRequest(predicate, None, size, consistent=random.random() < 0.3)
            )

            question = f"{predicate}\n{order}"
            assert [record.id for record in whole.records] == ids, question
            assert tally.count == len(ids), question
            assert [record.id for record in paged] in (ids, ids[2:]), question
            assert sorted(record.id or "" for record in streamed) == sorted(ids), question
    await backend.close()
    assert selective > SETS * QUERIES / 8


@pytest.mark.backend("sqlite")
@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(4))
async def test_random_aggregates_mean_what_the_evaluator_says(tmp_path: FilePath, seed: int) -> None:
    """Groups, their order, exact integer sums, and float sums within 1e-12."""
    random = Random(seed)
    backend = plugin.build(plugin.config().load({"path": str(tmp_path / "a.db")}))
    await backend.open(COLLECTION)
    for _ in range(SETS):
        records = await _filled(backend, random)
        queries = Queries(random, records)
        for _ in range(QUERIES // 2):
            by = tuple(path(random) for _ in range(random.choice([0, 1, 1, 2])))
            request = AggregateRequest(queries.where(), queries.measures(), by)
            if not backend.support(COLLECTION).aggregates(request.measures, by):
                continue  # the core's, which is tested with all stores
            expected = [record for record in records if matches(request.where, record)]
            answer = await backend.aggregate(COLLECTION, request)

            _check_aggregates(request, expected, answer.groups)
    await backend.close()


@pytest.mark.backend("sqlite")
@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(2))
async def test_random_deletions_leave_what_the_evaluator_leaves(tmp_path: FilePath, seed: int) -> None:
    """`delete_where` takes exactly the matching records, whichever index serves it."""
    random = Random(seed)
    backend = plugin.build(plugin.config().load({"path": str(tmp_path / "x.db"), "indexes": INDEXES}))
    await backend.open(COLLECTION)
    for _ in range(40):
        records = await _filled(backend, random)
        predicate = Queries(random, records).where()

        removed = await backend.remove(COLLECTION, predicate)

        left = (await backend.fetch(COLLECTION, PageRequest(TRUE, (), 1_000))).records
        expected = sorted(record.id or "" for record in records if not matches(predicate, record))
        assert [record.id for record in left] == expected, predicate
        assert removed == len(records) - len(expected)
    await backend.close()
