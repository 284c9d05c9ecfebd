"""Tables of MariaDB that others made, by plain SQL: `layout="native"` (meaning §8)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

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
from tests.servers import server

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlalchemy")]
Opener = Callable[..., Awaitable[AsyncDatabase]]

SHOP = """
CREATE TABLE customer (
    id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    email VARCHAR(60) NOT NULL,
    name VARCHAR(50) NOT NULL DEFAULT 'nobody',
    active BOOLEAN NOT NULL DEFAULT 1,
    balance DECIMAL(10, 2),
    mood ENUM('sad', 'ok', 'Happy'),
    seen DATETIME(6),
    at TIMESTAMP(3) NULL,
    born DATE,
    settings JSON,
    photo VARBINARY(20),
    code BINARY(2),
    big BIGINT UNSIGNED,
    initial VARCHAR(1) AS (SUBSTR(name, 1, 1)) STORED,
    UNIQUE one_account (email),
    KEY by_name (name),
    KEY by_balance (balance),
    CONSTRAINT no_debt CHECK (balance >= 0)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;
CREATE TABLE product (
    sku VARCHAR(40) COLLATE utf8mb4_unicode_ci PRIMARY KEY, price DOUBLE, rev INT NOT NULL DEFAULT 1
);
CREATE TABLE line (
    customer INT UNSIGNED NOT NULL,
    pos INT NOT NULL,
    sku VARCHAR(40) COLLATE utf8mb4_unicode_ci,
    amount INT DEFAULT 1,
    PRIMARY KEY (customer, pos),
    CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES customer (id)
);
CREATE TRIGGER closed BEFORE INSERT ON line FOR EACH ROW
    IF NEW.amount > 100 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'too many'; END IF;
CREATE VIEW spender AS SELECT customer, SUM(amount) AS amount FROM line GROUP BY customer;
CREATE VIEW doubled AS SELECT id AS customer, name FROM customer UNION ALL SELECT id, name FROM customer;
CREATE TABLE log (at DATETIME, message TEXT);
CREATE TABLE old (id INT PRIMARY KEY, n INT) ENGINE=MyISAM;
INSERT INTO customer (id, email, name, active, balance, mood, born) VALUES
    (1, 'ann@example.com', 'Ann', 1, 10, 'ok', '1990-02-28'),
    (2, 'Bob@example.com', 'bob', 0, 2.5, 'Happy', NULL),
    (9, 'cid@example.com', 'Cid', 1, NULL, NULL, NULL), (10, 'dan@example.com', 'ann', 1, 0, 'sad', NULL);
INSERT INTO product (sku, price) VALUES ('a', 1.5), ('b', 3.25);
INSERT INTO line (customer, pos, sku, amount) VALUES (1, 1, 'a', 2), (1, 2, 'b', 1), (2, 1, 'a', 5);
"""


@pytest_asyncio.fixture
async def owner() -> AsyncIterator[AsyncConnection]:
    """Yield a connection to a new database with the shop's tables."""
    url, name = server("mariadb").url, f"shop_{secrets.token_hex(4)}"
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"CREATE DATABASE {name}")
            try:
                await connection.exec_driver_sql(f"USE {name}")
                for statement in SHOP.split(";\n"):
                    if statement.strip():
                        await connection.exec_driver_sql(statement)
                yield connection
            finally:
                await connection.exec_driver_sql(f"DROP DATABASE {name}")
    finally:
        await engine.dispose()


@pytest_asyncio.fixture
async def shop(owner: AsyncConnection) -> AsyncIterator[Opener]:
    """Yield what opens a handle on one of the shop's tables."""
    name = (await owner.exec_driver_sql("SELECT DATABASE()")).scalar_one()
    place, _, _ = server("mariadb").url.rpartition("/")
    opened: list[AsyncDatabase] = []

    async def open_table(table: str, **settings: Any) -> AsyncDatabase:
        given = {"url": f"{place}/{name}", "layout": "native", "table": table, **settings}
        opened.append(await AsyncDatabase.create("sqlalchemy", given))
        return opened[-1]

    yield open_table
    for db in opened:
        await db.close()


