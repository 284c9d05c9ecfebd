"""Changes on PostgreSQL: every writer, transactions that overlap, positions that expire (§10)."""

from __future__ import annotations

import asyncio
import secrets

import asyncpg
import pytest

from isthmus import AsyncDatabase, ChangesExpiredError, ConfigError, Record
from isthmus._changes_declaration import declare_changes, end_changes
from isthmus.backends.postgres.change_pruning import prune
from isthmus.backends.postgres.change_tables import ChangeNames
from tests.changes.follow import assert_orders_grow, last_data, read_all, read_until
from tests.postgres.databases import connected, fresh_name, opened, url

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


@pytest.mark.parametrize("setup", ["asyncpg", "psycopg", "pgbouncer"])
async def test_sql_of_others_is_followed(setup: str) -> None:
    """Inserts, COPY, updates, a changed key, deletes, savepoints; nothing of what is rolled back."""
    address = url("pgbouncer" if setup == "pgbouncer" else "postgres")
    settings = {"pooler": "transaction"} if setup == "pgbouncer" else {"driver": setup}
    async with (
        opened(address, changes=True, **settings) as db,
        db.changes(poll=0.05) as changes,
        # PgBouncer's database `session` gives a session of one's own.
        connected(f"{address.rpartition('/')[0]}/session" if setup == "pgbouncer" else address) as sql,
    ):
        t = db.collection_name
        await sql.copy_records_to_table(
            t, columns=["id", "data", "version"], records=[(f"c{n:04}", "{}", 1) for n in range(1_100)]
        )
        await sql.execute(f"INSERT INTO {t} (id, data, version) VALUES ('a', '{{}}', 1), ('b', '{{}}', 1)")
        async with sql.transaction():
            await sql.execute(f"""UPDATE {t} SET data = '{{"n": 1}}' WHERE id = 'a'""")
            with pytest.raises(asyncpg.PostgresError):
                async with sql.transaction():
                    await sql.execute(f"DELETE FROM {t} WHERE id = 'b'")
                    await sql.execute("SELECT 1 / 0")
        undone = sql.transaction()
        await undone.start()
        await sql.execute(f"INSERT INTO {t} (id, data, version) VALUES ('undone', '{{}}', 1)")
        await undone.rollback()
        await sql.execute(f"UPDATE {t} SET id = 'c' WHERE id = 'b'")
        await sql.execute(f"DELETE FROM {t} WHERE id IN ('c0000', 'c0001')")

        found = await read_all(db, changes)

        assert_orders_grow(found)
        expected = {f"c{n:04}": None if n < 2 else {} for n in range(1_100)}
        assert last_data(found) == {**expected, "a": {"n": 1}, "b": None, "c": {}}


async def test_a_transaction_that_commits_late_is_not_skipped() -> None:
    """Its changes, and those with greater numbers, come once it has ended; of each id the last state."""
    async with opened(changes=True) as db, connected() as old, db.changes(poll=0.05) as changes:
        t = db.collection_name
        await db.upsert("a", {"n": 0})
        await read_until(changes, "a")
        transaction = old.transaction()
        await transaction.start()
        await old.execute("SELECT pg_current_xact_id()")
        await db.upsert("a", {"n": 1})
        await db.upsert("b", {})
        lag = changes.lag
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), 0.3)
        assert changes.lag > lag
        assert changes.held_by is not None
        assert f"process {old.get_server_pid()} of database" in changes.held_by
        # After the newer transaction, in the older one.
        await old.execute(f"""UPDATE {t} SET data = '{{"n": 2}}' WHERE id = 'a'""")
        await old.execute(f"DELETE FROM {t} WHERE id = 'b'")
        await transaction.commit()

        found = await read_all(db, changes)

        assert_orders_grow(found)
        assert last_data(found) == {"a": {"n": 2}, "b": None}
        assert not await changes.read(wait=False)
        assert changes.held_by is None


async def test_now_is_now_while_others_are_in_the_middle() -> None:
    """What had been committed does not come again, and what was not yet does."""
    async with opened(changes=True) as db, connected() as old:
        t = db.collection_name
        transaction = old.transaction()
        await transaction.start()
        await old.execute(f"INSERT INTO {t} (id, data, version) VALUES ('late', '{{}}', 1)")
        await db.upsert("before", {})
        async with db.changes(poll=0.05) as changes:
            await db.upsert("after", {})
            await transaction.commit()

            assert last_data(await read_all(db, changes)) == {"late": {}, "after": {}}


