"""A write whose response was lost: the repeated one finds its own version and knows."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from isthmus import AlreadyExistsError, AsyncDatabase, ConflictError, Record, UnavailableError
from isthmus.testing.proxy import Fault, FaultProxy
from tests.postgres.databases import fresh_name, url

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


@pytest.mark.parametrize("verb", ["replace", "update", "upsert"])
async def test_a_lost_response_of_a_write_at_a_version_is_resolved(verb: str) -> None:
    """Also where the statement was prepared before, so that it was the execution whose response was lost."""
    parts = urlsplit(url())
    assert parts.hostname is not None
    assert parts.port is not None
    with FaultProxy(parts.hostname, parts.port) as proxy:
        settings = {"url": proxy.through(url()), "table": fresh_name(), "layers": {"retry": {"attempts": 3}}}
        async with await AsyncDatabase.create("postgres", settings) as db:
            await db.upsert("a", {"n": 0})
            for number in range(3):
                before = await db.require("a")
                if number:
                    proxy.inject(Fault.LOSE_ANSWER, times=1)
                version = await getattr(db, verb)("a", {"n": number}, if_version=before.version)
                proxy.heal()
                after = await db.require("a")
                assert (after.version, after.data) == (version, {"n": number})
                with pytest.raises(ConflictError):
                    await getattr(db, verb)("a", {"n": -1}, if_version=before.version)
            assert proxy.fired(Fault.LOSE_ANSWER) == 2
            await db._backend.drop(db.collection_name)


@pytest.mark.parametrize("unique", [[], ["n"]])
async def test_a_lost_response_of_a_create_with_an_id_is_resolved(unique: list[str]) -> None:
    """Of a prepared statement, too; a record that was there before is still refused."""
    parts = urlsplit(url())
    assert parts.hostname is not None
    assert parts.port is not None
    with FaultProxy(parts.hostname, parts.port) as proxy:
        settings = {"url": proxy.through(url()), "table": fresh_name(), "layers": {"retry": {"attempts": 3}}}
        async with await AsyncDatabase.create("postgres", {**settings, "unique": unique}) as db:
            for number in range(3):
                if number:
                    proxy.inject(Fault.LOSE_ANSWER, times=1)
                assert await db.create(Record({"n": number}, id=f"r{number}")) == f"r{number}"
                proxy.heal()
            assert proxy.fired(Fault.LOSE_ANSWER) == 2
            proxy.inject(Fault.LOSE_ANSWER, times=1)
            with pytest.raises((AlreadyExistsError, UnavailableError)):
                await db.create(Record({"n": 9}, id="r1"))
            proxy.heal()
            assert (await db.require("r1")).data == {"n": 1}
            await db._backend.drop(db.collection_name)
