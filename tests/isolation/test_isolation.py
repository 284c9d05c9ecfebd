"""The page's table of isolation levels is what the servers do, and memory does what PostgreSQL does."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars

import pytest

import sqlalchemy
from isthmus import AsyncDatabase, Record, Transaction, field, native
from isthmus.errors import PoolTimeoutError, SerializationError, TransactionError
from tests.isolation.table import LEVELS, STORES, levels_of, row, rows_of_page, try_level
from tests.stores import store_of

pytestmark = pytest.mark.asyncio

PARAMETERS = [
    pytest.param(
        name, marks=[pytest.mark.backend(store), *([pytest.mark.breadth(2)] if store == "postgres18" else [])]
    )
    for name, (store, _) in STORES.items()
]


@pytest.mark.parametrize("name", PARAMETERS)
async def test_each_level_admits_what_the_page_says(name: str) -> None:
    """Ten interleavings at each level; `python -m tests.isolation` writes the page's table."""
    tried = [row(name, level, await try_level(name, level)) for level in await levels_of(name)]

    assert tried == [line for line in rows_of_page() if line.startswith(f"| {name} |")]


async def test_memory_admits_what_postgres_admits() -> None:
    """Line by line, as the test above has compared the page with both."""
    lines = [line.split(" | ", 1) for line in rows_of_page()]
    of_store = {name: [rest for head, rest in lines if head == f"| {name}"] for name in STORES}

    assert of_store["memory"] == of_store["PostgreSQL 15"] == of_store["PostgreSQL 18"]
    assert len(of_store["memory"]) == len(LEVELS)


@pytest.mark.parametrize("name", ["memory", "postgres", "postgres-psycopg", "sqlalchemy-postgres"])
async def test_a_conflict_that_is_caught_commits_nothing(name: str) -> None:
    """The store has undone all of it, or must: the transaction says so when it ends."""
    async with store_of(name).fresh() as db:
        await db.create_batch([Record({"n": 0}, id="a"), Record({"n": 0}, id="b")])

        with pytest.raises(SerializationError):
            async with db.transaction(isolation="repeatable read") as tx:
                await tx.update("b", {"n": 1})
                await _elsewhere(db, "a", 5)
                with pytest.raises(SerializationError):
                    await tx.update("a", {"n": 1})
                with pytest.raises(TransactionError):
                    await tx.update("b", {"n": 2})

        assert [record["n"] for record in await db.search()] == [5, 0]


@pytest.mark.parametrize("name", ["postgres", "postgres-psycopg", "sqlalchemy-postgres"])
async def test_an_error_that_is_caught_is_no_commit(name: str) -> None:
    """PostgreSQL answers COMMIT with a rollback, which the drivers do not report: nothing would be stored."""
    async with store_of(name).fresh() as db:
        with pytest.raises(TransactionError, match="savepoint"):
            async with db.transaction() as tx:
                await tx.create({"n": 1})
                with contextlib.suppress(Exception):
                    await _run_sql(db, tx, "SELECT 1 / 0")

        assert await db.count() == 0


async def _run_sql(db: AsyncDatabase, tx: Transaction, text: str) -> None:
    if db.backend == "sqlalchemy":
        connection = await native.sqlalchemy(tx)
        await connection.execute(sqlalchemy.text(text))
    else:
        await (await native.postgres(tx)).execute(text)


@pytest.mark.parametrize("name", ["memory", "postgres"])
async def test_a_conflict_in_a_savepoint_is_undone_with_it(name: str) -> None:
    """What came before it can be committed."""
    async with store_of(name).fresh() as db:
        await db.create_batch([Record({"n": 0}, id="a"), Record({"n": 0}, id="b")])

        async with db.transaction(isolation="repeatable read") as tx:
            await tx.update("b", {"n": 1})
            await _elsewhere(db, "a", 5)
            with pytest.raises(SerializationError):
                async with tx.savepoint():
                    await tx.update("a", {"n": 1})

        assert [record["n"] for record in await db.search()] == [5, 1]


