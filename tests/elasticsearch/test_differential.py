"""Every answer is the evaluator's, however the records disagree with the index."""

from __future__ import annotations

import os
from typing import Any

import pytest

from isthmus._core.executor import AggregateRequest, Mutation, PageRequest, WriteKind
from isthmus._core.op import Aggregate, Count, Fetch
from isthmus._core.stack import Stack
from isthmus._path import Path
from isthmus._query.aggregate import Groups, Key
from isthmus._query.ast import Function, Measure, Predicate, SortKey
from isthmus._query.evaluate import matches
from isthmus._query.order import sort_records
from isthmus._record import Record
from isthmus._values import kind_of
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.layers.plan import Plan
from tests.elasticsearch.conftest import Build
from tests.elasticsearch.made_up import Maker

pytestmark = pytest.mark.backend("elasticsearch")
QUERIES = int(os.environ.get("ISTHMUS_ES_QUERIES", "150"))
CHANCE = 4  # the workers of one run have to agree on the tests; another by ISTHMUS_ES_SEED


class Check:
    """A backend below the core's planner, and the same records in memory."""

    def __init__(self, backend: ElasticsearchBackend, records: list[Record], maker: Maker) -> None:
        self._stack = Stack([Plan(backend)], backend)
        self._index = backend.default_collection
        self._records = records
        self._maker = maker
        self.asked: object = None

    def matching(self, where: Predicate) -> list[Record]:
        return [record for record in self._records if matches(where, record)]

    async def count(self, where: Predicate) -> tuple[Any, Any]:
        tally = await self._stack.run(Count(self._index, where))
        return tally.count, len(self.matching(where))

    async def pages(self, where: Predicate, order: tuple[SortKey, ...] | None) -> tuple[Any, Any]:
        size = self._maker.random.choice([1, 7, 60, 5_000])
        got: list[str | None] = []
        after = None
        while True:
            page = await self._stack.run(Fetch(self._index, PageRequest(where, order, size, after)))
            got += [record.id for record in page.records]
            after = page.after
            if after is None:
                break
        if order is None:
            return sorted(map(str, got)), sorted(str(record.id) for record in self.matching(where))
        return got, [record.id for record in sort_records(self.matching(where), order)]

    async def skipped(self, where: Predicate, order: tuple[SortKey, ...]) -> tuple[Any, Any]:
        size, skip = self._maker.random.choice([1, 10, 1_000]), self._maker.random.choice([0, 3, 50])
        page = await self._stack.run(Fetch(self._index, PageRequest(where, order, size, offset=skip)))
        wanted = sort_records(self.matching(where), order)[skip : skip + size]
        return [record.id for record in page.records], [record.id for record in wanted]

    async def aggregate(self, where: Predicate) -> tuple[Any, Any]:
        pick = self._maker.random
        measures = (
            *(Measure(f"m{at}", pick.choice(list(Function)), self._maker.path()) for at in range(2)),
            Measure("records", Function.COUNT),
        )
        by = tuple(self._maker.path() for _ in range(pick.randrange(3)))
        groups = Groups(measures)
        for record in self.matching(where):
            groups.add_record(record, by)
        answer = await self._stack.run(Aggregate(self._index, AggregateRequest(where, measures, by)))
        self.asked = (measures, by)
        return rows(answer.groups, by), rows(groups, by)


def rows(groups: Groups, by: tuple[Path, ...]) -> list[tuple[Key, list[Any]]]:
    """Return finished rows with values that compare as the contract says."""
    return [
        (tuple(map(Near, key)), list(map(Near, values)))  # type: ignore[misc]
        for key, values in groups.rows(by)
    ]


class Near:
    """A value equal to another of its type; numbers within 1e-12 if one is a float."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Near)
        a, b = self.value, other.value
        if kind_of(a) != kind_of(b):
            return False
        if isinstance(a, float) or isinstance(b, float):
            return bool(a == b or abs(a - b) <= 1e-12 * max(abs(a), abs(b)) or (a != a and b != b))
        return bool(a == b)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.value)


@pytest.mark.breadth(4)
@pytest.mark.asyncio
@pytest.mark.parametrize("seed", [1, 2, 3, int(os.environ.get("ISTHMUS_ES_SEED", CHANCE))])
async def test_random_queries_answer_as_the_evaluator_does(build: Build, seed: int) -> None:
    """Types that disagree, huge integers, long text, lists, odd keys; filters, orders, aggregates."""
    print(f"seed {seed}")
    maker = Maker(seed)
    pick = maker.random
    backend = build()
    index = backend.default_collection
    changes = [
        Mutation(f"{pick.choice('abXé/')}{at}", maker.data(), {"source": maker.scalar()} if at % 2 else None)
        for at in range(200)
    ]
    for at in range(0, len(changes), 50):
        results = await backend.write(index, WriteKind.CREATE, changes[at : at + 50], atomic=False)
        assert results == [change.id for change in changes[at : at + 50]]
    records = await backend.read(index, [change.id for change in changes])
    for change, record in zip(changes, records, strict=True):
        assert record is not None
        assert record.data == change.data
        assert record.metadata == (change.metadata or {})
    check = Check(backend, [record for record in records if record is not None], maker)
    found = 0

    for number in range(QUERIES):
        where, order = maker.predicate(), maker.order()
        match pick.randrange(5):
            case 0:
                got, wanted = await check.count(where)
            case 1:
                got, wanted = await check.pages(where, order)
            case 2:
                got, wanted = await check.pages(where, None)
            case 3:
                got, wanted = await check.skipped(where, order)
            case _:
                got, wanted = await check.aggregate(where)
        assert got == wanted, f"seed {seed}, query {number}: {where} {order} {check.asked}"
        found += bool(wanted)

    assert found > QUERIES / 5
