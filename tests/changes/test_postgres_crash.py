"""A crash of PostgreSQL takes nothing back that a reader of changes has been given (§10)."""

from __future__ import annotations

import contextlib

import asyncpg
import pytest

from isthmus import AsyncDatabase
from tests.changes.follow import last_data, read_all
from tests.postgres.databases import connected, opened, url
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


@pytest.mark.parametrize("commit", ["off", "on"])
async def test_what_was_read_is_still_there_after_a_crash(commit: str) -> None:
    """Commits that did not wait for the disk, and numbers of transactions that were rolled back.

    Either would be lost, and its number given to a later transaction, which the position would pass over.
    """
    url()  # skips without PostgreSQL
    # Nothing but the reader may flush the WAL in time.
    config = {"synchronous_commit": "on", "wal_writer_delay": "10s", "checkpoint_timeout": "1h"}
    with PostgresServer(config=config) as server:
        async with await AsyncDatabase.create(
            "postgres", {"url": server.url, "table": "t", "changes": True}
        ) as db:
            sql = await asyncpg.connect(server.url)
            await sql.execute(f"SET synchronous_commit = {commit}")
            async with db.changes(poll=0.05) as changes:
                for number in range(20):
                    await sql.execute(f"INSERT INTO t (id, data, version) VALUES ('r{number}', '{{}}', 1)")
                for _ in range(5):
                    with contextlib.suppress(asyncpg.DivisionByZeroError):
                        async with sql.transaction():
                            await sql.execute("UPDATE t SET data = '{}'")
                            await sql.execute("SELECT 1 / 0")
                read = [change.id for change in await changes.read()]
                while await changes.read(wait=False):
                    pass
                position = changes.position
            server.kill()
            sql.terminate()
        server.start()
        async with (
            await AsyncDatabase.create("postgres", {"url": server.url, "table": "t"}) as db,
            db.changes(since=position or "", poll=0.05) as changes,
        ):
            assert {record.id for record in await db.search()} >= set(read)
            await db.upsert("new", {})
            assert "new" in last_data(await read_all(db, changes))


async def test_a_role_that_may_only_read_follows() -> None:
    """Also where its transactions are read only: what the reader flushes is no write."""
    role = "reader_of_changes"
    async with opened(changes=True) as db, connected() as sql:
        with contextlib.suppress(asyncpg.UndefinedObjectError):
            await sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await sql.execute(f"CREATE ROLE {role} LOGIN; GRANT pg_read_all_data TO {role}")
        try:
            await sql.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
            address = url().replace("postgres@", f"{role}@")
            async with (
                await AsyncDatabase.create(
                    "postgres", {"url": address, "table": db.collection_name, "create_table": "never"}
                ) as reader,
                reader.changes(poll=0.05) as changes,
            ):
                await db.upsert("a", {})
                await db.delete("a")
                assert last_data(await read_all(db, changes)) == {"a": None}
        finally:
            await sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
