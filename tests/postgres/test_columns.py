"""Declared columns in PostgreSQL's tables: names, format, indexes, rights, and what cannot have them."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from isthmus import AccessError, AsyncDatabase, ConfigError, Query, Record, field
from isthmus._columns import declare_columns, drop_columns
from isthmus._core.columns import columns_of
from isthmus._core.unique import unique_of
from isthmus._path import parse_path
from isthmus.backends.postgres.sql.column_filter import by_row
from isthmus.backends.postgres.sql.columns import StoredColumn
from isthmus.backends.postgres.sql.filter import Filter
from isthmus.backends.postgres.sql.statement import Parameters
from isthmus.backends.postgres.sql.table import IndexedPaths, Table
from tests.postgres.databases import connected, fresh_database, fresh_name, opened, url

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]


async def _marks(table: str) -> tuple[int, dict[str, str]]:
    """Return the format of a table, and the types of its columns."""
    async with connected() as outside:
        comment = await outside.fetchval(
            "SELECT obj_description($1::text::regclass, 'pg_class')", f'"{table}"'
        )
        rows = await outside.fetch(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = $1::text::regclass AND attgenerated <> '' AND NOT attisdropped",
            f'"{table}"',
        )
    return orjson.loads(comment.removeprefix("isthmus "))["format"], {row[0]: row[1] for row in rows}


async def test_a_table_with_columns_has_format_2() -> None:
    """0.1.0 refuses that; a table without declarations keeps format 1."""
    async with opened() as plain, opened(columns={"n": "number", "a.b": "text", "id": "bool"}) as db:
        number, types = await _marks(db.collection_name)
        assert (await _marks(plain.collection_name))[0] == 1

    assert number == 2
    assert sorted(types.values()) == ["boolean", "boolean", "numeric", "text"]
    assert {"n", "a.b", "isthmus_odd"} < set(types)
    assert "id" not in types


async def test_a_field_without_a_column_is_compiled_as_in_a_table_without_columns() -> None:
    """Columns and indexes of other fields serve it no better."""
    column = columns_of({"n": "number"})[0]
    stored = {column.path: StoredColumn(column, "n")}
    for indexed in (IndexedPaths(), IndexedPaths(numbers=frozenset({field("k").path}))):
        table = Table("public", "t", indexed, columns=stored)
        for leaf in (~field("m").exists(), field("m") == 1, field("m") == "a", field("m").is_null()):
            expected = Filter(Parameters(), indexed).condition(leaf)
            assert by_row(table, leaf, Parameters())[0] == expected


@pytest.mark.parametrize("name", ["select", 'a "b"', "x" * 80, "é", "xmin", "isthmus_odd", "data", " ", ""])
async def test_any_field_is_a_column(name: str) -> None:
    """Names are quoted, shortened, and apart from our own columns'."""
    async with opened(columns={name: "number"}) as db:
        await db.create_batch([{name: 1}, {name: [1, 2]}, {name: 3}, {"other": 1}])

        assert await db.count(field([name]) == 1) == 2
        assert [r.data for r in await db.search(Query().sort([name], "desc").limit(1))] == [{name: 3}]
        assert (await db.explain(field([name]) == 1)).columns


async def test_a_column_of_the_users_own_is_left_alone() -> None:
    """The declared one has another name then."""
    async with opened() as db:
        async with connected() as outside:
            await outside.execute(f"ALTER TABLE {db.collection_name} ADD COLUMN n text DEFAULT 'mine'")
        await db.create({"n": 1})
        await declare_columns(db, columns_of({"n": "number"}))

        assert await db.count(field("n") == 1) == 1
        assert "n" not in (await _marks(db.collection_name))[1]
        async with connected() as outside:
            assert await outside.fetchval(f"SELECT n FROM {db.collection_name}") == "mine"