async def test_rows_are_records(shop: Opener) -> None:
    """The key is the id, the columns are the fields, a NULL is a missing one; there are no times."""
    db = await shop("customer")

    record = await db.require("2")

    assert record.data == {
        "id": 2,
        "email": "Bob@example.com",
        "name": "bob",
        "active": False,
        "balance": 2.5,
        "mood": "Happy",
        "initial": "b",
    }
    assert (record.version, record.created_at, record.metadata) == (None, None, {})
    assert await db.get("02") is None
    assert [r.id for r in await db.search()] == ["1", "2", "9", "10"]
    lines = await shop("line")
    assert (await lines.require("[1,2]"))["sku"] == "b"
    assert [r.id async for r in lines.stream(page_size=2)] == ["[1,1]", "[1,2]", "[2,1]"]


async def test_no_collation_changes_an_answer(shop: Opener) -> None:
    """The index finds what ignores case, accents and blanks; the exact test is added."""
    db, products = await shop("customer"), await shop("product")

    assert await db.count(field("name") == "ann") == 1
    assert await db.count(field("name").starts_with("a")) == 1
    assert await db.count(field("name") == "ann ") == 0
    assert [r["name"] for r in await db.search(Query().sort("name"))] == ["Ann", "Cid", "ann", "bob"]
    assert await products.get("A") is None
    assert await products.get("a ") is None
    assert (await products.get_batch(["A", "a", "á"]))[1:2] == [await products.require("a")]
    with pytest.raises(AlreadyExistsError):
        await products.create(Record({"price": 1}, id="A"))
    assert not await products.delete("A")
    with pytest.raises(NotFoundError):
        await products.update("A", {"price": 9})
    with pytest.raises(AlreadyExistsError):
        await products.upsert("A", {"price": 9})
    assert (await products.require("a"))["price"] == 1.5


@pytest.mark.parametrize(
    ("predicate", "index"),
    [
        (field("balance") > 2, "by_balance"),
        (field("name") == "Cid", "by_name"),
        (field("email").in_(["cid@example.com"]), "one_account"),
        (field("_id") == "1", "primary key"),
    ],
)
async def test_the_tables_own_indexes_serve(
    shop: Opener, owner: AsyncConnection, predicate: Any, index: str
) -> None:
    """Each condition is exact and in a form that the server's index takes."""
    rows = ", ".join(f"('{n}@x', 'n{n}', {n})" for n in range(300))
    await owner.exec_driver_sql(f"INSERT INTO customer (email, name, balance) VALUES {rows}")
    await owner.exec_driver_sql("UPDATE customer SET balance = 0 WHERE balance BETWEEN 3 AND 400")
    await owner.exec_driver_sql("ANALYZE TABLE customer")
    db = await shop("customer")

    assert (await db.explain(predicate)).index == index


async def test_a_range_beyond_the_columns_digits_finds_no_null(shop: Opener) -> None:
    """Each number is in it, and a row without a number is not."""
    db = await shop("customer")
    wide = field("balance") >= -(10**12)

    assert await db.count(wide) == 3
    assert [r.id for r in await db.search(~wide)] == ["9"]
    assert await db.count(field("balance") < 10**12) == 3
    assert await db.count(field("balance") > 10**12) == 0


async def test_keys_come_from_the_data_the_table_or_us(shop: Opener) -> None:
    """A number that the server draws, the data's, or a UUID of ours; a key that disagrees is refused."""
    customers, products, lines = await shop("customer"), await shop("product"), await shop("line")

    drawn = await customers.create({"email": "eve@example.com"})
    assert (await customers.require(drawn)).data == {
        "id": int(drawn), "email": "eve@example.com", "name": "nobody", "active": True, "initial": "n",
    }  # fmt: skip
    assert await lines.create({"customer": 2, "pos": 7}) == "[2,7]"
    ours = await products.create({"price": 2})
    assert (await products.require(ours))["sku"] == ours
    with pytest.raises(InvalidRecordError, match="disagree"):
        await products.create(Record({"sku": "x"}, id="y"))
    with pytest.raises(InvalidRecordError, match="pos"):
        await lines.create({"customer": 2})
    with pytest.raises(InvalidRecordError, match="would number the row"):
        await customers.create(Record({"email": "zero"}, id="0"))
    batch = await customers.create_batch([{"email": f"{n}@b"} for n in range(3)])
    assert await customers.count(field("_id").in_(list(batch))) == 3