async def test_truncate_is_a_change_of_each_record() -> None:
    """At the level READ COMMITTED: at a higher one it would delete rows that it cannot see."""
    async with opened(changes=True) as db, connected() as sql, db.changes(poll=0.05) as changes:
        t = db.collection_name
        ids = await db.create_batch([{"n": n} for n in range(700)])
        await read_all(db, changes)
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="READ COMMITTED"):
            async with sql.transaction(isolation="repeatable_read"):
                await sql.execute(f"TRUNCATE {t}")
        assert await db.count() == 700

        await sql.execute(f"TRUNCATE {t}")

        found = await read_all(db, changes)
        assert last_data(found) == dict.fromkeys(ids)
        assert len(found) == 700


async def test_truncate_under_policies_is_refused_rather_than_missed() -> None:
    """They would hide rows from the owner, who deletes them all the same."""
    role = f"r_{secrets.token_hex(6)}"
    async with opened(changes=True) as db, connected() as sql, db.changes(poll=0.05) as changes:
        t, names = db.collection_name, _names(db)
        await db.create_batch([{"n": n} for n in range(3)])
        await sql.execute(f"CREATE ROLE {role}")
        try:
            await sql.execute(f"ALTER TABLE {t} OWNER TO {role}")
            for name in (names.changes, names.deleted, names.marks):
                await sql.execute(f"ALTER TABLE {name} OWNER TO {role}")
            await sql.execute(f"ALTER FUNCTION {names.capture}() OWNER TO {role}")
            await sql.execute(f"ALTER TABLE {t} ENABLE ROW LEVEL SECURITY")
            await sql.execute(f"ALTER TABLE {t} FORCE ROW LEVEL SECURITY")
            await sql.execute(f"CREATE POLICY none ON {t} USING (FALSE)")
            await sql.execute(f"SET ROLE {role}")
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                await sql.execute(f"TRUNCATE {t}")
            await sql.execute("RESET ROLE")
            await sql.execute(f"DROP POLICY none ON {t}")
            await sql.execute(f"ALTER TABLE {t} NO FORCE ROW LEVEL SECURITY")

            await sql.execute(f"TRUNCATE {t}")

            assert set(last_data(await read_all(db, changes)).values()) == {None}
        finally:
            await sql.execute("RESET ROLE")
            await sql.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
            await sql.execute(f"DROP ROLE {role}")


async def test_a_position_of_a_table_that_was_restored_from_a_dump_has_expired() -> None:
    """It has the same comment, side tables and all: what was written since the dump is gone."""
    async with opened(changes=True) as db, connected() as sql:
        t = db.collection_name
        await db.upsert("a", {})
        [change] = await read_until(db.changes(since="start"), "a")
        comment = await sql.fetchval(f"SELECT obj_description('{t}'::regclass)")
        await sql.execute(f"ALTER TABLE {t} RENAME TO {t}_old")
        await sql.execute(f"CREATE TABLE {t} (LIKE {t}_old INCLUDING ALL)")
        await sql.execute(f"COMMENT ON TABLE {t} IS '{comment}'")
        with pytest.raises(ChangesExpiredError):
            await anext(db.changes(since=change.position))
        await sql.execute(f"DROP TABLE {t}; ALTER TABLE {t}_old RENAME TO {t}")
        stream = db.changes(since=change.position, poll=0.05)
        await db.upsert("b", {})
        await read_until(stream, "b")


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_an_id_that_is_created_again_has_a_greater_order(isolation: str) -> None:
    """Though its number was drawn before the deletion, for whose end the INSERT had to wait."""
    async with (
        opened(changes=True) as db,
        connected() as deleting,
        connected() as creating,
        db.changes(poll=0.05) as changes,
    ):
        t = db.collection_name
        await db.create_batch([Record({}, id="a"), Record({}, id="b")])
        delete = deleting.transaction()
        await delete.start()
        create = creating.transaction(isolation=isolation)
        await create.start()
        await creating.fetchval(f"SELECT count(*) FROM {t}")
        # It holds `a` at once, and draws numbers when the statement ends.
        deletion = asyncio.create_task(
            deleting.execute(f"DELETE FROM {t} WHERE id = 'a' OR (id = 'b' AND pg_sleep(0.6) IS NOT NULL)")
        )
        await asyncio.sleep(0.2)
        insert = asyncio.create_task(
            creating.execute(f"INSERT INTO {t} (id, data, version) VALUES ('a', '{{\"n\": 2}}', 7)")
        )
        await deletion
        drawn = await deleting.fetchval(f"SELECT last_value FROM {_names(db).sequence}")
        await delete.commit()
        await insert
        await create.commit()

        found = await read_all(db, changes)

        assert_orders_grow(found)
        assert last_data(found) == {"a": {"n": 2}, "b": None}
        [created] = [change for change in found if change.id == "a"][-1:]
        assert (created.order or 0) > drawn
        assert created.version == "7"