async def test_an_index_of_a_declared_path_is_one_on_its_column() -> None:
    """Ranges, prefixes and orders use it; it refuses no long text, and odd rows have one of their own."""
    async with opened(columns={"n": "number", "t": "text"}, indexes=["n"], prefix=["t"]) as db:
        await db.create_batch([{"n": number, "t": f"{number:05}"} for number in range(3_000)])
        await db.create_batch([{"n": [1], "t": "x" * 50_000}, {"n": "x", "t": "y" * 9_000}])
        async with connected() as outside:
            await outside.execute(f"ANALYZE {db.collection_name}")

        for query in (
            Query(field("n") == 7),
            Query(field("n") >= 2_990),
            Query(field("t").starts_with("0299")),
            Query(field("t") == "00017"),
            Query().sort("n").limit(5),
            Query().sort("n", "desc").limit(5),
            Query().sort("t", "desc").limit(5),
        ):
            plan = await db.explain(query)
            assert "_column_" in str(plan.index), (query, plan.details["plan"])
            assert not any("Seq Scan" in line for line in plan.details["plan"]), plan.details["plan"]
        assert [r.data["n"] for r in await db.search(Query().sort("t", "desc").limit(3))] == ["x", [1], 2_999]
        assert await db.count(field("t").starts_with("x" * 5_000)) == 1


async def test_an_indexed_column_compares_by_code_point() -> None:
    """Whatever the language of the database: there `a` is less than `B`, and `é` less than `f`."""
    texts = ["a", "B", "b", "Z", "é", "f", "~", "_", "-a", "ab", ""]
    async with opened(columns={"t": "text"}, indexes=["t"]) as db:
        await db.create_batch([{"t": text} for text in texts])

        for bound in texts:
            for where, expected in (
                (field("t") > bound, [text for text in texts if text > bound]),
                (field("t") <= bound, [text for text in texts if text <= bound]),
                (field("t").between(bound, "b"), [text for text in texts if bound <= text <= "b"]),
            ):
                found = [record["t"] for record in await db.search(Query(where).sort("t", "desc"))]
                assert found == sorted(expected, reverse=True), where


async def test_create_table_never_makes_no_columns() -> None:
    """The statements of the error make them; a table that lacks them works without."""
    name = fresh_name()
    settings: dict[str, Any] = {
        "url": url(),
        "table": name,
        "create_table": "never",
        "columns": {"n": "number", "t": "text"},
    }
    with pytest.raises(ConfigError) as caught:
        await AsyncDatabase.create("postgres", settings)
    async with connected() as outside:
        await outside.execute(str(caught.value).partition("create it with:\n")[2])
    db = await AsyncDatabase.create("postgres", settings)
    more = await AsyncDatabase.create("postgres", {**settings, "columns": {"late": "text"}})

    assert (await db.explain(field("n") == 1)).columns == ("n",)
    plan = await more.explain((field("n") == 1) & (field("late") == "x"))
    assert (plan.columns, plan.missing_columns) == (("n",), ("late=text",))
    await db._backend.drop(name)  # type: ignore[attr-defined]
    await db.close()
    await more.close()


async def test_a_role_that_may_not_alter_the_table_works_without() -> None:
    """An empty table of another role is not changed, and adding columns to it is an AccessError."""
    async with fresh_database() as address:
        role = fresh_name()
        async with connected(address) as outside:
            owner = await AsyncDatabase.create("postgres", {"url": address, "table": "t"})
            await owner.close()
            await outside.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
            await outside.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON t TO {role}")
            settings = {
                "url": address,
                "user": role,
                "password": "x",
                "table": "t",
                "columns": {"n": "number"},
            }
            db = await AsyncDatabase.create("postgres", settings)
            try:
                await db.create({"n": 1})
                assert await db.count(field("n") == 1) == 1
                with pytest.raises(AccessError):
                    await declare_columns(db, columns_of({"n": "number"}))
            finally:
                await db.close()
                await outside.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_table_of_1600_columns_is_a_config_error() -> None:
    """It says what to do, whether the table is empty or not."""
    async with opened() as db:
        columns = ", ".join(f"ADD COLUMN c{number} int" for number in range(1_594))
        async with connected() as outside:
            await outside.execute(f"ALTER TABLE {db.collection_name} {columns}")

        with pytest.raises(ConfigError, match="declare fewer"):
            await AsyncDatabase.create(
                "postgres", {"url": url(), "table": db.collection_name, "columns": {"n": "number"}}
            )
        await db.create({"n": 1})
        with pytest.raises(ConfigError, match="declare fewer"):
            await declare_columns(db, columns_of({"n": "number"}))
        assert await db.count(field("n") == 1) == 1


