"""Tables of a SQLite file that others made, with layout="native": read, written, refused, never altered."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from isthmus import AsyncDatabase, Query, Record, field
from isthmus.errors import (
    AlreadyExistsError,
    BatchError,
    ConfigError,
    ConflictError,
    InvalidRecordError,
    IsthmusError,
    NotFoundError,
    UnsupportedError,
)
from tests.sqlite.shop import make_shop

pytestmark = [pytest.mark.backend("sqlite"), pytest.mark.asyncio]

Opener: TypeAlias = Callable[..., Awaitable[AsyncDatabase]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file with the shop's tables."""
    path = tmp_path / "shop.db"
    make_shop(path)
    return path


@pytest_asyncio.fixture
async def shop(path: Path) -> AsyncIterator[Opener]:
    """Return a function that opens a handle on a table of the shop."""
    handles: list[AsyncDatabase] = []

    async def open_table(table: str, **settings: Any) -> AsyncDatabase:
        config = {"path": str(path), "layout": "native", "table": table, **settings}
        handles.append(await AsyncDatabase.create("sqlite", config))
        return handles[-1]

    yield open_table
    for handle in handles:
        await handle.close()


def sql(path: Path, statement: str, *arguments: Any) -> list[Any]:
    """Run a statement as the tables' owner."""
    connection = sqlite3.connect(path)
    with connection:
        rows = connection.execute(statement, arguments).fetchall()
    connection.close()
    return rows


async def test_rows_are_records(shop: Opener) -> None:
    """The key is the id and a field; NULL is missing; 0 and 1 are booleans where they are declared so."""
    customers, products = await shop("customer"), await shop("product")
    lines = customers.collection("line")

    cid = await customers.get("9")
    assert cid == Record(
        {"id": 9, "email": "cid@example.com", "name": "Cid", "active": True, "initial": "C"}, id="9"
    )
    assert cid is not None
    assert (cid.version, cid.created_at, cid.metadata) == (None, None, {})
    assert [r.id for r in await customers.search()] == ["1", "2", "9", "10"]
    assert [r.id for r in await customers.search(Query().sort("_id", "desc"))] == ["10", "9", "2", "1"]
    assert [r.id for r in await customers.search(field("_id") < "2")] == ["1", "10"]
    assert [r.data.get("extra") for r in await products.search()] == ["7", 7, "Nw=="]
    assert [r.data.get("photo") for r in await products.search()] == [None, "Af8=", ""]
    assert (await lines.get("[1,2]")) == Record(
        {"customer": 1, "pos": 2, "sku": "b", "amount": 1}, id="[1,2]"
    )
    for missing in ("007", "1.0", " 1", "one"):
        assert await customers.get(missing) is None
        assert not await customers.delete(missing)
    for missing in ("[1, 2]", "[1]", '["1",2]', "1"):
        assert await lines.get(missing) is None


async def test_text_ignores_case_only_where_it_must_not(shop: Opener) -> None:
    """NOCASE finds candidates; the answer is exact, and the table still refuses."""
    customers = await shop("customer")

    assert await customers.count(field("email") == "bob@example.com") == 0
    assert await customers.count(field("email") == "Bob@example.com") == 1
    assert await customers.count(field("email").starts_with("B")) == 1
    plan = await customers.explain(field("email") == "Bob@example.com")
    assert plan.index == "sqlite_autoindex_customer_1"
    with pytest.raises(AlreadyExistsError, match=r"customer\.email") as taken:
        await customers.create({"email": "BOB@example.com"})
    assert (taken.value.field, taken.value.record_id) == ("email", "2")


