"""SQL of the user inside a transaction, on the transaction's own connection."""

from __future__ import annotations

import asyncio
import io

import pytest

import isthmus.native
from isthmus import AsyncDatabase, Record, Transaction
from isthmus.errors import ClosedError, SerializationError, TransactionError, UsageError
from tests.postgres.databases import connected, fresh_name, opened
from tests.postgres.test_codecs import replace_json

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    """Return each driver in turn."""
    return str(request.param)


async def test_sql_sees_and_shares_the_fate_of_the_transaction(driver: str) -> None:
    """Records and SQL are committed together, or rolled back together."""
    audit = fresh_name()
    async with opened(driver=driver) as db, connected() as outside:
        table = db.collection_name
        await outside.execute(f"CREATE TABLE {audit} (id text, note text)")
        try:
            async with db.transaction() as tx:
                await tx.create(Record({"n": 1}, id="kept"))
                sql = await isthmus.native.postgres(tx)
                assert await sql.execute(f"INSERT INTO {audit} VALUES ($1, $2)", "kept", "a") == "INSERT 0 1"
                assert await sql.fetchval(f"SELECT count(*) FROM {table}") == 1
                assert (await sql.fetchrow(f"SELECT id, note FROM {audit}"))["note"] == "a"
                await sql.executemany(f"INSERT INTO {audit} VALUES ($1, 'b')", [("x",), ("y",)])
                await sql.copy_records_to_table(audit, records=[("z", "c")])
                target = io.BytesIO()
                await sql.copy_from_query(f"SELECT id FROM {audit} ORDER BY id", output=target)
                assert target.getvalue() == b"kept\nx\ny\nz\n"
                assert await outside.fetchval(f"SELECT count(*) FROM {audit}") == 0
            with pytest.raises(RuntimeError, match="never mind"):
                async with db.transaction() as tx:
                    await tx.create(Record({"n": 1}, id="gone"))
                    await (await isthmus.native.postgres(tx)).execute(f"DELETE FROM {audit}")
                    raise RuntimeError("never mind")

            assert await outside.fetchval(f"SELECT count(*) FROM {audit}") == 4
            assert [record.id for record in await db.search()] == ["kept"]
        finally:
            await outside.execute(f"DROP TABLE {audit}")


async def test_a_savepoint_takes_sql_back(driver: str) -> None:
    """A statement that fails in a savepoint leaves the transaction usable."""
    async with opened(driver=driver) as db:
        async with db.transaction() as tx:
            sql = await isthmus.native.postgres(tx)
            await tx.create(Record({"n": 1}, id="x"))
            with pytest.raises(Exception, match="division by zero"):
                async with tx.savepoint():
                    await sql.execute(f"UPDATE {db.collection_name} SET data = '{{}}'")
                    await sql.fetch("SELECT 1/0")
            assert await sql.fetchval("SELECT 1") == 1

        assert (await db.require("x")).data == {"n": 1}


async def test_an_ended_transaction_runs_no_sql(driver: str) -> None:
    """Neither through the object that it gave out nor through a new one; the connection is another user's."""
    async with opened(driver=driver, pool={"max_size": 1}) as db:
        async with db.transaction() as tx:
            sql = await isthmus.native.postgres(tx)
            await sql.execute("SELECT 1")

        with pytest.raises(ClosedError):
            await sql.execute("SELECT 1")
        with pytest.raises(ClosedError):
            await isthmus.native.postgres(tx)
        assert await db.count() == 0


async def test_calls_of_several_tasks_take_turns(driver: str) -> None:
    """SQL and operations of one transaction queue for its connection."""
    async with opened(driver=driver) as db:
        async with db.transaction() as tx:
            sql = await isthmus.native.postgres(tx)
            await asyncio.gather(
                *(tx.create({"n": n}) for n in range(20)), *(sql.fetchval("SELECT 1") for _ in range(20))
            )

        assert await db.count() == 20


async def test_sql_that_ends_the_transaction_is_an_error(driver: str) -> None:
    """Otherwise what follows would run outside of any transaction."""
    async with opened(driver=driver) as db:
        with pytest.raises(TransactionError, match="ended the transaction"):
            async with db.transaction() as tx:
                await (await isthmus.native.postgres(tx)).execute("COMMIT")

        assert await db.count() == 0


async def test_the_session_is_reset_after_sql(driver: str) -> None:
    """Settings and temporary tables of one transaction do not reach the next user of its connection."""
    async with opened(driver=driver, pool={"max_size": 1}) as db:
        async with db.transaction() as tx:
            sql = await isthmus.native.postgres(tx)
            await sql.execute("SET search_path TO pg_temp; CREATE TEMPORARY TABLE mine (a int)")

        pool = await isthmus.native.postgres(db)
        assert await pool.fetchval("SELECT to_regclass('pg_temp.mine')::text") is None
        assert "public" in await pool.fetchval("SHOW search_path")


async def test_sql_has_the_codecs_of_a_hook_and_records_have_not() -> None:
    """Both on one connection."""
    async with opened(pool={"init": replace_json}) as db, db.transaction() as tx:
        await tx.create(Record({"n": 1}, id="x"))
        sql = await isthmus.native.postgres(tx)

        assert await sql.fetchval(f"SELECT data FROM {db.collection_name}") == {"n": 1}
        assert (await tx.require("x")).data == {"n": 1}


async def test_a_transaction_of_another_backend_is_refused() -> None:
    """As a database of another backend is."""
    async with await AsyncDatabase.create("memory") as db, db.transaction() as tx:
        for client in (isthmus.native.postgres, isthmus.native.sqlalchemy, isthmus.native.sqlite):
            with pytest.raises(UsageError, match="memory"):
                await client(tx)


async def test_run_repeats_after_a_conflict_of_sql(driver: str) -> None:
    """The driver's serialization failure is repeated as isthmus's own is, and raised as that in the end."""
    async with opened(driver=driver) as db, connected() as outside:
        table, attempts = db.collection_name, 0
        await db.create(Record({"n": 0}, id="a"))
        change = f"UPDATE {table} SET data = jsonb_build_object('n', (data->>'n')::int + 1) WHERE id = 'a'"

        async def work(tx: Transaction) -> None:
            nonlocal attempts
            attempts += 1
            sql = await isthmus.native.postgres(tx)
            await sql.fetchval(f"SELECT count(*) FROM {table}")  # the snapshot
            if attempts < 2:
                await outside.execute(change)
            await sql.execute(change)

        await db.run(work)
        assert (attempts, (await db.require("a"))["n"]) == (2, 2)
        attempts = 0
        with pytest.raises(SerializationError) as raised:
            await db.run(work, attempts=1)
        assert raised.value.__cause__.sqlstate == "40001"  # type: ignore[attr-defined]