REFUSED = {
    "no column": ({"nosuch": 1}, "no column"),
    "null": ({"email": None}, "does not admit NULL"),
    "fraction": ({"balance": 1.999}, "exactly"),
    "label": ({"mood": "happy"}, "no label"),
    "bool": ({"active": 1}, "booleans"),
    "long": ({"name": "x" * 51}, "51 characters"),
    "bytes": ({"photo": "A" * 32}, "24 bytes"),
    "short": ({"code": "AA=="}, "fills"),
    "date": ({"born": "1990-02-29"}, "dates"),
    "precision": ({"at": "2024-01-01T00:00:00.000001Z"}, "digits"),
    "unsigned": ({"big": -1}, "out of range"),
    "beyond": ({"big": 2.0**63}, "out of range"),
    "generated": ({"initial": "z"}, "cannot be given"),
    "year 2200": ({"at": "2200-01-01T00:00:00.000000Z"}, "."),
    "check": ({"balance": -1}, "no_debt"),
}


@pytest.mark.parametrize("refused", REFUSED)
async def test_what_a_table_cannot_hold_is_refused(shop: Opener, refused: str) -> None:
    """By the column's or the constraint's name; nothing is written by any method, alone or in a batch."""
    data, says = REFUSED[refused]
    db = await shop("customer")
    before = await db.search()

    for call in (
        lambda: db.create({"email": "new@example.com", **data}),
        lambda: db.update("1", data),
        lambda: db.replace("1", {"email": "ann@example.com", "name": "Ann", "active": True, **data}),
        lambda: db.upsert("77", {"email": "new@example.com", **data}),
    ):
        with pytest.raises(InvalidRecordError, match=says):
            await call()
    with pytest.raises(BatchError):
        await db.create_batch([{"email": "ok@example.com"}, {"email": "new@example.com", **data}])
    assert await db.search() == before


async def test_every_type_is_read_as_it_was_written(shop: Opener, owner: AsyncConnection) -> None:
    """In whatever zone the session is; what SQL sees is the same value."""
    db = await shop("customer")
    data = {
        "email": "t@example.com",
        "name": "Thé 💥 ",
        "active": True,
        "balance": 99999999.99,
        "mood": "sad",
        "seen": "0044-03-15T00:00:00.000001",
        "at": "2024-07-01T10:00:00.125000Z",
        "born": "0001-01-01",
        "settings": {"a": [1, 2.5, None, "é"]},
        "photo": "AP8Q",
        "code": "AAE=",
        "big": 2**63 - 1,
    }

    id = await db.create(data)

    assert (await db.require(id)).data == {**data, "id": int(id), "initial": "T"}
    assert await db.count(field("at") == data["at"]) == 1
    assert await db.count(field("at") < "2024-07-01T10:00:00.125001Z") == 1
    assert await db.count(field("settings.a") == 2.5) == 1
    assert await db.count(field("photo") == "AP8Q") == 1
    at = "SELECT UNIX_TIMESTAMP(at), HEX(photo), big FROM customer WHERE email = 't@example.com'"
    assert tuple(map(str, (await owner.exec_driver_sql(at)).one())) == (
        "1719828000.125",
        "00FF10",
        str(2**63 - 1),
    )
    await db.replace(id, (await db.require(id)).data)
    assert (await db.require(id)).data == {**data, "id": int(id), "initial": "T"}


async def test_times_and_decimals_are_read_as_the_settings_say(shop: Opener, owner: AsyncConnection) -> None:
    """`zone` is that of DATETIME, which has none; `numeric="text"` keeps all digits of DECIMAL."""
    await owner.exec_driver_sql("UPDATE customer SET seen = '2024-07-01 12:00:00' WHERE id = 1")
    db = await shop("customer", zone="Europe/Oslo", numeric="text")

    data = (await db.require("1")).data

    assert (data["seen"], data["balance"]) == ("2024-07-01T10:00:00.000000Z", "10.00")


async def test_numbers_are_compared_with_a_column_of_many_digits(
    shop: Opener, owner: AsyncConnection
) -> None:
    """Also where number and column together have more digits than Python's decimals have by default."""
    await owner.exec_driver_sql("ALTER TABLE customer ADD wide DECIMAL(40, 20)")
    await owner.exec_driver_sql("UPDATE customer SET wide = id * 1e19 WHERE id < 3")
    db = await shop("customer")

    assert await db.count(field("wide") == 1e19) == 1
    assert await db.count(field("wide").in_([1e19, 0.1])) == 1
    assert await db.count(field("wide") > 1e19) == await db.count(field("wide") >= 1.5e19) == 1
    assert await db.count(field("wide") < 1e20) == 2


