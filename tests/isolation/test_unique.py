"""Values of unique fields between transactions: a claim waits until it is known who has the value."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

import pytest

from isthmus import AlreadyExistsError, AsyncDatabase, ConfigError, Record, SerializationError
from isthmus._unique import declare_unique
from tests.stores import store_of

pytestmark = [pytest.mark.asyncio, pytest.mark.parametrize("name", ["memory", "postgres"])]
NEVER = 0.05


def _apart(call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Run a call outside of the transaction of this task."""
    return asyncio.get_running_loop().create_task(call, context=contextvars.Context())


async def _waits(task: asyncio.Task[Any]) -> None:
    done, _ = await asyncio.wait([task], timeout=NEVER)
    assert not done


@pytest.mark.parametrize("commits", [True, False])
async def test_a_claim_waits_for_the_transaction_that_has_the_value(name: str, commits: bool) -> None:
    """It is refused if that commits, and wins if it is rolled back."""
    async with store_of(name).fresh() as db:
        await declare_unique(db, ["email"])
        try:
            async with db.transaction() as tx:
                await tx.create(Record({"email": "x"}, id="a"))
                other = _apart(db.create(Record({"email": "x"}, id="b")))
                await _waits(other)
                assert await _apart(db.create({"email": "y"}))
                if not commits:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass

        if commits:
            with pytest.raises(AlreadyExistsError) as refused:
                await other
            assert (refused.value.field, refused.value.record_id) == ("email", "a")
        else:
            assert await other == "b"


async def test_a_value_that_is_given_up_is_free_when_that_is_committed(name: str) -> None:
    """The claim waits; the value goes from one record to the other."""
    async with store_of(name).fresh() as db:
        await declare_unique(db, ["email"])
        await db.create(Record({"email": "x"}, id="a"))

        async with db.transaction() as tx:
            await tx.update("a", {"email": "z"})
            other = _apart(db.create(Record({"email": "x"}, id="b")))
            await _waits(other)

        assert await other == "b"
        with pytest.raises(AlreadyExistsError):
            await db.update("a", {"email": "x"})


async def test_two_that_claim_each_other_s_value_are_a_deadlock(name: str) -> None:
    """One of them fails and may be repeated; the other goes on."""
    async with store_of(name).fresh() as db:
        await declare_unique(db, ["email"])
        ready, results = asyncio.Barrier(2), []

        async def claim(first: str, second: str) -> None:
            try:
                async with db.transaction() as tx:
                    await tx.create({"email": first})
                    await ready.wait()
                    await tx.create({"email": second})
            except (SerializationError, AlreadyExistsError) as error:
                results.append(type(error))

        await asyncio.gather(claim("x", "y"), claim("y", "x"))

        assert results == [SerializationError]
        assert await db.count() == 2


async def test_a_rolled_back_savepoint_gives_its_values_back(name: str) -> None:
    """To the same transaction too; what was claimed before it stays."""
    async with store_of(name).fresh() as db:
        await declare_unique(db, ["email"])
        async with db.transaction() as tx:
            await tx.create(Record({"email": "x"}, id="a"))
            with pytest.raises(ZeroDivisionError):
                async with db.transaction():
                    await tx.update("a", {"email": "z"})
                    await tx.create({"email": "x"})
                    raise ZeroDivisionError
            with pytest.raises(AlreadyExistsError):
                await tx.create({"email": "x"})
            await tx.create({"email": "z"})

        assert sorted(record["email"] for record in await db.search()) == ["x", "z"]


async def test_a_declaration_waits_for_open_transactions(name: str) -> None:
    """What they have written counts when they are committed."""
    async with store_of(name).fresh() as db:
        await db.create({"email": "first"})
        async with db.transaction() as tx:
            await tx.create_batch([{"email": "x"}, {"email": "x"}])
            declaring = _apart(declare_unique(db, ["email"]))
            await _waits(declaring)

        with pytest.raises(ConfigError, match="x"):
            await declaring


async def test_runs_that_claim_a_value_are_as_one_after_another(name: str) -> None:
    """`db.run` repeats; one run gets the value and the others see who has it."""
    async with store_of(name).fresh() as db:
        await declare_unique(db, ["email"])

        seen: list[bool] = []

        async def claim(number: int) -> bool:
            async def work(tx: Any) -> bool:
                try:
                    await tx.create(Record({"email": "x"}, id=f"r{number}"))
                except AlreadyExistsError as error:
                    seen.append(error.record_id is None or await tx.exists(error.record_id))
                    return False
                return True

            return await db.run(work)

        assert sum(await asyncio.gather(*(_apart(claim(number)) for number in range(8)))) == 1
        assert all(seen)


async def test_a_dropped_collection_is_unique_by_its_config_only(name: str) -> None:
    """Its declarations go with it; those of the config come back with the next write."""
    store = store_of(name)
    settings = {**store.config, **({"url": store.url} if store.url else {})}
    async with AsyncDatabase(name, {**settings, "table": "test_unique_drop", "unique": ["email"]}) as db:
        await declare_unique(db, ["name"])
        await db.create({"email": "x", "name": "n"})
        await db.drop_collection("test_unique_drop")

        await db.create_batch([{"email": "x", "name": "n"}, {"email": "y", "name": "n"}])
        with pytest.raises(AlreadyExistsError):
            await db.create({"email": "x"})
        await db.drop_collection("test_unique_drop")