@pytest.mark.parametrize(
    ("predicate", "index"),
    [
        (field("name") == "Ann", "customer_name"),
        (field("name").in_(["Ann", "bob"]), "customer_name"),
        (field("name") >= "B", "customer_name"),
        (field("name").starts_with("An"), "customer_name"),
        (field("name").like("An%"), "customer_name"),
        (field("balance") > 5, "customer_balance"),
        (field("balance").between(1, 10), "customer_balance"),
        (Query().sort("name").limit(2), "customer_name"),
        (Query().sort("name", "desc").sort("balance").limit(2), "customer_name"),
        (Query(field("active") == True).sort("balance").limit(2), "customer_balance"),  # noqa: E712
        (field("_id") == "10", "primary key"),
        (field("id") > 9, "primary key"),
    ],
    ids=str,
)
async def test_the_tables_own_indexes_serve(shop: Opener, predicate: Any, index: str) -> None:
    """Explain names the index, which no statement of ours has made."""
    customers = await shop("customer")

    plan = await customers.explain(predicate)

    assert plan.index == index
    assert "EXACT" in str(plan)


async def test_what_no_row_has(shop: Opener) -> None:
    """Paths into a cell, metadata, times and a version: nothing found, in orders and groups neither."""
    customers = await shop("customer")

    for name in ("name.first", "_metadata.name", "_created_at", "_updated_at", "_version", "Name"):
        assert await customers.count(field(name).exists()) == 0
        assert await customers.count(field(name).is_null()) == 4
        assert [r.id for r in await customers.search(Query().sort(name))] == ["1", "2", "9", "10"]
        assert await customers.aggregate(by=name, n=("max", name)) == [{name: None, "n": None}]


async def test_explain_names_the_index_that_would_serve(shop: Opener) -> None:
    """By code point for ranges, prefixes and orders; none for what is served, and no statement is run."""
    customers = await shop("customer")

    for query, wanted in (
        (field("email").starts_with("a"), ['CREATE INDEX … ON "customer" ("email" COLLATE BINARY)']),
        (Query().sort("email"), ['CREATE INDEX … ON "customer" ("email" COLLATE BINARY)']),
        (field("active") == True, ['CREATE INDEX … ON "customer" ("active")']),  # noqa: E712
        (field("email") == "a", []),
        (Query(field("balance") > 1).sort("name"), []),
        (field("id") > 1, []),
    ):
        plan = await customers.explain(query)
        assert plan.details["would_serve"] == wanted


async def test_queries_mean_what_they_mean(shop: Opener) -> None:
    """Orders, pages, streams, groups and sums."""
    customers = await shop("customer")

    by_name = Query().sort("name").sort("balance", "desc")
    assert [r.id for r in await customers.search(by_name)] == ["1", "9", "10", "2"]
    first = await customers.page(by_name, size=3)
    second = await customers.page(by_name, size=3, cursor=first.cursor)
    assert [r.id for r in first.records + second.records] == ["1", "9", "10", "2"]
    assert [r.id async for r in customers.stream(page_size=1, consistent=True)] == ["1", "2", "9", "10"]
    rows = await customers.aggregate(by="active", n="count", total=("sum", "balance"))
    assert rows == [
        {"active": False, "n": 1, "total": 2.5},
        {"active": True, "n": 3, "total": 10},
    ]
    parts = await customers.partitions(Query(), 3)
    found = [record.id for part in parts for record in [r async for r in part.stream()]]
    assert sorted(found, key=lambda text: int(text or 0)) == ["1", "2", "9", "10"]


async def test_equal_ids_of_cells_of_two_types(shop: Opener, path: Path) -> None:
    """7 and '7' in a column without a type are one id: the second is refused, and both are an error."""
    sql(path, "CREATE TABLE loose (k PRIMARY KEY, n) WITHOUT ROWID")
    sql(path, "INSERT INTO loose VALUES (7, 1), (10, 2), (9, 3), ('a', 4)")
    loose = await shop("loose")

    assert [r.id for r in await loose.search()] == ["7", "9", "10", "a"]
    for taken in ({"k": "7"}, {"k": 7.0}, Record({}, id="7")):
        with pytest.raises(AlreadyExistsError):
            await loose.create(taken)
    sql(path, "INSERT INTO loose VALUES ('7', 5)")
    for call in (loose.get("7"), loose.search(), loose.update("7", {"n": 6})):
        with pytest.raises(InvalidRecordError, match="two rows"):
            await call
    assert await loose.count(field("_id") == "7") == 2


