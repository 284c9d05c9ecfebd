"""Tables: made race-free, marked, and refused where they are not ours."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from isthmus import AsyncDatabase, ConfigError, DeadlineError, Record, field
from tests.postgres.databases import connected, fresh_database, fresh_name, opened, url

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


async def test_ten_first_connects_at_once_all_succeed() -> None:
    """On a fresh database the table, the schema and the indexes are made once, by the first handle."""
    async with fresh_database() as address:
        settings = {
            "url": address,
            "table": "people",
            "schema": "app",
            "indexes": ["age"],
            "substring": ["name"],
            "gin": ["tags"],
        }
        # Other sizes are other pools, so each handle has connections of its own.
        handles = [
            AsyncDatabase("postgres", {**settings, "pool": {"max_size": 2 + number}}) for number in range(10)
        ]

        outcomes = await asyncio.gather(*(db.connect() for db in handles), return_exceptions=True)

        assert [o for o in outcomes if isinstance(o, BaseException)] == []
        ids = await asyncio.gather(*(db.create({"age": n}) for n, db in enumerate(handles)))
        assert len(set(ids)) == 10 == await handles[0].count()
        async with connected(address) as outside:
            valid = await outside.fetchval(
                "SELECT count(*) FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid"
                " WHERE c.relname = 'people' AND x.indisvalid"
            )
            broken = await outside.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
        assert (valid, broken) == (8, 0)
        for db in handles:
            await db.close()


async def test_a_table_with_other_columns_is_refused_by_name() -> None:
    """The error says which columns are wrong, which are missing and which no write of ours can fill."""
    name = fresh_name()
    async with connected() as outside:
        await outside.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, data jsonb, price numeric NOT NULL)")
        try:
            with pytest.raises(ConfigError) as caught:
                await AsyncDatabase.create("postgres", {"url": url(), "table": name})
        finally:
            await outside.execute(f"DROP TABLE {name}")

    text = str(caught.value)
    assert "id is integer instead of text" in text
    assert "version (bigint) is missing" in text
    assert "price (numeric) is NOT NULL and has no default" in text


async def test_columns_that_were_added_by_hand_are_kept() -> None:
    """A column of the user's is fine if a row can be inserted without it; our writes leave it as it is."""
    async with opened() as db, connected() as outside:
        await db.create(Record({"n": 1}, id="x"))
        for column in (
            "note text",
            "price numeric NOT NULL DEFAULT 5",
            "number int GENERATED ALWAYS AS IDENTITY",
            "twice int GENERATED ALWAYS AS ((data->>'n')::int * 2) STORED",
        ):
            await outside.execute(f"ALTER TABLE {db.collection_name} ADD COLUMN {column}")
        await outside.execute(f"UPDATE {db.collection_name} SET note = 'mine', price = 7")

        again = await AsyncDatabase.create("postgres", {"url": url(), "table": db.collection_name})
        await again.replace("x", {"n": 2})
        await again.upsert("x", {"n": 3})
        await again.update("x", {"m": 1})
        await again.upsert_batch([Record({"n": 4}, id="x"), Record({"n": 4}, id="new")])
        await again.upsert_batch(
            [Record({"n": 4}, id=f"k{n}") for n in range(2_100)] + [Record({"n": 4}, id="x")]
        )
        await again.create_batch([{"n": n} for n in range(150)])
        row = await outside.fetchrow(
            f"SELECT note, price, number, twice FROM {db.collection_name} WHERE id = 'x'"
        )
        fresh = await outside.fetchrow(
            f"SELECT note, price, twice FROM {db.collection_name} WHERE id = 'new'"
        )
        await again.close()

    assert tuple(row) == ("mine", 7, 1, 8)
    assert tuple(fresh) == (None, 5, 8)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_session_that_quotes_all_names_opens_its_tables(driver: str) -> None:
    """What the server writes differs there; the table is ours, and one of others is refused as elsewhere."""
    settings: dict[str, Any] = {"driver": driver, "server_settings": {"quote_all_identifiers": "on"}}
    settings |= {"indexes": ["n"], "unique": ["u"], "columns": {"c": "number"}, "changes": True}
    async with opened(**settings) as db:
        id = await db.create({"n": 1, "u": "a", "c": 0.30000000000000004})
        again = {"url": url(), "table": db.collection_name, **settings, "pool": {"max_size": 2}}
        async with await AsyncDatabase.create("postgres", again) as other:
            assert await other.count((field("n") == 1) & (field("c") == 0.30000000000000004)) == 1
            assert (await other.require(id)).data["u"] == "a"
            assert await other.aggregate(m=("max", "c")) == [{"m": 0.30000000000000004}]
    name = fresh_name()
    async with connected() as outside:
        await outside.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, data text)")
        try:
            with pytest.raises(ConfigError, match="id is integer instead of text"):
                await AsyncDatabase.create("postgres", {"url": url(), "table": name, **settings})
        finally:
            await outside.execute(f"DROP TABLE {name}")


