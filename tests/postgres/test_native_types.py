"""Keys, types and refusals that tables of others have beyond those of a shop, with both drivers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import (
    AlreadyExistsError,
    BatchError,
    ConfigError,
    ConflictError,
    InvalidRecordError,
    NotFoundError,
    UnsupportedError,
)
from tests.native_suite import check_keys
from tests.postgres.databases import fresh_name, fresh_schema, url

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]
Opener = Callable[..., Awaitable[AsyncDatabase]]

TABLES = """
CREATE TABLE hosts (k inet PRIMARY KEY, n int);
INSERT INTO hosts VALUES ('10.0.0.1', 1), ('2.0.0.1', 2), ('::1', 3), ('10.0.0.0/8', 4);
CREATE TABLE spans (k interval PRIMARY KEY, n int);
INSERT INTO spans VALUES ('1 day', 1), ('36:00:00', 2), ('10 days', 3);
CREATE TABLE digests (k bytea PRIMARY KEY, n int);
INSERT INTO digests VALUES ('\\x00', 1), ('\\xffff', 2), ('\\xfb', 3);
CREATE TABLE trees (k jsonb PRIMARY KEY);
CREATE TABLE lists (k int[] PRIMARY KEY);
CREATE TABLE rewritten (id int PRIMARY KEY, short name, span interval, spans interval[]);
CREATE TABLE unruly (id int PRIMARY KEY, note text UNIQUE);
CREATE FUNCTION unruly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.note = 'own state' THEN RAISE EXCEPTION 'house rule' USING ERRCODE = 'MY001'; END IF;
  IF NEW.note = 'assert' THEN ASSERT FALSE, 'house rule'; END IF;
  IF NEW.note = 'no data' THEN RAISE no_data_found USING MESSAGE = 'house rule'; END IF;
  IF NEW.note = 'privilege' THEN RAISE insufficient_privilege USING MESSAGE = 'house rule'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER unruly BEFORE INSERT OR UPDATE ON unruly FOR EACH ROW EXECUTE FUNCTION unruly();
CREATE TABLE flights (id int PRIMARY KEY, at timestamptz, carrier text);
INSERT INTO flights SELECT n,
  CASE WHEN n % 7 > 0 THEN timestamptz '2024-01-01 00:00:00+00' + n * interval '1 hour' END, 'c' || n % 3
  FROM generate_series(1, 60) AS n;