async def test_keys_come_from_the_data_the_table_or_us(shop: Opener) -> None:
    """A rowid and a default by the table, a text by isthmus; an id and its column agree."""
    customers, products = await shop("customer"), await shop("product")

    assert await customers.create({"email": "eve@example.com"}) == "11"
    assert await customers.create({"id": 40, "email": "fay@example.com"}) == "40"
    assert await customers.create(Record({"email": "gus@example.com"}, id="41")) == "41"
    assert (await customers.get("11")) == Record(
        {"id": 11, "email": "eve@example.com", "name": "nobody", "active": True, "initial": "n"}, id="11"
    )
    made = await products.create({"title": "Plum"})
    assert (await products.get(made)) == Record({"sku": made, "title": "Plum", "rev": 1}, id=made)
    with pytest.raises(InvalidRecordError, match="disagree"):
        await customers.create(Record({"id": 5, "email": "x"}, id="6"))
    with pytest.raises(InvalidRecordError, match="canonical"):
        await customers.create(Record({"email": "x"}, id="007"))
    with pytest.raises(InvalidRecordError, match="'pos'"):
        await customers.collection("line").create({"customer": 1})
    with pytest.raises(AlreadyExistsError) as taken:
        await customers.create({"id": 1, "email": "new@example.com"})
    assert (taken.value.record_id, taken.value.field) == ("1", None)


_CUSTOMER = {"email": "new@example.com"}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a text that would become a number": ("customer", {**_CUSTOMER, "balance": "007"}, "data.balance"),
    "a number for text": ("customer", {**_CUSTOMER, "name": 5}, "data.name"),
    "a number for a boolean": ("customer", {**_CUSTOMER, "active": 1}, "data.active"),
    "a boolean for a number": ("customer", {**_CUSTOMER, "balance": True}, "data.balance"),
    "a list": ("product", {"extra": [1]}, "data.extra"),
    "an object": ("product", {"extra": {"a": 1}}, "data.extra"),
    "no base64": ("product", {"photo": "?"}, "data.photo"),
    "an integer that no real is": ("product", {"price": 2**53 + 1}, "data.price"),
    "a name that is no column": ("product", {"Title": "x"}, "data.Title"),
    "a NULL where none may be": ("customer", {"email": None}, "data.email"),
    "a missing value where one must be": ("customer", {"name": "x"}, "data.email"),
    "a check": ("customer", {**_CUSTOMER, "balance": -1}, "data"),
    "a generated column": ("customer", {**_CUSTOMER, "name": "Bo", "initial": "C"}, "data.initial"),
    "a foreign key": ("line", {"customer": 77, "pos": 1}, "data"),
    "a trigger": ("line", {"customer": 1, "pos": 9, "amount": 101}, "data"),
    "a deferred foreign key": ("line", {"customer": 1, "pos": 9, "sku": "nothing"}, "data"),
}


@pytest.mark.parametrize("refused", REFUSED)
async def test_what_a_table_cannot_hold_is_refused(shop: Opener, path: Path, refused: str) -> None:
    """One typed error with the column or the constraint; nothing is written, in a batch neither."""
    table, data, where = REFUSED[refused]
    db = await shop(table)
    before = sql(path, f"SELECT * FROM {table}")

    with pytest.raises(InvalidRecordError) as caught:
        await db.create(data)
    good = {"customer": {"email": "z"}, "product": {"sku": "z"}, "line": {"customer": 2, "pos": 50}}
    with pytest.raises(BatchError) as batch:
        await db.create_batch([good[table], data])
    async with db.transaction() as tx:
        if "deferred" not in refused:
            with pytest.raises(InvalidRecordError):
                await tx.create(data)

    assert caught.value.path == where
    assert "deferred" in refused or any(isinstance(o, InvalidRecordError) for o in batch.value.outcomes)
    assert sql(path, f"SELECT * FROM {table}") == before
    if refused == "a check":
        assert "no_debt" in str(caught.value)