async def test_a_number_that_sql_gives_is_not_taken() -> None:
    """A copy of another table's rows, or an upsert that takes the order of the refused row."""
    async with opened(changes=True) as db, connected() as sql, db.changes(poll=0.05) as changes:
        t = db.collection_name
        await db.upsert("a", {"n": 0})
        await sql.execute(
            f"INSERT INTO {t} (id, data, version, change_order) VALUES ('b', '{{}}', 1, 1000000)"
        )
        await sql.execute(
            f"INSERT INTO {t} (id, data, version) VALUES ('a', '{{\"n\": 1}}', 5) ON CONFLICT (id)"
            " DO UPDATE SET data = excluded.data, version = 9, change_order = 1"
        )

        found = await read_all(db, changes)

        assert_orders_grow(found)
        assert last_data(found) == {"a": {"n": 1}, "b": {}}
        assert max(change.order or 0 for change in found) < 1_000_000
        assert (await db.require("a")).version == "9"
        await db.upsert("b", {})
        assert_orders_grow([*found, *await read_until(changes, "b")])


async def test_a_role_without_rights_on_the_side_tables_may_write() -> None:
    """Neither they nor the sequence need a grant."""
    role = f"r_{secrets.token_hex(6)}"
    async with opened(changes=True) as db, connected() as sql, db.changes(poll=0.05) as changes:
        t = db.collection_name
        await sql.execute(f"CREATE ROLE {role}")
        try:
            await sql.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {t} TO {role}")
            await sql.execute(f"SET ROLE {role}")
            await sql.execute(
                f"INSERT INTO {t} (id, data, version) VALUES ('a', '{{}}', 1), ('b', '{{}}', 1)"
            )
            await sql.execute(f"""UPDATE {t} SET data = '{{"n": 1}}' WHERE id = 'a'""")
            await sql.execute(f"DELETE FROM {t} WHERE id = 'a'")
            await sql.execute(f"TRUNCATE {t}")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await sql.execute(f"DELETE FROM {_names(db).changes}")
        finally:
            await sql.execute("RESET ROLE")
            await sql.execute(f"DROP OWNED BY {role}")
            await sql.execute(f"DROP ROLE {role}")

        assert last_data(await read_all(db, changes)) == {"a": None, "b": None}


async def test_a_handle_that_does_not_know_of_the_changes_draws_orders_too() -> None:
    """One that was opened before they were declared: a trigger does it, and versions stay its own."""
    async with opened() as db:
        settings = {"url": url(), "table": db.collection_name}
        await db.upsert("a", {"n": 0})
        async with await AsyncDatabase.create("postgres", settings) as other:
            await declare_changes(other)
        async with db.changes(since="start", poll=0.05) as changes:
            before = (await read_until(changes, "a"))[-1].order
            version = await db.update("a", {"n": 1})
            [change] = await read_until(changes, "a")

        assert (change.order or 0) > (before or 0)
        assert change.version == version


async def test_a_table_with_records_is_left_alone_by_connecting() -> None:
    """Declared on request, its records are there from the start; with unique fields in either order."""
    async with opened() as db:
        settings = {"url": url(), "table": db.collection_name, "changes": True}
        await db.upsert("a", {"n": 1})
        with pytest.raises(ConfigError, match="isthmus index"):
            await AsyncDatabase.create("postgres", settings)
        await declare_changes(db)
        async with await AsyncDatabase.create("postgres", settings) as other:
            [change] = await read_until(other.changes(since="start"), "a")
            assert change.order is not None
            assert change.record is not None
        async with connected() as sql:
            comment = f"SELECT obj_description('{db.collection_name}'::regclass)"
            assert '"format":2' in await sql.fetchval(comment)
        await end_changes(db)
        await db.update("a", {"n": 2})
        await declare_changes(db)
        assert (await db.require("a")).data == {"n": 2}