async def test_values_without_a_canonical_form(shop: Opener, owner: AsyncConnection) -> None:
    """Zero dates, numbers beyond 63 bits: the record is invalid by name, and they are no value in queries."""
    await owner.exec_driver_sql("SET sql_mode = ''")
    await owner.exec_driver_sql("UPDATE customer SET born = '0000-00-00' WHERE id = 1")
    await owner.exec_driver_sql("UPDATE customer SET big = 18446744073709551615 WHERE id = 2")
    await owner.exec_driver_sql("UPDATE customer SET active = 2 WHERE id = 9")
    await owner.exec_driver_sql("UPDATE customer SET at = '0000-00-00' WHERE id = 10")
    db = await shop("customer")

    for id, column in (("1", "born"), ("2", "big"), ("9", "active"), ("10", "at")):
        record = await db.require(id)
        with pytest.raises(InvalidRecordError, match=f"'{id}'.*{column}"):
            assert record.data
        assert await db.count(field(column).exists() & (field("_id") == id)) == 0
    assert await db.count(field("big") > 0) == 0
    assert await db.count(~(field("born") < "2000-01-01")) == 4


async def test_replace_sets_null_and_update_leaves_the_rest(shop: Opener) -> None:
    """A replace of a column that admits no NULL needs its value."""
    db = await shop("customer")

    await db.update("1", {"balance": 3})
    assert (await db.require("1"))["mood"] == "ok"
    await db.replace("1", {"email": "ann@example.com", "name": "Ann", "active": True})
    assert "mood" not in (await db.require("1")).data
    with pytest.raises(InvalidRecordError, match=r"active.*NULL"):
        await db.replace("1", {"email": "ann@example.com", "name": "Ann"})
    with pytest.raises(NotFoundError):
        await db.update("77", {"balance": 3})


async def test_a_batch_has_an_outcome_for_each_item(shop: Opener) -> None:
    """What the table refuses is that item's error; the others are written, or none with `atomic`."""
    db = await shop("line")
    items = [
        {"customer": 1, "pos": 3},
        {"customer": 77, "pos": 1},
        {"customer": 1, "pos": 4, "amount": 101},
        {"customer": 1, "pos": 1},
        {"customer": 1, "pos": 5},
    ]

    with pytest.raises(BatchError) as caught:
        await db.create_batch(items, atomic=True)
    assert await db.count() == 3
    assert "of_customer" in str(caught.value.outcomes[1])
    with pytest.raises(BatchError) as caught:
        await db.create_batch(items, atomic=False)

    outcomes = caught.value.outcomes
    assert [outcomes[0], outcomes[4]] == ["[1,3]", "[1,5]"]
    assert isinstance(outcomes[1], InvalidRecordError)
    assert "too many" in str(outcomes[2])
    assert isinstance(outcomes[3], AlreadyExistsError)
    assert await db.count() == 5


async def test_constraints_are_named(shop: Opener) -> None:
    """A unique index by its columns, a foreign key by its name, whichever side refuses."""
    customers, lines = await shop("customer"), await shop("line")

    with pytest.raises(AlreadyExistsError) as taken:
        await customers.create({"email": "ANN@example.com"})
    assert taken.value.field == "email"
    with pytest.raises(InvalidRecordError, match="of_customer"):
        await customers.delete("1")
    with pytest.raises(BatchError, match="of_customer"):
        await customers.delete_where(field("balance") >= 0)
    assert await customers.count() == 4
    assert await lines.delete_where(field("customer") == 2) == 1
    assert await customers.delete("2")


async def test_fifty_concurrent_changes_add_up(shop: Opener) -> None:
    """A modification locks its row: none is lost, and only what differs is written."""
    db = await shop("line")

    await asyncio.gather(*(db.modify("[1,1]", field("amount").inc(1)) for _ in range(50)))
    assert (await db.require("[1,1]"))["amount"] == 52
    assert await db.update_where(field("customer") == 1, field("amount").inc(10)) == 2
    assert (await db.require("[1,2]"))["amount"] == 11
    with pytest.raises(InvalidRecordError, match="key"):
        await db.modify("[1,1]", field("pos").inc(1))


