"""Single calls that come together are one statement; each caller has its own outcome."""

from __future__ import annotations

import asyncio

import pytest

from isthmus import AlreadyExistsError, InvalidRecordError, Record
from isthmus.backends.postgres.coalesce import Coalescer
from isthmus.errors import UnavailableError, UnexpectedError
from tests.postgres.databases import opened

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


async def test_fifty_tasks_share_statements() -> None:
    """Gets and creates of one turn take a few connections, not fifty."""
    async with opened(pool={"min_size": 1, "max_size": 10, "timeout": 5}) as db:
        before = db.stats().pool.acquired

        ids = await asyncio.gather(*(db.create({"n": n}) for n in range(200)))
        records = await asyncio.gather(*(db.get(id) for id in ids))

        assert [record.data["n"] for record in records if record is not None] == list(range(200))
        assert db.stats().pool.acquired - before <= 12


async def test_two_creates_of_one_id_have_one_winner() -> None:
    """In one merged statement as elsewhere the second is refused."""
    async with opened() as db:
        outcomes = await asyncio.gather(
            *(db.create(Record({"n": n}, id="same")) for n in range(20)), return_exceptions=True
        )

        assert outcomes.count("same") == 1
        assert sum(isinstance(o, AlreadyExistsError) for o in outcomes) == 19
        assert await db.count() == 1


async def test_an_invalid_record_is_its_callers_alone() -> None:
    """The others of the same turn are written."""
    async with opened() as db:
        outcomes = await asyncio.gather(
            *(db.create({"n": "a\0b" if n == 7 else n}) for n in range(20)), return_exceptions=True
        )

        assert isinstance(outcomes[7], InvalidRecordError)
        assert sum(isinstance(o, str) for o in outcomes) == 19 == await db.count()


async def test_cancelling_one_caller_leaves_the_others_alone() -> None:
    """A merged statement belongs to nobody's task."""
    async with opened() as db:
        tasks = [asyncio.ensure_future(db.create({"n": n})) for n in range(30)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()

        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

        done = [o for o in outcomes if isinstance(o, str)]
        assert len(done) == 20
        assert all(record is not None for record in await db.get_batch(done))


class _Runs:
    """A statement that fails as told, and remembers what it was asked."""

    def __init__(self, failing: set[int], error: Exception) -> None:
        self.failing = failing
        self.error = error
        self.calls: list[list[int]] = []

    async def __call__(self, items: list[int]) -> list[int]:
        self.calls.append(list(items))
        await asyncio.sleep(0)
        if self.failing & set(items):
            raise self.error
        return [item * 10 for item in items]


async def test_a_group_that_fails_is_run_one_by_one() -> None:
    """What the server refuses of one item must not be the fate of the others."""
    runs = _Runs({3}, UnexpectedError("refused"))
    merged: Coalescer[int, int] = Coalescer(runs)  # type: ignore[arg-type]

    outcomes = await asyncio.gather(*(merged(n) for n in range(6)), return_exceptions=True)

    assert [o for o in outcomes if isinstance(o, int)] == [0, 10, 20, 40, 50]
    assert isinstance(outcomes[3], UnexpectedError)
    assert runs.calls[:2] == [[0], [1, 2, 3, 4, 5]]


async def test_an_outage_is_not_tried_again_for_each_item() -> None:
    """Each caller gets an error of its own, at once."""
    runs = _Runs({1}, UnavailableError("gone"))
    merged: Coalescer[int, int] = Coalescer(runs)  # type: ignore[arg-type]

    outcomes = await asyncio.gather(*(merged(n) for n in range(4)), return_exceptions=True)

    errors = [o for o in outcomes if isinstance(o, UnavailableError)]
    assert len(errors) == 3 == len({id(error) for error in errors})
    assert runs.calls == [[0], [1, 2, 3]]
