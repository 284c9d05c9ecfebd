"""Row security: the server itself confines the transactions of a scope, and raw connections see nothing."""

from __future__ import annotations

import contextlib
import pickle
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from isthmus import AsyncDatabase, Query, Record, field, native
from isthmus.errors import AlreadyExistsError, BatchError, NotFoundError, UnsupportedError, UsageError
from tests.postgres.databases import connected, fresh_name, url

TENANT, N = field("tenant"), field("n")


@contextlib.asynccontextmanager
async def owned(
    driver: str = "asyncpg", *, policies: bool = True
) -> AsyncIterator[tuple[AsyncDatabase, str]]:
    """Yield a handle on a table of a plain role with the policies, and that role's URL."""
    role = f"r_{secrets.token_hex(4)}"
    parts = urlsplit(url())
    address = parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}").geturl()
    async with connected() as admin:
        await admin.execute(f"CREATE ROLE {role} LOGIN")
        await admin.execute(f"GRANT ALL ON SCHEMA public TO {role}")
    db = await AsyncDatabase.create("postgres", {"url": address, "table": fresh_name(), "driver": driver})
    try:
        for tenant in "ab":
            await db.create_batch([Record({"tenant": tenant, "n": n}, id=f"{tenant}{n}") for n in range(3)])
        if policies:
            async with connected(address) as owner:
                for statement in db._backend.row_security_statements(db.collection_name):  # type: ignore[attr-defined]
                    await owner.execute(statement)
        yield db, address
    finally:
        await db._backend.drop(db.collection_name)
        await db.close()
        async with connected() as admin:
            await admin.execute(f"DROP OWNED BY {role}")
            await admin.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.asyncio
async def test_a_connection_without_the_variable_sees_nothing(driver: str) -> None:
    """The owner of the table too; with the variable it sees that scope's rows."""
    async with owned(driver) as (db, address):
        async with connected(address) as raw:
            count = f"SELECT count(*) FROM {db.collection_name}"
            assert await raw.fetchval(count) == 0
            async with raw.transaction():
                await raw.execute("""SELECT set_config('isthmus.scope', '{"tenant":"a"}', true)""")
                assert await raw.fetchval(count) == 3
            assert await raw.fetchval(count) == 0
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await raw.execute(
                    f"INSERT INTO {db.collection_name} SELECT 'x', '{{}}', '{{}}', 1, now(), now()"
                )
        assert (await db.count(), await db.scope(TENANT == "a").count()) == (0, 0)
        assert await db.scope(TENANT == "a", row_security=True).count() == 3


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.asyncio
async def test_a_scope_with_row_security_reads_and_writes_its_own_records(driver: str) -> None:
    """Each operation is a transaction with the variable; large batches take no COPY."""
    async with owned(driver) as (db, _):
        a = db.scope(TENANT == "a", row_security=True)

        assert [r.id for r in await a.search(Query().sort("n", "desc").limit(2))] == ["a2", "a1"]
        assert {r.id async for r in a.stream(page_size=2)} == {"a0", "a1", "a2"}
        assert await a.aggregate(by="tenant", n="count") == [{"tenant": "a", "n": 3}]
        assert await a.get("b0") is None
        await a.update("a0", {"n": 7})
        await a.modify("a0", N.inc(1))
        assert (await a.require("a0")).data == {"tenant": "a", "n": 8}
        with pytest.raises(NotFoundError):
            await a.update("b0", {"n": 7})
        with pytest.raises(AlreadyExistsError):
            await a.upsert("b0", {"n": 7})
        assert len(await a.create_batch([{"n": n} for n in range(250)])) == 250
        with pytest.raises(BatchError):
            await a.create_batch([Record({}, id=f"x{n}") for n in range(150)] + [Record({}, id="b1")])
        assert await a.count() == 253
        assert await a.update_where(N >= 100, N.set(0)) == 150
        async with a.transaction() as tx:
            assert await tx.count() == 253
            async with tx.savepoint():
                await tx.delete_where(N == 0)
        assert await db.scope(TENANT == "b", row_security=True).count() == 3


@pytest.mark.asyncio
async def test_workers_of_partitions_tell_the_server_the_scope() -> None:
    """Else the policies would show them nothing."""
    async with owned() as (db, _):
        a = db.scope(TENANT == "a", row_security=True)

        parts = pickle.loads(pickle.dumps(await a.partitions(N >= 1, 3)))

        assert sorted([r.id for part in parts async for r in part.stream()]) == ["a1", "a2"]


@pytest.mark.asyncio
async def test_sql_of_a_transaction_is_confined_by_the_server() -> None:
    """`isthmus.native.postgres(tx)` is allowed, where row security binds the role."""
    async with owned() as (db, _):
        a = db.scope(TENANT == "a", row_security=True)
        async with a.transaction() as tx:
            sql = await native.postgres(tx)
            rows = await sql.fetch(f"SELECT id FROM {db.collection_name} ORDER BY id")
            assert [row[0] for row in rows] == ["a0", "a1", "a2"]
        with pytest.raises(UnsupportedError):
            await native.postgres(a)
        with pytest.raises(UnsupportedError):
            async with a.stream(consistent=True) as records:
                await anext(records)
    async with (
        owned(policies=False) as (db, _),
        db.scope(TENANT == "a", row_security=True).transaction() as tx,
    ):
        with pytest.raises(UnsupportedError, match="doctor"):
            await native.postgres(tx)


@pytest.mark.asyncio
async def test_a_transaction_with_row_security_belongs_to_its_scope() -> None:
    """Another handle cannot join it: it would see another scope's rows, or none."""
    async with owned() as (db, _):
        a, b = (db.scope(tenant == TENANT, row_security=True) for tenant in "ab")
        async with a.transaction():
            assert await a.count() == 3
            for other in (b, db):
                with pytest.raises(UsageError, match="scope"):
                    await other.count()
        async with db.transaction():
            with pytest.raises(UsageError, match="scope"):
                await a.count()


@pytest.mark.asyncio
async def test_nested_scopes_that_contradict_each_other_see_nothing() -> None:
    """The server's policy has nothing to match either."""
    async with owned() as (db, _):
        both = db.scope(TENANT == "a", row_security=True).scope(TENANT == "b")

        assert await both.search() == []
