"""Keys, names and refusals that tables of MariaDB have beyond those of a shop; indexes that would serve."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from isthmus import Query, field
from isthmus.cli._doctor.examine import examine_store
from isthmus.cli._stores import resolve_store
from isthmus.errors import BatchError, InvalidRecordError
from tests.native_suite import check_keys
from tests.sqlalchemy.test_native_tables import Opener, owner, shop

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlalchemy")]
__all__ = ["owner", "shop"]

KEYS = {
    "TIME": ["-01:00:00", "100:00:01", "12:00:00"],
    "SET('b','a')": ["a", "b", "b,a"],
    "INET6": ["::1", "::ffff:10.0.0.1"],
    "BIT(8)": ["10", "5", "9"],
    "VARBINARY(8)": ["+w==", "//8=", "AA=="],
}


@pytest.mark.parametrize("type", KEYS)
async def test_every_key_that_a_search_shows_finds_its_row(
    shop: Opener, owner: AsyncConnection, type: str
) -> None:
    """Keys of types that are not written too: by canonical text, in its order; any other text is no row's."""
    ids = KEYS[type]
    await owner.exec_driver_sql(f"CREATE TABLE keyed (k {type} PRIMARY KEY, n INT)")
    for id in ids:
        stored = f"FROM_BASE64('{id}')" if "BINARY" in type else id if "BIT" in type else f"'{id}'"
        await owner.exec_driver_sql(f"INSERT INTO keyed VALUES ({stored}, 1)")
    db = await shop("keyed")

    await check_keys(db, ids, "zz")


async def test_any_name_of_a_column_is_served(shop: Opener, owner: AsyncConnection) -> None:
    r"""Backslashes, colons, percent signs and quotes are letters of a name."""
    names = ["back\\slash", "\\:a", "a:b", "100%", "%s", "q?", "tick`", "'", '"', ":x", "from"]
    columns = ", ".join(f"`{name.replace('`', '``')}` INT".replace("%", "%%") for name in names)
    await owner.exec_driver_sql(f"CREATE TABLE named (id INT PRIMARY KEY, {columns})")
    db = await shop("named")
    data = {name: number for number, name in enumerate(names)}

    await db.create({"id": 1, **data})
    await db.update("1", {name: number + 100 for name, number in data.items()})

    assert (await db.require("1")).data == {"id": 1, **{name: n + 100 for name, n in data.items()}}
    for name, number in data.items():
        assert await db.count(field([name]) == number + 100) == 1


async def test_a_signal_of_any_number_refuses_the_record(shop: Opener, owner: AsyncConnection) -> None:
    await owner.exec_driver_sql(
        "CREATE TRIGGER numbered BEFORE UPDATE ON product FOR EACH ROW IF NEW.price > 100 THEN"
        " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'house rule', MYSQL_ERRNO = 30001; END IF"
    )
    db = await shop("product")

    with pytest.raises(InvalidRecordError, match="house rule"):
        await db.update("a", {"price": 101})
    with pytest.raises(BatchError, match="house rule"):
        await db.modify_batch({"a": field("price").inc(1), "b": field("price").set(101)})
    assert (await db.require("a"))["price"] == 1.5


async def test_a_value_that_was_no_label_is_the_empty_text(shop: Opener, owner: AsyncConnection) -> None:
    """As it is read: an ENUM's index has it apart from the label that is empty."""
    await owner.exec_driver_sql("CREATE TABLE moods (id INT PRIMARY KEY, m ENUM('a', '', 'b'), KEY (m))")
    await owner.exec_driver_sql("SET sql_mode = ''")
    await owner.exec_driver_sql(
        "INSERT IGNORE INTO moods VALUES (1, 'a'), (2, ''), (3, 'b'), (4, 'bad'), (5, NULL)"
    )
    db = await shop("moods")
    m = field("m")

    found = {}
    for name, where in {
        "is": m == "",
        "in": m.in_(["", "b"]),
        "not": m != "",
        "not in": ~m.in_(["", "b"]),
    }.items():
        found[name] = [record.id for record in await db.search(Query(where).sort("id"))]
        assert await db.count(where) == len(found[name])

    assert found == {"is": ["2", "4"], "in": ["2", "3", "4"], "not": ["1", "3", "5"], "not in": ["1", "5"]}


async def test_explain_and_the_doctor_name_what_serves(shop: Opener, owner: AsyncConnection) -> None:
    """The index that a query would need; what no index serves; what is evaluated client-side."""
    db = await shop("customer")
    for query, wanted in (
        (Query(where=field("balance") > 1), []),
        (Query(where=field("born") == "1990-02-28"), ["(`born`)"]),
        (Query(where=field("active") == True).sort("email"), ["(`active`)"]),  # noqa: E712
        (Query(where=field("mood") > "a"), []),
        (Query(where=field("mood") == "ok"), ["(`mood`)"]),
    ):
        plan = await db.explain(query)
        assert plan.details["would_serve"] == [
            f"ALTER TABLE `customer` ADD INDEX {index}" for index in wanted
        ]
    address = db._backend._config.address.get_secret_value()

    async def examine(table: str) -> dict[str, str]:
        store = resolve_store(f"sqlalchemy+{address}?layout=native&table={table}", None)
        return {finding.check: finding.seen for finding in await examine_store(store)}

    shown = await examine("customer")
    assert shown["table"] == "made by others; its key is id, the version of a row none"
    assert "settings" in shown["queries"]
    assert "email" in shown["indexes"]
    assert (await examine("spender&key=customer"))["table"] == "read-only, it is a view; its key is customer"


async def test_a_text_beyond_a_columns_character_set_matches_no_row(
    shop: Opener, owner: AsyncConnection
) -> None:
    """Alone and beside others in one `in`, which the server would refuse; as an id too."""
    await owner.exec_driver_sql("CREATE TABLE narrow (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9)) CHARSET latin1")
    await owner.exec_driver_sql("INSERT INTO narrow VALUES ('é', 'é'), ('a', 'a')")
    db = await shop("narrow")

    for name in ("v", "k", "_id"):
        assert await db.count(field(name).in_(["a", "💥"])) == 1
        assert await db.count(field(name).in_(["a", "é", "Ω"])) == 2
        assert await db.count(field(name) == "Ω") == 0
    assert [record and record.id for record in await db.get_batch(["a", "💥", "é"])] == ["a", None, "é"]
    assert await db.delete_batch(["a", "💥"], on_error="collect") == [True, False]
