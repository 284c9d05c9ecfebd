"""What followers of changes get when a PostgreSQL primary is lost and its standby promoted (meaning §10)."""

from __future__ import annotations

import asyncio

import pytest

from isthmus import AsyncDatabase, Change, ChangesExpiredError, ChangeStream, IsthmusError, Record
from tests.postgres.databases import connected, url
from tests.servers.postgres import PostgresServer, StandbyServer


@pytest.mark.asyncio
@pytest.mark.timeout(240)
@pytest.mark.backend("postgres")
@pytest.mark.parametrize("synchronous", [pytest.param(True, marks=pytest.mark.breadth(2)), False])
async def test_a_follower_finds_the_new_primary_as_it_is(synchronous: bool) -> None:
    """Positions expire at the promotion; from the start comes all that the standby has, and what follows.

    With a synchronous standby nothing is lost that returned; else the follower had been given more.
    """
    url()  # skips without PostgreSQL
    with PostgresServer(config={"synchronous_commit": "on"}) as primary, StandbyServer(primary) as standby:
        async with await _open(primary, changes=True) as db:
            await db.upsert("first", {"n": 0})
            await _replay(primary, standby)  # a standby without the table cannot be opened
            async with await _open(standby) as copy, db.changes(since="start", poll=0.05) as source:
                [first] = await source.read()
                await _wait_for(copy, "first")
                if synchronous:
                    await _configure(primary, "synchronous_standby_names", "standby")
                else:
                    await _configure(standby, "primary_conninfo", "")
                # The standby by the primary's position, which is the same history still.
                async with copy.changes(since=first.position, poll=0.05) as follower:
                    written = [f"r{number}" for number in range(30)]
                    for id in written:
                        await db.upsert(id, {})
                    assert {change.id for change in await _read_all(source)} == set(written)
                    if synchronous:
                        await _wait_for(copy, written[-1])
                        assert {change.id for change in await _read_all(follower)} == set(written)
                    primary.kill()
                    with pytest.raises(IsthmusError) as caught:
                        await source.read()
                    assert not isinstance(caught.value, ChangesExpiredError)
                    standby.promote()

                    for position in (source.position, follower.position, first.position):
                        with pytest.raises(ChangesExpiredError):
                            await copy.changes(since=position or "").read()
                    with pytest.raises(ChangesExpiredError):
                        await follower.read()
                async with copy.changes(since="start", poll=0.05) as again:
                    there = {change.id for change in await _read_all(again)}
                    assert there == ({"first", *written} if synchronous else {"first"})
                    await copy.upsert("new", {})
                    [change] = await again.read()
                    assert change.id == "new"


async def _open(server: PostgresServer, **settings: bool) -> AsyncDatabase:
    return await AsyncDatabase.create("postgres", {"url": server.url, "table": "t", **settings})


async def _replay(primary: PostgresServer, standby: StandbyServer) -> None:
    """Wait until the standby has what the primary has written."""
    async with connected(primary.url) as sql:
        written = await sql.fetchval("SELECT pg_current_wal_lsn()::text")
    async with connected(standby.url) as sql, asyncio.timeout(30):
        while not await sql.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", written):
            await asyncio.sleep(0.05)


async def _configure(server: PostgresServer, name: str, value: str) -> None:
    """Change a setting, and wait until the servers have acted on it."""
    async with connected(server.url) as sql, asyncio.timeout(30):
        await sql.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await sql.execute("SELECT pg_reload_conf()")
        if value:
            wanted = "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        else:
            wanted = "SELECT count(*) = 0 FROM pg_stat_wal_receiver"
        while not await sql.fetchval(wanted):
            await asyncio.sleep(0.05)


async def _wait_for(db: AsyncDatabase, id: str) -> None:
    async with asyncio.timeout(30):
        while not await db.exists(id):
            await asyncio.sleep(0.05)


async def _read_all(changes: ChangeStream[Record]) -> list[Change[Record]]:
    found: list[Change[Record]] = []
    while batch := await changes.read(wait=False):
        found += batch
    return found