@pytest.mark.parametrize("name", ["memory", "postgres"])
async def test_writers_wait_and_look_again_at_what_they_waited_for(name: str) -> None:
    """At read committed, `delete_where` and a search for update evaluate the record after the wait."""
    async with store_of(name).fresh() as db:
        await db.create_batch([Record({"n": n}, id=str(n)) for n in range(3)])
        held, release = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with db.transaction() as tx:
                await tx.update("1", {"n": 7})
                held.set()
                await release.wait()

        async def lock_small() -> list[str | None]:
            async with db.transaction() as tx:
                return [record.id for record in await tx.search(field("n") < 5, for_update=True)]

        holder = asyncio.create_task(hold(), context=contextvars.Context())
        await held.wait()
        deleting = asyncio.create_task(db.delete_where(field("n") == 1), context=contextvars.Context())
        locking = asyncio.create_task(lock_small(), context=contextvars.Context())
        await asyncio.sleep(0.2)
        assert not deleting.done()
        assert not locking.done()
        release.set()

        await holder
        assert await deleting == 0
        assert await locking == ["0", "2"]


async def test_a_circle_of_waits_ends_for_one_of_them() -> None:
    """In memory it is found when it would close; the others go on."""
    async with store_of("memory").fresh() as db:
        await db.create_batch([Record({"n": 0}, id=id) for id in "abc"])
        met = asyncio.Barrier(3)

        async def cross(first: str, second: str) -> None:
            async with db.transaction() as tx:
                await tx.update(first, {"n": 1})
                await met.wait()
                await tx.update(second, {"n": 1})

        pairs = [("a", "b"), ("b", "c"), ("c", "a")]
        tasks = [asyncio.create_task(cross(*pair), context=contextvars.Context()) for pair in pairs]
        results = await asyncio.gather(*tasks, return_exceptions=True)

        assert sorted(type(result).__name__ for result in results) == [
            "NoneType", "NoneType", "SerializationError",
        ]  # fmt: skip
        assert await db.count(field("n") == 1) == 3


async def test_memory_waits_for_a_lock_as_long_as_its_timeout() -> None:
    """Then the error names the task that holds the record; others records can be written meanwhile."""
    async with await AsyncDatabase.create("memory", {"timeout": 0.05}) as db:
        await db.create_batch([Record({"n": 0}, id="a"), Record({"n": 0}, id="b")])
        async with db.transaction() as tx:
            await tx.update("a", {"n": 1})
            with pytest.raises(PoolTimeoutError, match="Task-"):
                await _elsewhere(db, "a", 2)
            await _elsewhere(db, "b", 2)

        await _elsewhere(db, "a", 3)
        assert [record["n"] for record in await db.search()] == [3, 2]


async def _elsewhere(db: AsyncDatabase, id: str, n: int) -> None:
    """Update a record as another user of the store would."""
    await asyncio.create_task(db.update(id, {"n": n}), context=contextvars.Context())


def _add_in_a_loop_of_its_own(db: AsyncDatabase, times: int) -> None:
    async def add(tx: Transaction) -> None:
        await tx.update("a", {"n": (await tx.require("a"))["n"] + 1})

    async def run() -> None:
        await asyncio.gather(*(db.run(add) for _ in range(times)))

    asyncio.run(run())


async def test_runs_of_several_threads_lose_no_update_in_memory() -> None:
    """Locks and their queues work across event loops: a waiter wakes on its own."""
    async with store_of("memory").fresh() as db:
        await db.create(Record({"n": 0}, id="a"))

        await asyncio.gather(*(asyncio.to_thread(_add_in_a_loop_of_its_own, db, 25) for _ in range(4)))

        assert (await db.require("a")).data == {"n": 100}


async def test_waiters_that_give_up_leave_the_lock_to_the_others() -> None:
    """A cancelled one is out of the queue, also if the lock was granted to it just then."""
    async with store_of("memory").fresh() as db:
        await db.create(Record({"n": 0}, id="a"))
        for turn in range(20):
            async with db.transaction() as tx:
                await tx.update("a", {"n": -1})
                waiting = [
                    asyncio.create_task(db.update("a", {"n": n}), context=contextvars.Context())
                    for n in range(5)
                ]
                await asyncio.sleep(0)
                if turn % 2:
                    waiting[0].cancel()
            waiting[1].cancel()
            results = await asyncio.gather(*waiting, return_exceptions=True)

            assert sum(isinstance(result, str) for result in results) >= 3
            assert (await db.require("a"))["n"] == 4