async def test_a_view_of_the_users_own_is_named_in_the_refusal() -> None:
    """And not dropped; without it the columns are changed."""
    async with opened(columns={"n": "number"}) as db, connected() as outside:
        view = fresh_name()
        await outside.execute(f'CREATE VIEW "{view}" AS SELECT * FROM "{db.collection_name}"')
        with pytest.raises(ConfigError, match=f"view {view} depends .*; drop what depends on it"):
            await declare_columns(db, columns_of({"t": "text"}))
        with pytest.raises(ConfigError, match=view):
            await drop_columns(db, [parse_path("n")])
        await outside.execute(f'DROP VIEW "{view}"')
        await declare_columns(db, columns_of({"t": "text"}))
        assert {"n", "t"} < set((await _marks(db.collection_name))[1])


@pytest.mark.parametrize("declared", [{"columns": {"n": "number"}}, {"unique": [["n"]]}, {"changes": True}])
async def test_readers_do_not_wait_behind_a_declaration(declared: dict[str, Any]) -> None:
    """It waits for an open transaction in short attempts, and is done when that ends."""
    async with opened() as db:
        reader = await AsyncDatabase.open(url(), {"table": db.collection_name, "deadline": 3})
        async with reader:
            async with db.transaction() as tx:
                await tx.create({"n": 1})
                task = asyncio.create_task(_declare(reader, declared))
                for _ in range(8):
                    assert await reader.count() == 0
                    await asyncio.sleep(0.4)
                assert not task.done()
            await asyncio.wait_for(task, 30)
            assert await reader.count() == 1


async def _declare(db: AsyncDatabase, declared: dict[str, Any]) -> None:
    backend: Any = db._backend
    if "columns" in declared:
        await declare_columns(db, columns_of(declared["columns"]))
    elif "unique" in declared:
        await backend.make_unique(db.collection_name, next(iter(unique_of(declared["unique"]))))
    else:
        await backend.make_changes(db.collection_name)


async def test_numbers_beyond_64_bits_stay_what_they_are() -> None:
    """Raw SQL may write what no float holds: it is in the column, and is compared exactly."""
    async with opened(columns={"n": "number"}) as db:
        await db.create(Record({"n": 1}, id="a"))
        async with connected() as outside:
            await outside.execute(
                f"INSERT INTO {db.collection_name} (id, data, version) VALUES ('b', '{{\"n\": 1e400}}', 1),"
                " ('c', '{\"n\": 123456789012345678901234567890}', 1)"
            )

        assert [r.id for r in await db.search(field("n") > 1e300)] == ["b"]
        assert [r.id for r in await db.search(field("n") > 2**62)] == ["b", "c"]


async def test_a_handle_whose_columns_another_one_dropped_goes_on() -> None:
    """Whether it dropped the columns or the table; each call is repeated without them."""
    async with opened(columns={"n": "number"}) as db:
        await db.create_batch([{"n": number} for number in range(10)])
        other = await AsyncDatabase.create("postgres", {"url": url(), "table": db.collection_name})
        try:
            await drop_columns(other, [parse_path("n")])
            assert await db.count(field("n") >= 5) == 5
            assert (await db.explain(field("n") == 1)).columns == ()

            await declare_columns(db, columns_of({"n": "number"}))
            assert (await db.explain(field("n") == 1)).columns == ("n",)
            await other.drop_collection(db.collection_name)
            await other.create({"n": 7})
            assert [r.data for r in await db.search(Query().sort("n").limit(3))] == [{"n": 7}]
            assert await db.delete_where(field("n") == 7) == 1
        finally:
            await other.close()
