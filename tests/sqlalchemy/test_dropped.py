"""A collection that was dropped through another engine, as by another process."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import ConfigError, NotFoundError
from tests.servers import server

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlalchemy")]
Pair: TypeAlias = tuple[AsyncDatabase, AsyncDatabase]


@pytest.fixture(params=["mariadb", "postgres", "sqlite"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Return the config of a new collection on each database."""
    if request.param == "sqlite":
        url = f"sqlalchemy+sqlite+aiosqlite:///{tmp_path / 'd.db'}"
    else:
        url = server(request.param).url.replace("postgresql://", "sqlalchemy+postgresql+asyncpg://")
    return {"url": url, "table": f"t_{secrets.token_hex(6)}"}


@pytest_asyncio.fixture
async def pair(settings: dict[str, Any]) -> AsyncIterator[Pair]:
    """Return two handles on one collection of two records, each with an engine of its own."""
    async with (
        await AsyncDatabase.create("sqlalchemy", settings) as first,
        await AsyncDatabase.create("sqlalchemy", {**settings, "pool": {"size": 3}}) as second,
    ):
        await first.create_batch([Record({"age": n}, id=f"r{n}") for n in range(2)])
        assert await second.count() == 2
        yield first, second
        await first.drop_collection(settings["table"])


async def test_reads_find_nothing_and_the_next_write_creates_it(pair: Pair) -> None:
    """Each kind of read; a create, and as often as it is dropped."""
    first, second = pair
    for number in range(3):
        await first.drop_collection(first.collection_name)

        assert await second.get("r1") is None
        assert await second.get_batch(["r0", "r1"]) == [None, None]
        assert await second.search(Query().filter("age", ">=", 0).sort("age")) == []
        assert await second.count() == 0
        assert await second.count(field("age") == 1) == 0
        assert [record async for record in second.stream()] == []
        assert await second.aggregate(by="age", n="count") == []
        assert (await second.explain(field("age") == 1)).native
        assert await second.delete_where(field("age") == 1) == 0
        assert await second.clear() == 0
        assert second.collection_name not in await second.collections()

        assert await second.create_batch([Record({"age": number}, id=id) for id in "ab"]) == ["a", "b"]
        assert await first.count() == 2


@pytest.mark.parametrize("call", ["replace", "update", "upsert", "delete"])
async def test_other_writes_create_it_too(pair: Pair, call: str) -> None:
    """They find no record in it."""
    first, second = pair
    await first.drop_collection(first.collection_name)

    if call == "delete":
        assert await second.delete("r1") is False
    elif call == "upsert":
        await second.upsert("r1", {})
    else:
        outcomes = await getattr(second, f"{call}_batch")([("r1", {})], on_error="collect")
        assert isinstance(outcomes[0], NotFoundError)

    assert second.collection_name in await second.collections()


async def test_transactions_find_nothing_and_write_again(pair: Pair) -> None:
    """A transaction that read nothing goes on; its writes are there at commit."""
    first, second = pair
    await first.drop_collection(first.collection_name)

    async with second.transaction() as transaction:
        assert await transaction.get("r1") is None
        assert await transaction.count() == 0
        await transaction.create(Record({"age": 7}, id="a"))
        assert await transaction.count(field("age") == 7) == 1
        await transaction.create_batch([Record({"age": 8}, id=id) for id in "bc"])

    assert sorted([record.id async for record in first.stream()]) == ["a", "b", "c"]


async def test_a_transaction_may_begin_with_a_write(pair: Pair) -> None:
    """The table is created and the write repeated, inside the transaction."""
    first, second = pair
    await first.drop_collection(first.collection_name)

    async with second.transaction() as transaction:
        await transaction.upsert("a", {"age": 7})

    assert (await first.require("a")).data == {"age": 7}


async def test_it_is_not_created_where_the_config_forbids_it(pair: Pair, settings: dict[str, Any]) -> None:
    """`create_table` false: reads find nothing, a write is a ConfigError."""
    first, _ = pair
    strict = {**settings, "create_table": False, "pool": {"size": 4}}
    async with await AsyncDatabase.create("sqlalchemy", strict) as third:
        await first.drop_collection(first.collection_name)

        assert await third.count() == 0
        with pytest.raises(ConfigError, match="create_table"):
            await third.create({"age": 1})
        await first.create({"age": 1})
        assert await third.count() == 1