async def test_a_version_column_makes_compare_and_set(shop: Opener) -> None:
    """Each write counts it up; without one `if_version` is refused."""
    db = await shop("product", version="rev")
    before = await db.require("a")

    version = await db.update("a", {"price": 2}, if_version=before.version)
    assert (before.version, version) == ("1", "2")
    with pytest.raises(ConflictError):
        await db.replace("a", {"price": 3}, if_version=before.version)
    assert (await db.require("a"))["rev"] == 2
    with pytest.raises(UnsupportedError):
        await (await shop("line")).delete("[1,1]", if_version="1")
    for column, says in (
        ("nosuch", "no column"),
        ("price", "integers, text or UUIDs"),
        ("sku", "nor the key"),
    ):
        with pytest.raises(ConfigError, match=says):
            await shop("product", version=column)


async def test_transactions(shop: Opener, owner: AsyncConnection) -> None:
    """Several tables in one; a refused write leaves the transaction usable, a savepoint undoes its part."""
    db = await shop("line")

    async with db.transaction() as tx:
        products = tx.collection("product")
        await products.create(Record({"price": 5}, id="c"))
        await tx.create({"customer": 2, "pos": 2, "sku": "c"})
        with pytest.raises(InvalidRecordError):
            await tx.create({"customer": 77, "pos": 2})
        with pytest.raises(RuntimeError):
            async with tx.savepoint():
                await tx.delete("[2,2]")
                raise RuntimeError
        assert (await tx.require("[2,2]", for_update=True))["sku"] == "c"
    with pytest.raises(RuntimeError):
        async with db.transaction() as tx:
            await tx.delete("[2,2]")
            raise RuntimeError
    assert (await owner.exec_driver_sql("SELECT COUNT(*) FROM line WHERE sku = 'c'")).scalar_one() == 1


async def test_what_is_read_only_says_why(shop: Opener) -> None:
    """Views, tables without a key, storage engines without transactions; two rows of one key are an error."""
    view = await shop("spender", key=["customer"])
    assert (await view.require("1"))["amount"] == 3
    for db in (view, await shop("log", key=["at"]), await shop("old")):
        with pytest.raises(UnsupportedError, match="read-only"):
            await db.create({"n": 1, "id": 5})
    customers = await shop("customer")
    async with customers.transaction() as tx:
        for table, says in (
            ("old", "MyISAM has neither"),
            ("log", "no primary key"),
            ("spender", "it is a view"),
        ):
            settings = {} if table == "old" else {"key": ["at" if table == "log" else "customer"]}
            assert says in (await shop(table, **settings))._backend.native_tables[table].table.read_only
        with pytest.raises(UnsupportedError, match="MyISAM has neither"):
            await tx.collection("old").create({"id": 5})
    doubled = await shop("doubled", key=["customer"])
    with pytest.raises(InvalidRecordError, match="two rows"):
        await doubled.require("1")
    with pytest.raises(InvalidRecordError, match="two rows"):
        await doubled.search()


@pytest.mark.parametrize(
    ("table", "settings", "says"),
    [
        ("nosuch", {}, "no table or view"),
        ("log", {}, "no primary key"),
        ("log", {"key": ["nosuch"]}, "no column"),
        ("customer", {"key": ["email"]}, "leave `key` out"),
        ("customer", {"unique": ["email"]}, "needs layout 'records'"),
    ],
)
async def test_a_table_that_cannot_be_served(shop: Opener, table: str, settings: Any, says: str) -> None:
    """A ConfigError at opening names what is missing."""
    with pytest.raises(ConfigError, match=says):
        await shop(table, **settings)


async def test_the_owner_changes_the_table(shop: Opener, owner: AsyncConnection) -> None:
    """A column that is dropped under the handle is an error with what to do; a new handle goes on."""
    db = await shop("product")
    await owner.exec_driver_sql("ALTER TABLE product DROP COLUMN price")

    with pytest.raises(ConfigError, match="open a new handle"):
        await db.search()
    assert (await (await shop("product")).require("a")).data == {"sku": "a", "rev": 1}
    with pytest.raises(UnsupportedError):
        await db.drop_collection("product")
    with pytest.raises(UnsupportedError):
        [change async for change in db.changes()]


async def test_a_connection_of_another_character_set_is_refused(shop: Opener) -> None:
    """It has not all characters of a table, and the driver puts question marks in their place."""
    db = await shop("product")
    address = db._backend._config.address.get_secret_value()

    with pytest.raises(ConfigError, match="latin1"):
        await shop("product", url=f"{address}?charset=latin1")