async def test_an_empty_table_gets_changes_and_unique_fields_together() -> None:
    """One mark holds both."""
    async with opened() as db:
        settings = {"url": url(), "table": db.collection_name}
        for more in ({"changes": True}, {"unique": ["email"]}, {"changes": True, "unique": ["email"]}):
            async with await AsyncDatabase.create("postgres", {**settings, **more}):
                pass
        other = await AsyncDatabase.create("postgres", {**settings, "changes": True})
        async with other, other.changes(poll=0.05) as changes:
            await other.create(Record({"email": "x"}, id="a"))
            await read_until(changes, "a")


async def test_who_may_not_create_tables_is_given_the_statements() -> None:
    """They are all that is needed."""
    table = fresh_name()
    settings = {"url": url(), "table": table, "changes": True, "create_table": "never"}
    with pytest.raises(ConfigError, match="CREATE TABLE") as refused:
        await AsyncDatabase.create("postgres", settings)
    async with connected() as sql:
        await sql.execute(str(refused.value).partition("create it with:\n")[2])
    db = await AsyncDatabase.create("postgres", settings)
    async with db, db.changes(poll=0.05) as changes:
        await db.create(Record({}, id="a"))
        await read_until(changes, "a")
        await db.drop_collection(table)


async def test_dropping_a_collection_leaves_nothing() -> None:
    """Neither tables nor functions nor the sequence."""
    named = "SELECT count(*) FROM pg_class WHERE relname LIKE $1"
    functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE $1"
    async with opened(changes=True) as db, connected() as sql:
        pattern = f"{db.collection_name}%"
        assert await sql.fetchval(named, pattern) > 3
        await db.drop_collection(db.collection_name)
        assert await sql.fetchval(named, pattern) == await sql.fetchval(functions, pattern) == 0


async def test_a_position_expires_once_its_changes_are_pruned() -> None:
    """One that has read them goes on; so does one of a quiet collection."""
    async with opened(changes=True, changes_keep=0.5) as db, db.changes(poll=0.05) as changes:
        old = changes.position
        await db.create_batch([Record({}, id=f"r{n}") for n in range(300)])
        await db.delete("r0")
        await read_all(db, changes)
        async with connected() as sql, asyncio.timeout(20):
            names = _names(db)
            count = f"SELECT (SELECT count(*) FROM {names.changes}) + (SELECT count(*) FROM {names.deleted})"
            while await sql.fetchval(count):
                await asyncio.sleep(0.1)
                # A reader prunes; nothing is new.
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(changes), 0.1)
        assert old is not None
        with pytest.raises(ChangesExpiredError, match="pruned"):
            await anext(db.changes(since=old))
        await db.upsert("new", {})
        assert [change.id for change in await read_until(changes, "new")] == ["new"]


async def test_pruning_keeps_later_marks_in_any_time_zone() -> None:
    """`IST` is India's time where the session writes it, and Israel's where the server reads it."""
    session = {"DateStyle": "SQL, DMY", "TimeZone": "Asia/Kolkata"}
    async with opened(changes=True, server_settings=session) as db:
        names = _names(db)
        pool = await db._backend.native()
        async with pool.acquire() as connection:
            await connection.execute(
                f"INSERT INTO {names.marks} SELECT now() - a * interval '1 minute', '3', '3', 0"
                " FROM unnest(ARRAY[200, 120, 60, 1]) AS a"
            )
            await prune(connection, db._backend._table(db.collection_name), 3_600)  # type: ignore[attr-defined]
            left = f"SELECT count(*) FROM {names.marks} WHERE at > '-infinity'"
            assert await connection.fetchval(left) == 3  # that of now too


async def test_a_position_of_another_table_has_expired() -> None:
    """The two are alike in all but their making."""
    async with opened(changes=True) as db, opened(changes=True) as other:
        await db.upsert("a", {})
        [change] = await read_until(db.changes(since="start"), "a")
        with pytest.raises(ChangesExpiredError):
            await anext(other.changes(since=change.position))


def _names(db: AsyncDatabase) -> ChangeNames:
    return ChangeNames.of(db._backend._table(db.collection_name))  # type: ignore[attr-defined]
