"""A table that another handle drops: reads find nothing, the next write creates it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, ConfigError, Record, field
from tests.postgres.databases import connected, fresh_name, opened, url

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


@pytest_asyncio.fixture(params=["asyncpg", "psycopg"])
async def db(request: pytest.FixtureRequest) -> AsyncIterator[AsyncDatabase]:
    """A handle with ten records whose table somebody else has dropped since."""
    async with opened(driver=request.param, indexes=["n"]) as db:
        await db.create_batch([Record({"n": n}, id=f"r{n}") for n in range(10)])
        assert await db.count() == 10
        assert await db.get("r1") is not None
        other = await AsyncDatabase.create("postgres", {"url": url(), "table": fresh_name()})
        await other.drop_collection(db.collection_name)
        await other.drop_collection(other.collection_name)
        await other.close()
        yield db


async def test_reads_of_a_dropped_collection_find_nothing(db: AsyncDatabase) -> None:
    """Empty pages, a count of 0, None; never an error."""
    assert await db.get("r1") is None
    assert await db.get_batch(["r1", "r2"]) == [None, None]
    assert not await db.exists("r1")
    assert await db.search(field("n") >= 0) == []
    assert await db.count() == await db.count(field("n") == 1) == 0
    assert [record async for record in db.stream()] == []
    async with db.stream(consistent=True) as records:
        assert [record async for record in records] == []
    assert await db.aggregate(n="count") == [{"n": 0}]
    assert "SELECT" in str(await db.explain(field("n") == 1))


WRITES: dict[str, Callable[[AsyncDatabase], Awaitable[object]]] = {
    "create": lambda db: db.create(Record({"n": 1}, id="new")),
    "upsert": lambda db: db.upsert(Record({"n": 1}, id="new")),
    "upsert with creates": lambda db: db.upsert_batch(
        [Record({"n": 1}, id="new"), Record({"n": 1}, id="new")]
    ),
    "create_batch": lambda db: db.create_batch([Record({"n": 1}, id="new")]),
    "copy": lambda db: db.create_batch([Record({"n": n}, id=f"new{n}" if n else "new") for n in range(200)]),
    "staged": lambda db: db.upsert_batch(
        [Record({"n": n}, id=f"new{n}" if n else "new") for n in range(2_100)]
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_a_write_creates_a_dropped_collection_again(
    db: AsyncDatabase, write: Callable[[AsyncDatabase], Awaitable[object]]
) -> None:
    """Its table and its indexes, and the write is repeated: nothing of it was applied."""
    await write(db)

    assert await db.get("new") is not None
    assert await db.get("r1") is None
    async with connected() as outside:
        indexes = await outside.fetchval(
            "SELECT count(*) FROM pg_indexes WHERE tablename = $1", db.collection_name
        )
    assert indexes == 4  # the primary key, numbers, texts, other types


async def test_a_deletion_from_a_dropped_collection_deletes_nothing(db: AsyncDatabase) -> None:
    """As from one that is empty."""
    assert await db.delete("r1") is False
    assert await db.delete_where(field("n") >= 0) == 0


async def test_concurrent_writes_create_a_dropped_collection_once(db: AsyncDatabase) -> None:
    """Every caller's record is written."""
    ids = await asyncio.gather(*(db.create({"n": n}) for n in range(40)), db.upsert(Record({}, id="u")))

    assert await db.count() == len(ids)


async def test_a_transaction_creates_a_collection_that_was_found_dropped(db: AsyncDatabase) -> None:
    """The table is looked up before the transaction's first statement on it, which would abort it."""
    assert await db.count() == 0

    async with db.transaction() as tx:
        await tx.create(Record({"n": 1}, id="new"))
        assert await tx.count() == 1

    assert await db.count() == 1


async def test_a_transaction_on_a_table_dropped_unnoticed_fails_clearly(db: AsyncDatabase) -> None:
    """Nothing can be repeated inside of an aborted transaction; the next one succeeds."""
    with pytest.raises(ConfigError, match="dropped"):
        async with db.transaction() as tx:
            await tx.create(Record({"n": 1}, id="new"))

    assert await db.count() == 0
    async with db.transaction() as tx:
        await tx.create(Record({"n": 1}, id="new"))
    assert await db.count() == 1


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_a_transaction_may_be_the_first_to_use_a_collection(isolation: str) -> None:
    """Its table is created on another connection, and stays although the transaction is rolled back."""
    name = fresh_name()
    async with opened() as db:
        with pytest.raises(ZeroDivisionError):
            async with db.transaction(isolation=isolation) as tx:
                await tx.create({"n": 1})
                await tx.collection(name).create(Record({"n": 1}, id="a"))
                assert await tx.collection(name).count() == 1
                raise ZeroDivisionError

        assert await db.count() == await db.collection(name).count() == 0
        await db.drop_collection(name)


async def test_a_pool_of_one_connection_is_enough_for_a_transaction_on_new_collections() -> None:
    """A missing table is created on a connection of its own, one that exists is looked up."""
    name = fresh_name()
    async with opened(pool={"min_size": 0, "max_size": 1, "timeout": 0.2}) as db:
        async with db.transaction() as tx:
            await tx.collection(name).create({"n": 1})
        assert await db.collection(name).count() == 1
        await db.drop_collection(name)

        async with opened() as other:
            async with db.transaction() as tx:
                await tx.collection(other.collection_name).create({"n": 1})
            assert await other.count() == 1
