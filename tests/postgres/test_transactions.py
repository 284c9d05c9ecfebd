"""Transactions: isolation, savepoints, locks, and what an error leaves."""

from __future__ import annotations

import asyncio

import pytest

from isthmus import AlreadyExistsError, BatchError, Record, UnsupportedError, field
from isthmus.errors import SerializationError, TransactionError, UnavailableError
from tests.postgres.databases import connected, opened

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


async def test_a_transaction_is_all_or_nothing_with_batches_in_it() -> None:
    """COPY, staged upserts and single writes are undone together, or kept together."""
    async with opened() as db:
        with pytest.raises(RuntimeError, match="stop"):
            async with db.transaction() as tx:
                ids = await tx.create_batch([{"n": n} for n in range(300)])
                await tx.upsert_batch([Record({"u": 1}, id=f"u{n}") for n in range(3_000)])
                await tx.update(ids[0], {"n": -1})
                assert await tx.count() == 3_300
                raise RuntimeError("stop")
        assert await db.count() == 0

        async with db.transaction() as tx:
            await tx.create_batch([{"n": n} for n in range(300)])
            await tx.upsert_batch([Record({"u": 1}, id=f"u{n}") for n in range(3_000)])
        assert await db.count() == 3_300


@pytest.mark.parametrize("size", [2, 500])
async def test_a_failed_batch_leaves_the_transaction_usable(size: int) -> None:
    """A clash undoes its own batch only, as a savepoint does."""
    async with opened() as db:
        await db.create(Record({}, id="x0"))
        async with db.transaction() as tx:
            await tx.create(Record({}, id="before"))
            with pytest.raises(BatchError) as caught:
                await tx.create_batch([Record({}, id=f"x{n}") for n in range(size)])
            with pytest.raises(AlreadyExistsError):
                await tx.create(Record({}, id="x0"))
            await tx.create(Record({}, id="after"))

        assert isinstance(caught.value.outcomes[0], AlreadyExistsError)
        assert {r.id for r in await db.search()} == {"x0", "before", "after"}


async def test_a_savepoint_undoes_its_part() -> None:
    """Leaving a nested transaction by an exception keeps what was before it."""
    async with opened() as db:
        async with db.transaction() as tx:
            await tx.create(Record({}, id="a"))
            with pytest.raises(RuntimeError):
                async with tx.savepoint():
                    await tx.create(Record({}, id="b"))
                    raise RuntimeError
            async with tx.savepoint():
                await tx.create(Record({}, id="c"))

        assert {r.id for r in await db.search()} == {"a", "c"}


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    """An OSError of the user's own code is not taken for the server's."""
    async with opened() as db:
        for error in (FileNotFoundError("mine"), TimeoutError("mine"), ConnectionResetError("mine")):
            with pytest.raises(type(error)) as caught:
                async with db.transaction() as tx:
                    await tx.create({"n": 1})
                    raise error
            assert caught.value is error
        assert await db.count() == 0


async def test_two_serializable_transactions_that_cross_are_run_again() -> None:
    """One of two gets a SerializationError; `db.run` repeats it, and no increment is lost."""
    async with opened() as db:
        await db.create(Record({"n": 0}, id="counter"))

        async def increment(tx: object) -> None:
            record = await tx.require("counter")  # type: ignore[attr-defined]
            await asyncio.sleep(0)
            await tx.update("counter", {"n": record.data["n"] + 1})  # type: ignore[attr-defined]

        await asyncio.gather(*(db.run(increment, isolation="serializable", attempts=50) for _ in range(4)))

        assert (await db.require("counter")).data == {"n": 4}


async def test_a_lost_race_is_a_serialization_error() -> None:
    """A repeatable-read transaction that writes what changed meanwhile is told to run again."""
    async with opened() as db:
        await db.create(Record({"n": 0}, id="x"))
        with pytest.raises(SerializationError) as caught:
            async with db.transaction(isolation="repeatable read") as tx:
                await tx.get("x")
                async with connected() as outside:
                    await outside.execute(f"""UPDATE {db.collection_name} SET data = '{{"n": 1}}'""")
                await tx.update("x", {"n": 2})

        assert caught.value.transient
        assert (await db.require("x")).data == {"n": 1}


async def test_a_read_only_transaction_refuses_writes() -> None:
    """And the pool serves on afterwards."""
    async with opened() as db:
        with pytest.raises((TransactionError, UnavailableError), match="read-only"):
            async with db.transaction(read_only=True) as tx:
                await tx.create({"n": 1})
        assert await db.create({"n": 1})
        with pytest.raises(UnsupportedError):
            async with db.transaction(isolation="chaos"):
                pass


async def test_for_update_holds_others_back() -> None:
    """Who locks a record first writes it first."""
    async with opened() as db:
        await db.create(Record({"n": 0}, id="x"))
        order: list[str] = []

        async def second(tx_open: asyncio.Event) -> None:
            await tx_open.wait()
            async with db.transaction() as tx:
                await tx.get("x", for_update=True)
                order.append("second")

        held = asyncio.Event()
        task = asyncio.create_task(second(held))
        async with db.transaction() as tx:
            await tx.get("x", for_update=True)
            held.set()
            async with connected() as outside:
                while not await outside.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.005)
            order.append("first")
        await task

        assert order == ["first", "second"]


async def test_tasks_that_share_a_transaction_queue() -> None:
    """Never "another operation is in progress"."""
    async with opened() as db:
        async with db.transaction() as tx:
            await asyncio.gather(*(tx.create({"n": n}) for n in range(50)))
            counts = await asyncio.gather(*(tx.count(field("n") >= 25) for _ in range(5)))
        assert counts == [25] * 5
        assert await db.count() == 50


async def test_a_consistent_stream_sees_one_moment() -> None:
    """Writes after its start are not seen; its connection goes back when it is left."""
    async with opened(pool={"min_size": 1, "max_size": 4}) as db:
        await db.create_batch([{"n": n} for n in range(100)])
        seen = 0
        async with db.stream(consistent=True, page_size=10) as records:
            async for _ in records:
                if seen == 5:
                    await db.create_batch([{"n": n} for n in range(100)])
                seen += 1
        assert seen == 100

        async with db.stream(consistent=True, page_size=10) as records:
            async for _ in records:
                break
        assert db.stats().pool.in_use == 0
        async with db.transaction() as tx:
            assert len([r async for r in tx.stream(consistent=True, page_size=30)]) == 200


async def test_transactions_that_first_use_a_collection_may_hold_the_whole_pool() -> None:
    """Its table is created on a connection that is not the pool's."""
    async with opened(pool={"max_size": 4, "timeout": 3}) as db:
        orders = db.collection(f"{db.collection_name}_orders")

        async def order(number: int) -> None:
            async with db.transaction() as tx:
                await tx.collection(orders.collection_name).create({"n": number})

        try:
            await asyncio.gather(*(order(number) for number in range(12)))
            assert await orders.count() == 12
        finally:
            await db.drop_collection(orders.collection_name)