INSERT INTO flights VALUES (99, 'infinity', 'c0');
CREATE INDEX ON flights (at);
CREATE TABLE animals (id int PRIMARY KEY, name text);
CREATE TABLE dogs (breed text) INHERITS (animals);
INSERT INTO animals VALUES (1, 'cat'), (2, 'cow'); INSERT INTO dogs VALUES (1, 'dog', 'poodle');
CREATE TABLE places (id int PRIMARY KEY);
INSERT INTO places VALUES (1), (2);
CREATE TABLE visits (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, place int, seat int,
  loud text GENERATED ALWAYS AS (place::text || '!') STORED,
  CONSTRAINT known FOREIGN KEY (place) REFERENCES places (id) DEFERRABLE INITIALLY DEFERRED,
  CONSTRAINT own_seat UNIQUE (seat) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO visits (place, seat) VALUES (1, 1);
CREATE TABLE documents (id int PRIMARY KEY, plain json, binary_form jsonb);
INSERT INTO documents VALUES (1, '[12345678901234567890]', '[12345678901234567890]');
CREATE TABLE labels (id int PRIMARY KEY, texts text[], v text, n int, must int NOT NULL DEFAULT 0);
INSERT INTO labels VALUES (1, NULL, 'a', 3), (2, NULL, 'B', NULL), (3, NULL, '-b', 1), (4, NULL, 'ab', 2);
CREATE INDEX ON labels (n); CREATE INDEX ON labels (must);
CREATE VIEW carriers AS SELECT DISTINCT carrier FROM flights;
"""


@pytest_asyncio.fixture
async def owner() -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection whose new schema has the tables."""
    async with fresh_schema(TABLES) as sql:
        yield sql


@pytest_asyncio.fixture(params=["asyncpg", "psycopg"])
async def tables(owner: asyncpg.Connection, request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
    """Yield what opens a handle on one of the tables."""
    schema = await owner.fetchval("SELECT current_schema")
    opened: list[AsyncDatabase] = []

    async def open_table(table: str, **settings: Any) -> AsyncDatabase:
        given = {"url": url(), "schema": schema, "table": table, "layout": "native", **settings}
        opened.append(await AsyncDatabase.create("postgres", {**given, "driver": request.param}))
        return opened[-1]

    yield open_table
    for db in opened:
        await db.close()


@pytest.mark.parametrize(
    ("table", "ids", "unknown"),
    [
        ("hosts", ["10.0.0.0/8", "10.0.0.1/32", "2.0.0.1/32", "::1/128"], "no address"),
        ("spans", ["1 day", "10 days", "36:00:00"], "no interval"),
        ("digests", ["+w==", "//8=", "AA=="], "no base64"),
    ],
)
async def test_every_key_that_a_search_shows_finds_its_row(
    tables: Opener, table: str, ids: list[str], unknown: str
) -> None:
    """Keys of types that are not written too: by canonical text, in its order; any other text is no row's."""
    db = await tables(table)

    assert await db.count(field("_id").in_([*ids, unknown])) == len(ids)
    await check_keys(db, ids, unknown)
    for call in (db.update, db.replace):
        with pytest.raises(NotFoundError):
            await call(unknown, {"n": 1})


async def test_elements_of_an_array_come_back_whatever_they_hold(tables: Opener) -> None:
    """Escapes, quotes, braces and what looks like NULL are text; an absent element is none."""
    texts = ["a\\b", "\\", 'q"x', '\\"', "{}", ",", "", "NULL", "null", None, " ", "é\n"]
    db = await tables("labels")
    await db.update("1", {"texts": texts})
    assert (await db.require("1"))["texts"] == texts
    assert await db.count(field("texts") == "a\\b") == 1


async def test_versions_sort_by_code_point(tables: Opener) -> None:
    """Whatever the language of the database is, where a text column is the version."""
    db = await tables("labels", version="v")
    for direction in ("asc", "desc"):
        page = await db.page(Query().sort("_version", direction), size=2)
        rest = await db.page(Query().sort("_version", direction), size=4, cursor=page.cursor)
        found = [record.version for record in [*page.records, *rest.records]]
        assert found == sorted(["a", "B", "-b", "ab"], reverse=direction == "desc")


async def test_a_key_of_json_or_lists_is_refused_at_opening(tables: Opener) -> None:
    for table in ("trees", "lists"):
        with pytest.raises(ConfigError, match="holds JSON or lists"):
            await tables(table)


async def test_a_table_that_others_inherit_from_is_read_only(tables: Opener) -> None:
    """Its key is that of its own rows only: a row of another table may have it too."""
    db = await tables("animals")

    assert await db.count() == 3
    assert (await db.require("2")).data == {"id": 2, "name": "cow"}
    with pytest.raises(InvalidRecordError, match="two rows"):
        await db.get("1")
    with pytest.raises(UnsupportedError, match="inherit"):
        await db.update("2", {"name": "ox"})


async def test_an_integer_of_json_beyond_64_bits_is_a_float(tables: Opener) -> None:
    db = await tables("documents")

    data = (await db.require("1")).data
    assert data == {"id": 1, "plain": [12345678901234567890.0], "binary_form": [12345678901234567890.0]}
    assert type(data["plain"][0]) is type(data["binary_form"][0]) is float
    await db.replace("1", data)


@pytest.mark.parametrize("value", [{"span": "26 hours"}, {"spans": ["26 hours"]}, {"short": "x" * 64}])
async def test_what_the_server_would_rewrite_is_refused(tables: Opener, value: dict[str, Any]) -> None:
    """An interval in another form than the server's, a `name` that it cuts: alone, in a batch, an update."""
    db = await tables("rewritten")
    await db.create({"id": 1, "span": "1 day", "spans": ["02:00:00"], "short": "é"})

    with pytest.raises(InvalidRecordError, match="cannot be given the value"):
        await db.create({"id": 2, **value})
    with pytest.raises(InvalidRecordError, match="cannot be given the value"):
        await db.update("1", value)
    with pytest.raises(BatchError, match="cannot be given the value"):
        await db.create_batch([{"id": 3, "short": "a"}, {"id": 4, **value}])
    assert [r.data for r in await db.search()] == [
        {"id": 1, "span": "1 day", "spans": ["02:00:00"], "short": "é"}
    ]


async def test_a_deferred_constraint_refuses_records_too(tables: Opener) -> None:
    """At the commit of a batch its item is named; at that of a transaction, the record is invalid."""
    visits, places = await tables("visits"), await tables("places")

    with pytest.raises(InvalidRecordError, match="known"):
        await visits.create({"place": 9})
    with pytest.raises(BatchError, match=r"item 1: .*known"):
        await visits.create_batch([{"place": 2}, {"place": 9}])
    with pytest.raises(BatchError, match=r"item 0: .*known"):
        await places.delete_batch(["1", "2"])
    with pytest.raises(InvalidRecordError, match="known"):
        async with visits.transaction() as tx:
            await tx.create({"place": 9})
    with pytest.raises(AlreadyExistsError, match="own_seat"):
        async with visits.transaction() as tx:
            await tx.create({"seat": 1})
    outcomes = await visits.create_batch([{"place": 2}, {"seat": 1}], atomic=False, on_error="collect")
    assert isinstance(outcomes[1], AlreadyExistsError)
    async with visits.transaction() as tx:  # what is put right before the commit is right
        await tx.create({"place": 3})
        await tx.collection("places").create({"id": 3})
    assert await visits.count() == 3


async def test_an_update_of_nothing_but_generated_columns_writes_none_of_them(tables: Opener) -> None:
    db = await tables("visits")
    before = await db.require("1")

    await db.update("1", {"id": 1, "loud": "1!"})

    after = await db.require("1")
    assert after.data == before.data
    assert after.version != before.version


async def test_a_column_whose_type_is_changed_under_the_handle_is_one_error(
    tables: Opener, owner: asyncpg.Connection
) -> None:
    db = await tables("hosts")
    assert await db.count(field("n") == 1) == 1
    await owner.execute("ALTER TABLE hosts ALTER COLUMN n TYPE text USING 'no number'")

    for call in (lambda: db.count(field("n") == 1), db.search, lambda: db.get("::1/128")):
        with pytest.raises(ConfigError, match="was changed or dropped"):
            await call()


RETYPED = {
    "int to numeric": ("int", "1", "numeric(10,2)", "1.6"),
    "int to float": ("int", "1", "float8", "1.6"),
    "float to numeric": ("float8", "1.5", "numeric", "0.12345678901234567891"),
    "numeric to int": ("numeric(10,2)", "1.5", "int", "2"),
    "date to timestamp": ("date", "'2024-01-01'", "timestamp", "'2024-01-01 15:00'"),
    "timestamp to date": ("timestamp", "'2024-01-01'", "date", "'2024-01-02'"),
    "timestamp to timestamptz": ("timestamp", "'2024-01-01'", "timestamptz", "'2024-01-02 00:00+00'"),
    "bytes to text": ("bytea", "'abc'", "text USING 'abc'", "'QUJD'"),
    "integers to numbers": ("int[]", "'{1}'", "numeric[]", "'{1.6}'"),
}


@pytest.mark.parametrize("change", RETYPED)
async def test_no_value_is_cast_to_the_type_that_a_column_had(
    tables: Opener, owner: asyncpg.Connection, change: str
) -> None:
    """Another program's migration, under an open handle: nothing is read rounded, let alone written back."""
    old, before, new, after = RETYPED[change]
    await owner.execute(f"CREATE TABLE moved (id int PRIMARY KEY, v {old}, n int); ")
    await owner.execute(f"INSERT INTO moved VALUES (1, {before}, 1)")
    db = await tables("moved")
    record = await db.require("1")
    assert await db.count(field("v") == record["v"]) == 1
    await owner.execute(f"ALTER TABLE moved ALTER v TYPE {new}; UPDATE moved SET v = {after}")
    stored = await owner.fetch("SELECT v::text, n FROM moved")

    calls: list[Callable[[], Awaitable[Any]]] = [
        db.search,
        lambda: db.get("1"),
        lambda: db.count(field("v") == record["v"]),
        lambda: db.aggregate(by="v", n="count"),
        lambda: db.create({"id": 2, "v": record["v"]}),
        lambda: db.create_batch([{"id": n, "v": record["v"]} for n in range(2, 9)]),
        lambda: db.update("1", {"v": record["v"]}),
        lambda: db.modify("1", field("n").inc(1)),
        lambda: db.update_where(field("n") == 1, field("n").inc(1)),
        lambda: db.delete_where(field("v") == record["v"]),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="open a new handle"):
            await call()
    assert await owner.fetch("SELECT v::text, n FROM moved") == stored


async def test_a_wider_integer_is_served_by_the_open_handle(
    tables: Opener, owner: asyncpg.Connection
) -> None:
    await owner.execute("CREATE TABLE moved (id int PRIMARY KEY, n int); INSERT INTO moved VALUES (1, 1)")
    db = await tables("moved")
    assert (await db.require("1")).data == {"id": 1, "n": 1}
    await owner.execute("ALTER TABLE moved ALTER n TYPE bigint; UPDATE moved SET n = 9007199254740993")

    assert (await db.require("1")).data == {"id": 1, "n": 9007199254740993}
    assert await db.count(field("n") == 9007199254740993) == 1


@pytest.mark.parametrize(
    ("key", "literals"),
    [
        ("valid_to date", ["'2024-01-01'", "'infinity'", "'0044-03-15 BC'"]),
        ("at timestamptz", ["'2024-01-01'", "'-infinity'"]),
        ("k numeric(30)", ["1", "12345678901234567890"]),
        ("k float8", ["1", "'NaN'"]),
    ],
)
async def test_a_row_whose_key_is_no_id_is_an_error_of_each_read_of_it(
    tables: Opener, owner: asyncpg.Connection, key: str, literals: list[str]
) -> None:
    """Of a page wherever it ends, and of a change by a condition, which skips no row (meaning §5, §8)."""
    name = key.partition(" ")[0]
    rows = ", ".join(f"({n % 2}, {literal}, 1)" for n, literal in enumerate(literals))
    await owner.execute(f"CREATE TABLE odd (id int, {key}, n int, PRIMARY KEY (id, {name}))")
    await owner.execute(f"INSERT INTO odd VALUES {rows}")
    db = await tables("odd")

    async def read_all(size: int) -> None:
        async for _ in db.stream(page_size=size):
            pass

    assert await db.count(field("n") == 1) == len(literals)
    assert await db.aggregate(n="count") == [{"n": len(literals)}]
    calls: list[Callable[[], Awaitable[Any]]] = [
        db.search,
        lambda: read_all(1),
        lambda: read_all(100),
        lambda: db.update_where(field("n") == 1, field("n").set(2)),
    ]
    for call in calls:
        with pytest.raises(InvalidRecordError, match="has no id") as raised:
            await call()
        assert raised.value.stored
    assert await db.count(field("n") == 1) == len(literals)
    assert await db.delete_where(field("n") == 1) == len(literals)


@pytest.mark.parametrize("type", ["int", "bigint", "timestamp", "timestamptz", "uuid"])
async def test_each_write_gives_the_version_column_a_value(
    tables: Opener, owner: asyncpg.Connection, type: str
) -> None:
    """The first one too, so that the second of two changes of what was read conflicts."""
    await owner.execute(f"CREATE TABLE revised (id int PRIMARY KEY, n int, revision {type})")
    db = await tables("revised", version="revision")
    await db.create({"id": 0, "n": 0})
    await db.create_batch([{"id": n, "n": 0} for n in range(1, 200)])
    await db.create_batch([{"id": 200, "n": 0, "revision": None}, {"id": 201, "n": 0}])
    await db.upsert("202", {"n": 0})

    assert await db.count(field("revision").is_null()) == 0
    for id in ("0", "150", "200", "201", "202"):
        record = await db.require(id)
        await db.update(id, {"n": 1}, if_version=record.version)
        with pytest.raises(ConflictError):
            await db.update(id, {"n": 2}, if_version=record.version)


@pytest.mark.parametrize("note", ["own state", "assert", "no data", "privilege"])
async def test_what_a_trigger_says_refuses_the_record_under_any_state(tables: Opener, note: str) -> None:
    db = await tables("unruly")
    await db.create({"id": 1, "note": "fine"})

    with pytest.raises(InvalidRecordError, match="house rule"):
        await db.create({"id": 2, "note": note})
    with pytest.raises(InvalidRecordError, match="house rule"):
        await db.modify("1", field("note").set(note))
    with pytest.raises(BatchError, match="house rule"):
        await db.create_batch([{"id": 3, "note": "too"}, {"id": 4, "note": note}])
    assert await db.count() == 1


async def test_a_text_that_no_index_has_room_for_is_the_records_fault(tables: Opener) -> None:
    db = await tables("unruly")

    with pytest.raises(InvalidRecordError, match="index row"):
        await db.create({"id": 1, "note": "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(9_000))})


async def test_a_policy_refuses_the_record_and_a_privilege_the_user(
    tables: Opener, owner: asyncpg.Connection
) -> None:
    """A row that its policy does not admit is invalid; a hidden row's key is taken."""
    schema, role = await owner.fetchval("SELECT current_schema"), fresh_name()
    await owner.execute(
        "CREATE TABLE private (id int PRIMARY KEY, who text);"
        "INSERT INTO private VALUES (1, 'me'), (2, 'you');"
        "ALTER TABLE private ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON private USING (who = 'me');"
        f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON private TO {role}"
    )
    try:
        db = await tables("private", server_settings={"role": role})
        assert [record.id for record in await db.search()] == ["1"]
        with pytest.raises(InvalidRecordError, match="row-level security"):
            await db.create({"id": 3, "who": "you"})
        with pytest.raises(AlreadyExistsError):
            await db.create(Record({"who": "me"}, id="2"))
        await owner.execute(
            "DROP POLICY mine ON private; CREATE POLICY seen ON private FOR SELECT USING (true)"
        )
        await owner.execute("CREATE POLICY mine ON private FOR UPDATE USING (who = 'me')")
        for refused in (db.update("2", {"who": "me"}), db.modify("2", field("who").set("me"))):
            with pytest.raises(InvalidRecordError, match="refuses the change"):
                await refused
        with pytest.raises(BatchError, match="refuses the change"):
            await db.update_where(field("id") > 0, field("who").set("me"))
        with pytest.raises(BatchError) as batch:
            await db.modify_batch(
                {"1": field("who").set("me"), "2": field("who").set("me"), "7": field("who").unset()},
                atomic=False,
            )
        assert [type(outcome) for outcome in batch.value.outcomes[1:]] == [InvalidRecordError, NotFoundError]
        assert {record["who"] for record in await db.search()} == {"me", "you"}
    finally:
        await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_range_of_the_column_that_sorts_needs_one_pass_of_its_index(tables: Opener) -> None:
    """Rows without a value cannot match: no second part is read, and pages go on where the first ended."""
    db = await tables("flights")
    since = field("at") >= "2024-01-01T12:00:00.000000Z"
    for direction in ("asc", "desc"):
        query = Query(where=since & (field("carrier") != "c1")).sort("at", direction)
        everything = [record.id for record in await db.search(query)]
        assert len(everything) == 28
        seen, cursor = [], None
        while True:
            page = await db.page(query, size=4, cursor=cursor)
            seen += [record.id for record in page.records]
            if (cursor := page.cursor) is None:
                break
        assert seen == everything
        assert [r.id for r in await db.search(query.limit(5).offset(3))] == everything[3:8]
        assert "MATERIALIZED" not in (await db.explain(query.limit(5))).native
    assert "MATERIALIZED" in (await db.explain(Query(where=~since).sort("at").limit(5))).native


async def test_an_index_that_has_all_rows_in_order_is_read_in_one_pass(tables: Opener) -> None:
    """Rows without a value are last, which is where an index has them only if it is read upwards."""
    db = await tables("labels")
    for name, direction, passes, ids in (
        ("n", "asc", 1, ["3", "4", "1", "2"]),
        ("n", "desc", 2, ["1", "4", "3", "2"]),
        ("must", "asc", 1, ["1", "2", "3", "4"]),
        ("must", "desc", 1, ["1", "2", "3", "4"]),
    ):
        query = Query().sort(name, direction).limit(5)
        assert [record.id for record in await db.search(query)] == ids
        assert ("MATERIALIZED" in (await db.explain(query)).native) == (passes == 2), (name, direction)


async def test_explain_names_the_index_that_would_serve(tables: Opener, owner: asyncpg.Connection) -> None:
    """By code point for ranges, prefixes and orders of text; none for what is served, or cannot be."""
    schema = await owner.fetchval("SELECT current_schema")
    await owner.execute(
        'CREATE TABLE texts (id int PRIMARY KEY, a text COLLATE "und-x-icu", n numeric, j jsonb)'
    )
    db = await tables("texts")
    on = f'CREATE INDEX ON "{schema}"."texts"'
    for query, wanted in (
        (Query(where=field("a") == "x"), [f'{on} ("a")']),
        (Query(where=field("a").starts_with("x")), [f'{on} ("a" COLLATE "C")']),
        (Query().sort("a"), [f'{on} ("a" COLLATE "C")']),
        (Query(where=(field("n") > 1) & (field("j.x") == 1)).sort("n"), [f'{on} ("n")']),
        (Query(where=field("id") > 1).sort("_id"), []),
        (Query(where=field("a").like("%x")), []),
    ):
        plan = await db.explain(query)
        assert plan.details["would_serve"] == wanted, query
        assert all(f"would serve: {statement}" in str(plan) for statement in wanted)
    await owner.execute("CREATE INDEX ON texts (a); CREATE INDEX ON texts (a text_pattern_ops)")
    assert (await db.explain(field("a") == "x")).details["would_serve"] == []
    assert (await db.explain(field("a").starts_with("x"))).details["would_serve"] == []
    assert (await db.explain(field("a") > "x")).details["would_serve"] == [f'{on} ("a" COLLATE "C")']
    carriers = await tables("carriers", key=["carrier"])
    assert (await carriers.explain(field("carrier") == "c1")).details["would_serve"] == []