async def test_a_generated_column_may_be_given_the_value_it_has(shop: Opener) -> None:
    """So a record that was read can be written back."""
    customers = await shop("customer")
    ann = await customers.get("1")
    assert ann is not None

    await customers.replace("1", ann)
    await customers.upsert(ann)

    assert await customers.get("1") == ann
    with pytest.raises(InvalidRecordError, match="initial"):
        await customers.replace("1", {**ann.data, "initial": "Z"})


async def test_replace_sets_null_and_update_leaves_the_rest(shop: Opener) -> None:
    """Create leaves absent columns to their defaults."""
    products = await shop("product")

    await products.replace("a", {"rev": 3})
    await products.update("b", {"title": "Pear", "price": None})
    await products.upsert("c", {"title": "Fig"})

    assert (await products.get("a")) == Record({"sku": "a", "rev": 3}, id="a")
    assert (await products.get("b")) == Record(
        {"sku": "b", "title": "Pear", "photo": "", "extra": "Nw==", "rev": 1}, id="b"
    )
    assert (await products.get("c")) == Record({"sku": "c", "title": "Fig", "rev": 1}, id="c")
    for call in (products.update("x", {"title": ""}), products.replace("x", {"rev": 1})):
        with pytest.raises(NotFoundError):
            await call
    with pytest.raises(InvalidRecordError, match="disagree"):
        await products.update("a", {"sku": "b"})
    assert await products.delete("c")
    assert not await products.delete("c")


async def test_modifications_write_what_they_change(shop: Opener, path: Path) -> None:
    """By id, in a batch and by condition; a cell that is not changed stays what it was."""
    products = await shop("product")
    cells = "SELECT typeof(photo), typeof(extra) FROM product ORDER BY sku"
    before = sql(path, cells)

    await products.modify("a", field("price").inc(0.25), where=field("title") == "Apple")
    await products.modify_batch({"a": field("rev").inc(1), "b": [field("title").set("Pear")]})
    assert await products.update_where(field("price") > 1, field("rev").inc(10)) == 3

    assert sql(path, cells) == before
    assert sql(path, "SELECT sku, title, price, rev FROM product ORDER BY sku") == [
        ("A", "APPLE", 2.0, 11),
        ("a", "Apple", 1.75, 12),
        ("b", "Pear", 3.25, 11),
    ]
    with pytest.raises(ConflictError):
        await products.modify("a", field("rev").inc(1), where=field("title") == "Pear")
    for refused in (
        field("sku").set("z"),
        field("new").set(1),
        field("rev").set("007"),
        field("title").push(1),
    ):
        with pytest.raises(InvalidRecordError):
            await products.modify("a", refused)
    with pytest.raises(BatchError, match="nothing was changed"):
        await products.update_where(field("price") > 0, field("extra").inc(1))
    assert [row[0] for row in sql(path, "SELECT rev FROM product ORDER BY sku")] == [11, 12, 11]


async def test_fifty_concurrent_changes_add_up(shop: Opener) -> None:
    """Without versions: modifications, batches of them, and transactions."""
    products = await shop("product")

    async def count_up() -> None:
        await products.modify("a", field("rev").inc(1))
        await products.modify_batch({"a": field("rev").inc(1), "b": field("rev").inc(1)})
        async with products.transaction() as tx:
            record = await tx.get("a", for_update=True)
            assert record is not None
            await tx.update("a", {"rev": record["rev"] + 1})

    await asyncio.gather(*(count_up() for _ in range(50)))

    assert [r["rev"] for r in await products.search(field("sku").in_(["a", "b"]))] == [151, 51]