async def test_a_newer_format_is_refused() -> None:
    """What a later isthmus wrote is not touched by this one."""
    async with opened() as db:
        async with connected() as outside:
            await outside.execute(f"""COMMENT ON TABLE {db.collection_name} IS 'isthmus {{"format": 3}}'""")

        with pytest.raises(ConfigError, match="format 3"):
            await AsyncDatabase.create("postgres", {"url": url(), "table": db.collection_name})


async def test_create_table_never_says_what_to_run() -> None:
    """Without DDL rights the error has the statements, and they make a table that is accepted."""
    name = fresh_name()
    settings = {"url": url(), "table": name, "create_table": "never"}
    with pytest.raises(ConfigError) as caught:
        await AsyncDatabase.create("postgres", settings)

    async with connected() as outside:
        await outside.execute(str(caught.value).partition("create it with:\n")[2])
    db = await AsyncDatabase.create("postgres", settings)

    assert await db.get(await db.create({"a": 1})) is not None
    await db._backend.drop(name)
    await db.close()


@pytest.mark.parametrize("name", ['a "quoted" name', "{source} {table}", "Großes Éclair", "select", "a.b;--"])
async def test_any_name_is_a_table(name: str) -> None:
    """Names are quoted, whatever they hold; all verbs work on such a table."""
    async with opened(table=name, schema='we "said" so', indexes=["a"]) as db:
        ids = await db.create_batch([{"a": n} for n in range(3)])
        await db.update_batch([(id, {"b": 1}) for id in ids])
        await db.upsert_batch([(id, {"a": 9}) for id in ids[:2]])

        assert await db.count(field("a") == 9) == 2
        assert await db.collections() == [name]
        assert await db.delete_batch(ids) == [True] * 3


async def test_only_tables_with_our_mark_are_collections() -> None:
    """Tables of other programs in the schema are not listed."""
    async with fresh_database() as address, connected(address) as outside:
        await outside.execute("CREATE TABLE theirs (id int)")
        db = await AsyncDatabase.create("postgres", {"url": address, "table": "ours"})
        await db.collection("more").create({"a": 1})

        assert await db.collections() == ["more", "ours"]
        await db.close()


@pytest.mark.parametrize("declared", [{"indexes": ["n"]}, {"unique": ["n"]}, {"changes": True}])
async def test_opening_ends_at_the_deadline(declared: dict[str, Any]) -> None:
    """Whatever it waits for; the end of the transaction that it waited for lets it succeed."""
    async with opened() as db:
        settings = {"table": db.collection_name, "deadline": 0.5, **declared}
        async with db.transaction() as tx:
            await tx.create({"n": 1})
            with pytest.raises(DeadlineError, match="timed out after"):
                await asyncio.wait_for(AsyncDatabase.open(url(), settings), 20)
            await tx.delete_where(field("n") == 1)
        async with await AsyncDatabase.open(url(), {**settings, "deadline": 20}) as other:
            assert await other.count() == 0


async def test_an_index_that_was_left_half_built_is_built_again() -> None:
    """An interrupted CREATE INDEX CONCURRENTLY leaves an invalid index, which serves nobody."""
    async with opened(indexes=["age"]) as db:
        name = db.collection_name
        async with connected() as outside:
            index = await outside.fetchval(
                "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = $1::text::regclass"
                " AND NOT indisprimary LIMIT 1",
                name,
            )
            await outside.execute(
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::text::regclass", index
            )
            again = await AsyncDatabase.create(
                "postgres", {"url": url(), "table": name, "indexes": ["age"], "application_name": "again"}
            )
            valid = await outside.fetchval(
                "SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = $1::text::regclass", name
            )
            await again.close()

    assert valid is True
