"""Values of tables of others are the same whatever the session's settings are, with both drivers."""

from __future__ import annotations

import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, Query, field
from isthmus.backends.postgres.native.binary import read_interval
from isthmus.backends.postgres.native.texts import decimal_of, interval_text, is_shortest_decimal
from isthmus.errors import InvalidRecordError
from tests.postgres.databases import connected, fresh_schema, url
from tests.seeds import drawn

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]
Opener = Callable[..., Awaitable[AsyncDatabase]]

TABLES = r"""
CREATE DOMAIN measures AS float8[];
CREATE TABLE floats (id int PRIMARY KEY, f float8, a float8[], r real, ra real[], m measures, aa real[]);
INSERT INTO floats VALUES (1, 0.30000000000000004, ARRAY[0.30000000000000004::float8], 1.1, ARRAY[1.1::real],
  ARRAY[1e23, NULL, 5e-324], ARRAY[[1.1, 2], [NULL, 0.1]]), (2, 0.2, '{}', 0.1, NULL, NULL, NULL);
CREATE TABLE numbers (id int PRIMARY KEY, n numeric);
INSERT INTO numbers VALUES (1, 0.30000000000000004), (2, 1e23), (3, 0.1), (4, 5e-324),
  (5, 0.123456789012345678);
CREATE TABLE exact (f float8 PRIMARY KEY, n int);
INSERT INTO exact VALUES (0.30000000000000004, 1), (0.3, 2);
CREATE TABLE versions (id int PRIMARY KEY, v float8);
INSERT INTO versions VALUES (1, 0.30000000000000004);
CREATE TABLE names (id int PRIMARY KEY, short name, shorts name[], t text);
CREATE TABLE spans (k interval PRIMARY KEY, s interval, ss interval[], b bytea, bs bytea[]);
INSERT INTO spans VALUES ('-1 year -2 mons +3 days -04:05:06.789', '1 day',
  ARRAY[['100:00:00'], [NULL]]::interval[],
  '\x00ff', ARRAY['\x00ff', '\x5c']::bytea[]), ('10 days', '00:00:00', NULL, '\x', '{}');
"""
SETTINGS = {
    "defaults": {},
    "fewer digits": {"extra_float_digits": "0", "IntervalStyle": "iso_8601", "bytea_output": "escape"},
    "fewest digits": {"extra_float_digits": "-15", "IntervalStyle": "sql_standard"},
    "quoted": {"extra_float_digits": "3", "IntervalStyle": "postgres_verbose", "quote_all_identifiers": "on"},
}
R, TENTH = 1.100000023841858, 0.10000000149011612


@pytest_asyncio.fixture
async def owner() -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection whose new schema has the tables."""
    async with fresh_schema(TABLES) as sql:
        yield sql


@pytest.fixture(params=SETTINGS)
def session(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the settings of the sessions."""
    return SETTINGS[request.param]


@pytest_asyncio.fixture(params=["asyncpg", "psycopg"])
async def tables(
    owner: asyncpg.Connection, session: dict[str, str], request: pytest.FixtureRequest
) -> AsyncIterator[Opener]:
    """Yield what opens a handle on one of the tables."""
    schema = await owner.fetchval("SELECT current_schema")
    opened: list[AsyncDatabase] = []

    async def open_table(table: str, **settings: Any) -> AsyncDatabase:
        given = {"url": url(), "schema": schema, "table": table, "layout": "native", **settings}
        given |= {"driver": request.param, "server_settings": session}
        opened.append(await AsyncDatabase.create("postgres", given))
        return opened[-1]

    yield open_table
    for db in opened:
        await db.close()


async def test_floats_are_read_found_and_written_back_exactly(
    tables: Opener, owner: asyncpg.Connection
) -> None:
    """In columns, arrays, arrays of arrays and domains: a stored float is the same number everywhere."""
    db = await tables("floats")
    stored = await owner.fetchrow("SELECT * FROM floats WHERE id = 1")

    record = await db.require("1")
    assert record.data == {
        **{"id": 1, "f": 0.30000000000000004, "a": [0.30000000000000004], "r": R, "ra": [R]},
        **{"m": [1e23, None, 5e-324], "aa": [[R, 2.0], [None, TENTH]]},
    }
    assert (await db.require("2")).data["a"] == []
    for name, value in (("f", record.data["f"]), ("a", record.data["f"]), ("r", R), ("ra", R), ("aa", R)):
        assert await db.count(field(name) == value) == 1, name
    await db.replace("1", record.data)
    assert await owner.fetchrow("SELECT * FROM floats WHERE id = 1") == stored
    await db.create({"id": 3, "ra": [R]})
    assert (await db.require("3")).data["ra"] == [R]
    with pytest.raises(InvalidRecordError, match=r"cannot hold 1\.1 exactly"):
        await db.update("3", {"ra": [1.1]})


async def test_aggregates_and_orders_of_floats_are_exact(tables: Opener) -> None:
    """Extremes and group keys are stored values, sums those of the stored values, and pages miss none."""
    db = await tables("floats")

    found = await db.aggregate(m=("max", "f"), low=("min", "r"), s=("sum", "r"), sf=("sum", "f"))
    assert found == [{"m": 0.30000000000000004, "low": TENTH, "s": R + TENTH, "sf": 0.5}]
    assert {row["r"] for row in await db.aggregate(by="r", n="count")} == {R, TENTH}
    assert {row["f"] for row in await db.aggregate(by="f", n="count")} == {0.30000000000000004, 0.2}
    assert await db.aggregate(n=("count_distinct", "a")) == [{"n": 1}]
    page = await db.page(Query().sort("r"), size=1)
    rest = await db.page(Query().sort("r"), size=1, cursor=page.cursor)
    assert [record.id for record in [*page.records, *rest.records]] == ["2", "1"]