async def test_a_version_column_makes_compare_and_set(shop: Opener) -> None:
    """Each write changes it, and only isthmus or the table does; without it `if_version` is refused."""
    plain, products = await shop("product"), await shop("product", version="rev")

    apple = await products.get("a")
    assert apple is not None
    assert apple.version == "1"
    second = await products.update("a", {"title": "x"}, if_version="1")
    third = await products.modify("a", field("price").inc(1), if_version=second)
    assert (second, third) == ("2", "3")
    assert await products.replace("a", {"title": "y"}, if_version=third) == "4"
    with pytest.raises(ConflictError):
        await products.delete("a", if_version="3")
    with pytest.raises(InvalidRecordError, match="version column"):
        await products.update("a", {"rev": 1})
    assert (await products.find_one(field("_version") == "4")) == Record(
        {"sku": "a", "title": "y", "rev": 4}, id="a"
    )
    calls = (
        plain.update("a", {"title": "z"}, if_version="4"),
        plain.delete("a", if_version="4"),
        plain.modify("a", field("price").inc(1), if_version="4"),
        plain.modify_batch([("a", field("price").inc(1), "4")]),
        plain.replace_batch([("a", {}, "4")]),
    )
    for call in calls:
        with pytest.raises(UnsupportedError) as refused:
            await call
        assert refused.value.capability == "compare_and_set"
    assert (await products.get("a")) == Record({"sku": "a", "title": "y", "rev": 4}, id="a")


async def test_triggers_refuse_ignore_and_roll_back(shop: Opener, path: Path) -> None:
    """None of them passes for a write that was made."""
    lines = await shop("line")

    with pytest.raises(InvalidRecordError, match="trigger ignored"):
        await lines.update("[1,1]", {"amount": 13})
    with pytest.raises(InvalidRecordError, match="all of it"):
        await lines.update("[1,1]", {"amount": 66})
    with pytest.raises(BatchError):
        await lines.update_batch({"[1,2]": {"amount": 4}, "[1,1]": {"amount": 66}}, atomic=False)
    outcomes = await lines.update_batch(
        {"[1,2]": {"amount": 4}, "[1,1]": {"amount": 13}, "[2,1]": {"amount": 6}},
        atomic=False,
        on_error="collect",
    )

    assert [isinstance(outcome, InvalidRecordError) for outcome in outcomes] == [False, True, False]
    assert sql(path, "SELECT amount FROM line") == [(2,), (4,), (6,)]


async def test_foreign_keys_hold(shop: Opener) -> None:
    """SQLite enforces them only if a connection says so; ours does."""
    customers = await shop("customer")

    for call in (customers.delete("1"), customers.delete_where(field("id") == 1), customers.clear()):
        with pytest.raises(InvalidRecordError, match="FOREIGN KEY"):
            await call
    assert await customers.delete("9")
    assert await customers.count() == 3
    with pytest.raises(InvalidRecordError, match="FOREIGN KEY"):
        async with customers.transaction() as tx:
            await tx.collection("line").create({"customer": 1, "pos": 8, "sku": "nothing"})


async def test_views_and_tables_without_a_key_are_read_only(shop: Opener) -> None:
    """They need `key`; two rows of one key are an error of the read that meets both."""
    for name in ("spender", "log"):
        with pytest.raises(ConfigError, match="key="):
            await shop(name)
    with pytest.raises(ConfigError, match="'nothing'"):
        await shop("spender", key="nothing")
    with pytest.raises(ConfigError, match="primary key"):
        await shop("customer", key="email")

    spenders = await shop("spender", key=["customer"])
    assert (await spenders.get("1")) == Record({"customer": 1, "amount": 3}, id="1")
    assert [r.id for r in await spenders.search(Query().sort("amount", "desc"))] == ["2", "1"]
    for call in (spenders.create({"customer": 5}), spenders.delete("1"), spenders.update("1", {})):
        with pytest.raises(UnsupportedError) as refused:
            await call
        assert refused.value.capability == "writes"

    twice = await shop("doubled", key=["customer"])
    assert await twice.count() == 8
    with pytest.raises(InvalidRecordError, match="two rows"):
        await twice.get("1")
    with pytest.raises(InvalidRecordError, match="two rows"):
        async for _ in twice.stream(page_size=1):
            pass


