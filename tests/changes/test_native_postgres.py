"""Changes of PostgreSQL tables that others made: what the owner runs, keys of all kinds, orders (§8, §10)."""

from __future__ import annotations

import asyncpg
import pytest

from isthmus import AsyncDatabase, ChangesExpiredError, UnsupportedError
from isthmus._core.changes import SupportsChangeStatements
from tests.changes.follow import assert_orders_grow, last_data, read_until
from tests.postgres.databases import connected, fresh_database

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]

KEYS = {
    "an integer": ("id int PRIMARY KEY", "{}", "{}"),
    "a text of another collation": ('id text COLLATE "en_US" PRIMARY KEY', "'k{}'", "k{}"),
    "two columns": ("day date, id int, PRIMARY KEY (day, id)", "'2024-02-03', {}", '["2024-02-03",{}]'),
    "an exact number": ("id numeric(9, 3) PRIMARY KEY", "{}.5", "{}.5"),
}
TABLE = '"odd "" name"'


async def _declare(sql: asyncpg.Connection, db: AsyncDatabase) -> None:
    assert isinstance(db._backend, SupportsChangeStatements)
    for statement in await db._backend.change_statements(db.collection_name):
        await sql.execute(statement)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("key", KEYS)
async def test_a_table_with_the_owners_triggers_is_followed(key: str, driver: str) -> None:
    """By every kind of writer; a record's order is None where it was not written since."""
    columns, cells, id_text = KEYS[key]
    if "en_US" in columns:
        columns = columns.replace("en_US", "ucs_basic")
    names, _, constraint = columns.partition(", PRIMARY")
    end = f", PRIMARY{constraint}" if constraint else ""
    ids = [id_text.replace("{}", str(number)) for number in range(5)]
    async with fresh_database() as url, connected(url) as sql:
        await sql.execute(f"CREATE TABLE {TABLE} ({names}, n int{end})")
        await sql.execute(f"INSERT INTO {TABLE} VALUES ({cells.format(0)}, 0)")
        settings = {"url": url, "layout": "native", "table": 'odd " name', "driver": driver}
        async with await AsyncDatabase.create("postgres", settings) as db:
            with pytest.raises(UnsupportedError):
                db.changes()
            with pytest.raises(UnsupportedError, match="--ddl"):
                await AsyncDatabase.create("postgres", {**settings, "changes": True})
            await _declare(sql, db)
        db = await AsyncDatabase.create("postgres", {**settings, "changes": True})
        async with db, db.changes(since="start", poll=0.05) as changes:
            [first] = await read_until(changes, ids[0])
            assert first.order is None

            await db.update(ids[0], {"n": 7})
            values = ", ".join(f"({cells.format(number)}, {number})" for number in (1, 2))
            await sql.execute(f"INSERT INTO {TABLE} VALUES {values}")
            await sql.execute(f"DELETE FROM {TABLE} WHERE n = 1")
            found = await read_until(changes, ids[1])
            value = cells.format(4).rpartition(", ")[2]
            await sql.execute(f"UPDATE {TABLE} SET id = {value}, n = 3 WHERE n = 2")
            found += await read_until(changes, ids[2])
            assert await db.delete(ids[0])
            found += await read_until(changes, ids[0])

            assert_orders_grow(found)
            kept = {id: data and data["n"] for id, data in last_data(found).items()}
            assert kept == {ids[0]: None, ids[1]: None, ids[2]: None, ids[4]: 3}
            again = await anext(db.changes(since="start"))
            assert again.id == ids[4]
            assert again.order == max(change.order or 0 for change in found if change.id == ids[4])
            await sql.execute(f"TRUNCATE {TABLE}")
            assert (await read_until(changes, ids[4]))[-1].record is None


async def test_a_table_that_was_made_again_has_no_changes() -> None:
    """Its triggers are gone, though the side table is there."""
    async with fresh_database() as url, connected(url) as sql:
        await sql.execute("CREATE TABLE things (id int PRIMARY KEY, n int)")
        settings = {"url": url, "layout": "native", "table": "things"}
        async with await AsyncDatabase.create("postgres", settings) as db:
            await _declare(sql, db)
        db = await AsyncDatabase.create("postgres", {**settings, "changes": True, "changes_keep": 0.3})
        async with db, db.changes(poll=0.05) as changes:
            await db.create({"id": 1, "n": 1})
            await read_until(changes, "1")
            await sql.execute("DROP TABLE things")
            with pytest.raises(ChangesExpiredError):
                await anext(changes)
            await sql.execute("CREATE TABLE things (id int PRIMARY KEY, n int)")
            with pytest.raises(UnsupportedError, match="--ddl"):
                await anext(changes)