async def test_numerics_with_a_json_form_are_values(tables: Opener) -> None:
    """A numeric is a value if it is the shortest decimal of a float, and else none."""
    db = await tables("numbers")

    for value in (0.30000000000000004, 1e23, 0.1, 5e-324):
        assert await db.count(field("n") == value) == 1
    assert await db.aggregate(n=("count", "n"), m=("max", "n")) == [{"n": 4, "m": 1e23}]
    with pytest.raises(InvalidRecordError):
        _ = (await db.require("5")).data


async def test_float_keys_and_versions_are_exact(tables: Opener, owner: asyncpg.Connection) -> None:
    """The id is the float's canonical text; two floats with the same 15 digits are two versions."""
    db, versioned = await tables("exact"), await tables("versions", version="v")

    assert (await db.require("0.30000000000000004")).data["n"] == 1
    assert await db.count(field("_id").in_(["0.3", "0.30000000000000004"])) == 2
    before = (await versioned.require("1")).version
    await owner.execute("UPDATE versions SET v = 0.3")
    assert (await versioned.require("1")).version != before


async def test_intervals_and_bytes_are_read_found_and_written_back(tables: Opener) -> None:
    """Keys, columns and arrays of both have one form."""
    db, key = await tables("spans"), "-1 years -2 mons +3 days -04:05:06.789"
    data = {"k": key, "s": "1 day", "ss": [["100:00:00"], [None]], "b": "AP8=", "bs": ["AP8=", "XA=="]}

    assert (await db.require(key)).data == data
    assert [record.id for record in await db.search(Query().sort("_id"))] == [key, "10 days"]
    assert await db.count(field("s") == "1 day") == await db.count(field("s").starts_with("1 d")) == 1
    assert await db.count(field("ss") == "100:00:00") == await db.count(field("bs") == "XA==") == 1
    assert await db.aggregate(m=("max", "s"), low=("min", "s")) == [{"m": "1 day", "low": "00:00:00"}]
    assert {row["s"] for row in await db.aggregate(by="s", n="count")} == {"1 day", "00:00:00"}
    await db.replace(key, data)
    assert (await db.require(key)).data == data
    assert await db.create({"k": "-1 days +02:00:00"}) == "-1 days +02:00:00"
    assert await db.create_batch([{"k": "-7 days +00:00:01"}, {"k": "8 days"}]) == [
        "-7 days +00:00:01",
        "8 days",
    ]
    with pytest.raises(InvalidRecordError):
        await db.create({"k": "26 hours"})


async def test_a_name_is_refused_where_it_would_be_cut(tables: Opener) -> None:
    """In arrays too; types are known by the catalog, whatever names the server writes for them."""
    db = await tables("names")

    for data in ({"short": "x" * 64}, {"shorts": ["x" * 64]}):
        with pytest.raises(InvalidRecordError):
            await db.create({"id": 1, **data})
    with pytest.raises(InvalidRecordError, match=r"column 't' \(text\) holds text"):
        await db.create({"id": 1, "t": 1})
    assert await db.count() == 0


async def test_the_texts_are_those_of_the_default_settings(session: dict[str, str]) -> None:
    """Of random values: decimals as Python has them, intervals as the server writes them by default."""
    numbers = random.Random(drawn())
    floats = [struct.unpack("d", numbers.randbytes(8))[0] for _ in range(2_000)]
    floats = [number for number in floats if abs(number) < float("inf")]
    floats += [numbers.random() * 10.0 ** numbers.randint(-3, 25) for _ in range(1_000)]
    floats += [5e-324, 1e23, 1.7976931348623157e308, 1.797693134862315e308, 2.2250738585072014e-308]
    decimals = [Decimal(f"{number:.{digits}e}") for number in floats for digits in range(13, 18)]
    decimals += [Decimal(repr(number)) for number in floats]
    decimals = [number for number in decimals if 0 < abs(number) <= Decimal("1.7976931348623157e308")]
    times = [0, 0, 1, -1, *(numbers.randint(-(10**12), 10**12) for _ in range(4))]
    draws = [[numbers.choice(times) for _ in range(3)] for _ in range(500)]
    spans = [f"{one % 50 - 25} mons {two % 9 - 4} days {three} us" for one, two, three in draws]
    async with connected() as sql:
        want = await sql.fetch("SELECT s::interval::text FROM unnest($1::text[]) AS s", spans)
        for name, value in session.items():
            await sql.execute(f"SET {name} = '{value}'")
        sums = await sql.fetch(f"SELECT f, ({decimal_of('f')})::text FROM unnest($1::float8[]) AS f", floats)
        shortest = await sql.fetch(
            f"SELECT n, {is_shortest_decimal('n')} FROM unnest($1::numeric[]) AS n", decimals
        )
        found = await sql.fetch(
            f"SELECT {interval_text('s.v')}, interval_send(s.v)"
            " FROM (SELECT v::interval FROM unnest($1::text[]) AS v) AS s",
            [row[0] for row in want],
        )

    assert [number for number, text in sums if float(text) != number] == []
    assert [n for n, given in shortest if given != (Decimal(repr(float(n))) == n)] == []
    assert [row[0] for row in found] == [row[0] for row in want] == [read_interval(row[1]) for row in found]