async def test_a_view_shows_the_values_of_a_strict_table(shop: Opener, path: Path) -> None:
    """A column of any type has bytes, texts and numbers in the view too; each row is found by its id."""
    sql(path, "CREATE TABLE thing (k ANY PRIMARY KEY, v ANY) STRICT")
    sql(path, "INSERT INTO thing VALUES ('7', x'01'), (8, '8'), (x'0102', 1.5), (' 9', NULL)")
    sql(path, "CREATE VIEW shown AS SELECT * FROM thing")
    table, view = await shop("thing"), await shop("shown", key=["k"])

    records = await view.search()
    assert [record.id for record in records] == ["7", "8", " 9", "AQI="]
    assert records == await table.search()
    for record in records:
        assert await view.get(record.id or "") == record
    for where in (
        field("v") == "8",
        field("v") == 8,
        field("v") == "AQ==",
        field("k") == "7",
        field("k") < 9,
    ):
        assert await view.count(where) == await table.count(where)


async def test_values_without_a_canonical_form(shop: Opener, path: Path) -> None:
    """Infinities and texts that are none: the record is invalid, and predicates and orders find no value."""
    sql(path, "INSERT INTO product (sku, title, price) VALUES ('i', 'Inf', 9e999)")
    sql(path, "INSERT INTO product (sku, title, price) VALUES ('j', CAST(x'ff41' AS TEXT), 1)")
    sql(path, "INSERT INTO product (sku, title, price) VALUES ('k', CAST(x'610062' AS TEXT), 0.5)")
    products = await shop("product")

    assert await products.count(field("price") > 1e308) == 0
    assert await products.count(field("price").is_null()) == 1
    assert await products.count(field("title").exists()) == 3
    assert await products.count(field("title").regex(".")) == 3
    rows = await products.aggregate(top=("max", "price"), last=("max", "title"))
    assert rows == [{"top": 3.25, "last": "Inf"}]
    order = Query().sort("title", "desc")
    assert [r.id for r in await products.search(order)] == ["i", "a", "A", "b", "j", "k"]
    for id, column in (("i", "price"), ("j", "title"), ("k", "title")):
        with pytest.raises(InvalidRecordError) as invalid:
            record = await products.get(id)
            assert record is not None
            print(record.data)
        assert (invalid.value.path, invalid.value.record_id) == (f"data.{column}", id)
        assert invalid.value.stored


async def test_reading_changes_nothing_in_the_file(shop: Opener, path: Path) -> None:
    """Neither the journal mode nor anything else; a read-only handle needs no more than to read."""
    before = path.read_bytes()
    customers = await shop("customer")

    await customers.search(field("name") > "B")
    await customers.aggregate(by="active", n="count")
    async for _ in customers.stream(consistent=True):
        pass
    async with customers.transaction(read_only=True) as tx:
        await tx.count()

    assert path.read_bytes() == before
    await customers.update("1", {"name": "Anne"})
    assert sql(path, "PRAGMA journal_mode") == [("delete",)]
    assert sql(path, "SELECT name FROM sqlite_master WHERE name LIKE 'isthmus%'") == []
    assert sorted(p.name for p in path.parent.iterdir()) == ["shop.db"]


async def test_a_changed_schema_is_seen(shop: Opener, path: Path) -> None:
    """A column that is dropped or added under the handle, and a table that is gone."""
    products = await shop("product")
    assert await products.count(field("extra").exists()) == 3

    sql(path, "ALTER TABLE product DROP COLUMN extra")
    sql(path, "ALTER TABLE product ADD COLUMN weight INT DEFAULT 4")

    assert await products.count(field("extra").exists()) == 0
    changed = {"sku": "b", "price": 3.25, "photo": "", "rev": 1, "weight": 4}
    assert (await products.get("b")) == Record(changed, id="b")
    with pytest.raises(InvalidRecordError, match="no column 'extra'"):
        await products.update("b", {"extra": 1})
    sql(path, "DROP TABLE line")
    sql(path, "DROP TABLE product")
    for call in (products.get("b"), products.count(), products.create({"title": "x"})):
        with pytest.raises(ConfigError, match="no table or view"):
            await call


async def test_changes_are_refused_with_the_reason(shop: Opener) -> None:
    """Where the owner has installed no triggers, a deleted row leaves nothing behind."""
    with pytest.raises(UnsupportedError, match="changes"):
        await shop("customer", changes=True)


