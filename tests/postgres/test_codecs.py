"""Codecs that a hook registers on the pool's connections: they are for SQL of the user, not for ours."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from psycopg.adapt import Dumper, Loader

import isthmus.native
from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import UnexpectedError
from tests.postgres.databases import connected, opened

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]
Hook = Callable[[Any], Awaitable[None]]

# All types of parameters and results of our statements, and those that a change might use.
_TYPES = ("text", "varchar", "jsonb", "json", "int4", "int8", "bool", "bytea", "numeric", "timestamptz")


async def replace_json(connection: Any) -> None:
    """Register what asyncpg's manual shows: Python values in place of JSON texts."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def replace_everything(connection: Any) -> None:
    """Register codecs that spoil every value."""
    for name in _TYPES:
        await connection.set_type_codec(
            name, encoder=lambda value: f"<{value}>", decoder=lambda text: ("?", text), schema="pg_catalog"
        )


class _Spoiled(Loader):
    def load(self, data: Any) -> Any:
        return ("?", bytes(data))


class _Spoiling(Dumper):
    def dump(self, obj: Any) -> bytes:
        return b"<?>"


async def replace_adapters(connection: Any) -> None:
    """Register loaders and dumpers of psycopg that spoil every value."""
    for name in _TYPES:
        connection.raw.adapters.register_loader(name, _Spoiled)
    for kind in (str, int, bool, bytes):
        connection.raw.adapters.register_dumper(kind, _Spoiling)


HOOKS = [
    pytest.param("asyncpg", replace_json, id="asyncpg json"),
    pytest.param("asyncpg", replace_everything, id="asyncpg all types"),
    pytest.param("psycopg", replace_adapters, id="psycopg all types"),
]


async def use_every_statement(db: AsyncDatabase) -> list[Any]:
    """Write by every path and read by every path; return what came back, without times and versions."""
    seen: list[Any] = []
    # Singles, `unnest`, COPY, the temporary table, locked rows; with and without metadata.
    await db.create(Record({"n": 1, "s": "é"}, id="one", metadata={"m": 1}))
    await db.upsert(Record({"n": 2, "list": [1, "a", {"b": None}]}, id="two"))
    await db.update("one", {"more": True})
    await db.replace("two", {"n": 22, "list": [1, "a"]})
    await db.create_batch([Record({"n": n}, id=f"few{n}", metadata={"m": n}) for n in range(5)])
    await db.create_batch([Record({"n": n}, id=f"copy{n:03}") for n in range(150)])
    await db.upsert_batch([Record({"n": n, "x": [n]}, id=f"stage{n:04}") for n in range(2_100)])
    await db.update_batch([("few1", {"p": 1}), ("few1", {"q": 2})])
    await db.upsert_batch([Record({"v": 1}, id="twice"), Record({"v": 2}, id="twice")])
    version = (await db.require("one")).version
    seen.append(await db.update("one", {"cas": 1}, if_version=version) != version)
    await db.delete("few0")
    await db.delete_batch(["few2", "copy001"])
    async with db.transaction() as tx:
        await tx.create(Record({"n": -1}, id="tx"))
        seen.append((await tx.require("tx", for_update=True)).data)
    # Reads.
    seen += [record.data for record in await db.search(Query().sort("n").limit(2_300))]
    seen += [(await db.require("one")).data, (await db.require("one")).metadata]
    seen.append(await db.count(field("n").in_([1, 2, "x"])))
    seen.append(await db.count(field("list") == "a"))
    seen.append(await db.count((field("n") > 3) & (field("s").is_null())))
    seen += [record.id for record in await db.search(field("n").in_(list(range(300))) & (field("n") > 290))]
    rows = await db.aggregate(total=("sum", "n"), least=("min", "n"), all="count")
    seen.append(rows)
    async with db.stream(Query(), consistent=True) as records:
        seen.append(sorted([record.id async for record in records]))
    await db.explain(field("n") == 1)
    seen.append(await db.delete_where(field("n") < 3))
    return seen


@pytest.mark.parametrize("when", ["init", "setup"])
@pytest.mark.parametrize(("driver", "hook"), HOOKS)
async def test_codecs_of_a_hook_change_no_record(driver: str, hook: Hook, when: str) -> None:
    """Every write and read gives with codecs what it gives without."""
    settings: dict[str, Any] = {"driver": driver, "indexes": ["n"], "gin": ["list"]}
    async with opened(**settings) as plain, opened(**settings, pool={when: hook}) as hooked:
        expected = await use_every_statement(plain)
        actual = await use_every_statement(hooked)

    assert actual == expected


async def test_sql_of_the_user_has_the_codecs() -> None:
    """The hook was registered for that."""
    async with opened(pool={"init": replace_json}) as db:
        await db.create(Record({"n": 1}, id="a"))
        pool = await isthmus.native.postgres(db)

        stored = await pool.fetchval(f'SELECT data FROM "{db.collection_name}"')

    assert stored == {"n": 1}


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("column", ["data", "metadata"])
@pytest.mark.parametrize("text", ['"{}"', "[1]", "7", "null", "true"])
async def test_a_row_that_is_no_object_is_reported(driver: str, column: str, text: str) -> None:
    """SQL of others can store any JSON; a record is an object."""
    async with opened(driver=driver) as db, connected() as connection:
        await db.create_batch([Record({"n": 1}, id="good"), Record({"n": 1}, id="bad-one")])
        await connection.execute(
            f"UPDATE \"{db.collection_name}\" SET {column} = $1::text::jsonb WHERE id = 'bad-one'", text
        )

        assert (await db.require("good")).data == {"n": 1}
        with pytest.raises(UnexpectedError, match="bad-one"):
            await db.get("bad-one")
        with pytest.raises(UnexpectedError, match="bad-one"):
            await db.search(Query())
        with pytest.raises(UnexpectedError, match="bad-one"):
            async with db.stream(Query(), consistent=True) as records:
                async for _ in records:
                    pass


@pytest.mark.parametrize(("driver", "hook"), HOOKS)
async def test_declared_columns_bind_values_without_the_users_codecs(driver: str, hook: Hook) -> None:
    """Numbers, lists of them, truth values and texts."""
    columns = {"n": "number", "t": "text", "b": "bool"}
    async with opened(driver=driver, pool={"setup": hook}, columns=columns) as db:
        await db.create_batch([{"n": 1.5, "t": "x", "b": True}, {"n": [1.5], "t": 2, "b": False}])

        assert await db.count(field("n") == 1.5) == 2
        assert await db.count(field("n").in_([1.5, 7])) == 2
        assert await db.count((field("b") == True) & (field("t") >= "x")) == 1  # noqa: E712
        assert await db.count(field("t").in_(["x", 2])) == 2
        page = await db.page(Query().sort("n").sort("b"), size=1)
        assert [
            r.data["b"] for r in (await db.page(Query().sort("n").sort("b"), cursor=page.cursor)).records
        ] == [True]
        assert await db.aggregate(by="b", total=("sum", "n")) == [
            {"b": False, "total": 1.5},
            {"b": True, "total": 1.5},
        ]
