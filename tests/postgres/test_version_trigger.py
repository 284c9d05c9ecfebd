"""Raw SQL that changes a record changes its version; our own writes keep the one that they set."""

from __future__ import annotations

import asyncio

import pytest

from isthmus import AsyncDatabase, ConfigError, ConflictError, Record
from isthmus.native import postgres as native
from tests.postgres.databases import connected, fresh_database, fresh_name, opened, url

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]

CHANGES = {
    "data": "UPDATE {t} SET data = jsonb_set(data, '{{n}}', '2') WHERE id = 'a'",
    "metadata": "UPDATE {t} SET metadata = '{{\"by\": \"hand\"}}' WHERE id = 'a'",
    "an upsert": (
        "INSERT INTO {t} (id, data, version) VALUES ('a', '{{\"n\": 2}}', 1)"
        " ON CONFLICT (id) DO UPDATE SET data = excluded.data"
    ),
    "a key that is changed and back": (
        "UPDATE {t} SET id = 'b' WHERE id = 'a'; UPDATE {t} SET id = 'a' WHERE id = 'b'"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_raw_sql_changes_the_version(change: str) -> None:
    """So a write that expects the version before it is refused; the record says when it was changed."""
    async with opened() as db:
        await db.create(Record({"n": 1}, id="a"))
        before = await db.require("a")
        pool = await native(db)

        for statement in CHANGES[change].format(t=db.collection_name).split("; "):
            await pool.execute(statement)

        after = await db.require("a")
        assert after.version != before.version
        assert after.updated_at is not None
        assert before.updated_at is not None
        assert after.updated_at > before.updated_at
        with pytest.raises(ConflictError):
            await db.replace("a", {"n": 3}, if_version=before.version)
        await db.replace("a", {"n": 3}, if_version=after.version)


async def test_our_own_writes_have_the_version_that_they_return() -> None:
    """Of each kind, alone and in batches of each way: a statement, an unnest and a COPY."""
    async with opened() as db:
        await db.create(Record({"n": 0}, id="a"))
        versions = [
            await db.update("a", {"n": 1}),
            await db.upsert("a", {"n": 2}),
            await db.replace("a", {"n": 3}),
        ]
        assert len(set(versions)) == 3
        assert (await db.require("a")).version == versions[-1]
        for size in (3, 3_000):
            ids = [f"{size}-{number}" for number in range(size)]
            await db.create_batch([Record({"n": 0}, id=id) for id in ids])
            got = await db.update_batch([(id, {"n": 1}) for id in ids])
            stored = await db.get_batch(ids)
            assert [record and record.version for record in stored] == list(got)


async def test_a_table_that_exists_gets_the_trigger_at_its_next_opening() -> None:
    """One of version 0.1.0 has none; ten openings at once, and a writer in the way, are no error."""
    async with fresh_database() as address, connected(address) as outside:
        async with await AsyncDatabase.create("postgres", {"url": address, "table": "t"}) as db:
            await db.create(Record({"n": 1}, id="a"))
        await outside.execute("DROP TRIGGER isthmus_version ON t")
        async with outside.transaction():
            await outside.execute("UPDATE t SET version = 5 WHERE id = 'a'")
            async with await AsyncDatabase.create("postgres", {"url": address, "table": "t"}) as db:
                assert (await db.require("a")).data == {"n": 1}

        handles = [
            AsyncDatabase("postgres", {"url": address, "table": "t", "pool": {"max_size": 2 + number}})
            for number in range(10)
        ]
        await asyncio.gather(*(db.connect() for db in handles))
        for db in handles:
            await db.close()

        await outside.execute("""UPDATE t SET data = '{"n": 2}'""")
        assert await outside.fetchval("SELECT version <> 5 FROM t")
        assert await outside.fetchval("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 1


async def test_a_role_without_the_right_uses_the_table_all_the_same() -> None:
    """It may read and write records, and neither own the table nor create a function."""
    role = fresh_name()
    async with fresh_database() as address, connected(address) as outside:
        async with await AsyncDatabase.create("postgres", {"url": address, "table": "t"}) as db:
            await db.create(Record({"n": 1}, id="a"))
        await outside.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        try:
            await outside.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON t TO {role}")
            for _ in ("with the trigger", "without"):
                settings = {"url": address, "user": role, "password": "x", "table": "t"}
                async with await AsyncDatabase.create("postgres", settings) as db:
                    await db.update("a", {"n": 2})
                    record = await db.require("a")
                    pool = await native(db)
                    await pool.execute("""UPDATE t SET data = '{"n": 3}' WHERE id = 'a'""")
                    has_trigger = await outside.fetchval(
                        "SELECT EXISTS (SELECT 1 FROM pg_trigger WHERE tgname = 'isthmus_version')"
                    )
                    assert ((await db.require("a")).version != record.version) == has_trigger
                await outside.execute("DROP TRIGGER IF EXISTS isthmus_version ON t")
        finally:
            await outside.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_the_statements_for_people_without_rights_have_the_trigger() -> None:
    """What `create_table="never"` prints makes the table as we would."""
    name = fresh_name()
    with pytest.raises(ConfigError, match="CREATE TRIGGER isthmus_version") as caught:
        await AsyncDatabase.create("postgres", {"url": url(), "table": name, "create_table": "never"})
    statements = str(caught.value).partition("create it with:\n")[2]
    async with connected() as outside:
        await outside.execute(statements)
        settings = {"url": url(), "table": name, "create_table": "never"}
        async with await AsyncDatabase.create("postgres", settings) as db:
            await db.create(Record({"n": 1}, id="a"))
            before = (await db.require("a")).version
            await outside.execute(f"UPDATE {name} SET data = '{{}}'")
            assert (await db.require("a")).version != before
        await outside.execute(f"DROP TABLE {name}")