@pytest.mark.parametrize("setting", ["indexes", "unique"])
async def test_declarations_are_the_owners(shop: Opener, setting: str) -> None:
    """No DDL: declared fields, dropping and a file that is not there are refused."""
    with pytest.raises(ConfigError, match=setting):
        await shop("customer", **{setting: ["name"]})
    customers = await shop("customer")
    with pytest.raises(UnsupportedError) as refused:
        await customers.drop_collection("customer")
    assert refused.value.capability == "drop"
    with pytest.raises(UnsupportedError) as refused:
        await shop("customer", changes=True)
    assert refused.value.capability == "changes"
    with pytest.raises(UnsupportedError) as refused:
        async for _ in customers.changes():
            pass
    assert refused.value.capability == "changes"
    with pytest.raises(ConfigError, match="no such file"):
        await shop("customer", path="/nonexistent/shop.db")
    with pytest.raises(ConfigError, match="file"):
        await shop("customer", path=":memory:")
    with pytest.raises(ConfigError, match="layout 'native'"):
        await AsyncDatabase.create("sqlite", {"path": ":memory:", "key": "a"})
    with pytest.raises(IsthmusError, match="metadata"):
        await customers.create(Record({"email": "m"}, metadata={"source": "x"}))


async def test_sql_has_names_for_what_needs_quotes(shop: Opener, path: Path) -> None:
    """Columns named as others' keywords, with dots and quotes; a name alone is never taken for a text."""
    sql(path, 'CREATE TABLE "odd ""name" ("a.b" TEXT, "select" INT, "q""" TEXT, PRIMARY KEY ("a.b"))')
    odd = await shop('odd "name')

    await odd.create({"a.b": "x", "select": 1, 'q"': "y"})

    assert await odd.count(field(["a.b"]) == "x") == await odd.count(field(['q"']) == "y") == 1
    assert await odd.count(field("a.b") == "x") == await odd.count(field("nothing") == "nothing") == 0
    assert [r.id for r in await odd.search(Query().sort("nothing").sort("select"))] == ["x"]


async def test_bytes_that_are_written_back_stay_bytes(shop: Opener, path: Path) -> None:
    """In a column without a type a text may be that of bytes: a record that was read changes none of them."""
    products = await shop("product")
    record = await products.require("b")
    assert record["extra"] == "Nw=="

    await products.update("b", {"extra": "Nw==", "price": 4})
    await products.replace("b", (await products.require("b")).data)
    await products.upsert("b", (await products.require("b")).data)
    await products.modify("b", field("price").inc(1))

    assert sql(path, "SELECT extra, typeof(extra), price FROM product WHERE sku = 'b'") == [
        (b"7", "blob", 5.0)
    ]
    await products.update("b", {"extra": "OA=="})
    assert sql(path, "SELECT extra FROM product WHERE sku = 'b'") == [("OA==",)]


async def test_what_only_the_owners_program_defines_is_a_config_error(shop: Opener, path: Path) -> None:
    """A collation or a function that an index needs: writes say what is missing, and change nothing."""
    connection = sqlite3.connect(path)
    connection.create_collation("own", lambda a, b: (a > b) - (a < b))
    connection.create_function("own", 1, str, deterministic=True)
    connection.executescript(
        "CREATE TABLE sorted (id INTEGER PRIMARY KEY, n TEXT COLLATE own); CREATE INDEX by_n ON sorted (n);"
        "CREATE TABLE computed (id INTEGER PRIMARY KEY, n TEXT); CREATE INDEX by_own ON computed (own(n));"
        "INSERT INTO sorted VALUES (1, 'b'), (2, 'a'); INSERT INTO computed VALUES (1, 'b'), (2, 'a');"
    )
    connection.close()

    for table in ("sorted", "computed"):
        db = await shop(table)
        assert (await db.require("1"))["n"] == "b"
        with pytest.raises(ConfigError, match="which the program that made the table has"):
            await db.update("1", {"n": "c"})
        with pytest.raises(ConfigError, match="which the program that made the table has"):
            await db.create({"id": 3, "n": "c"})
        assert await db.count() == 2
