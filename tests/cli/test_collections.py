"""A store without a collection of the default name: it is listed and checked, and nothing is created."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from isthmus.cli._app import GROUPS
from tests.cli.conftest import Cli

pytestmark = pytest.mark.backend("sqlite")

NEED_NO_COLLECTION = [
    ["ls"],
    ["ls", "--count"],
    ["ping"],
    ["show"],
    ["stats"],
    ["doctor"],
    ["top", "-n", "1"],
]
NEED_A_COLLECTION = ["count", "query", "agg", "explain", "fields", "changes"]


@pytest.fixture
def shop(cli: Cli, tmp_path: Path) -> str:
    """Return the URL of a store with the collections orders and people."""
    url = f"sqlite:///{tmp_path}/shop.db"
    assert cli("put", url, "a", "{}", "-c", "orders").code == 0
    assert cli("put", url, "b", "{}", "-c", "people").code == 0
    return url


def list_tables(url: str) -> list[str]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return sorted(name for (name,) in connection.execute("SELECT name FROM sqlite_master"))


def test_commands_on_a_store_need_no_default_collection(cli: Cli, shop: str) -> None:
    """They list what is there, in text and as JSON."""
    before = list_tables(shop)
    for command, *options in NEED_NO_COLLECTION:
        assert cli(command, shop, *options).code == 0, command
        ran = cli(command, shop, *options, "--json")
        assert ran.code == 0, command
        assert ran.err == ""
    assert cli("ls", shop).out == "orders\npeople\n"
    assert cli("ls", shop, "--count", "--json").json == [
        {"collection": "orders", "records": 1},
        {"collection": "people", "records": 1},
    ]
    stats = cli("stats", shop, "--json").json
    assert (stats["records"], stats["collections"]) == (None, ["orders", "people"])
    assert cli("stats", shop, "-c", "people", "--json").json["records"] == 1
    assert "name one with -c" in cli("doctor", shop).out
    assert list_tables(shop) == before


def test_a_collection_that_was_named_must_exist(cli: Cli, shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With -c or in the URL: a mistyped name is an error that lists those that exist."""
    before = list_tables(shop)
    for command, *options in [*NEED_NO_COLLECTION[2:], *([name] for name in NEED_A_COLLECTION)]:
        for arguments in ([shop, "-c", "typo"], [f"{shop}?table=typo"]):
            ran = cli(command, *arguments, *options)
            assert ran.code == (1 if command == "doctor" else 3), (command, ran.err)
            assert "'orders', 'people'" in ran.out + ran.err
    for command in (*NEED_A_COLLECTION, "dump"):
        ran = cli(command, shop, *(["-"] if command == "dump" else []))
        assert (ran.code, ran.err.count("\n")) == (3, 1)
        assert "no collection 'records'; the store has 'orders', 'people': name one with -c" in ran.err
    assert list_tables(shop) == before


def test_a_change_of_records_that_exist_makes_no_collection(cli: Cli, shop: str) -> None:
    """A mistyped name would stay as an empty table."""
    before = list_tables(shop)
    for command, *arguments in (["update", "a", "{}"], ["modify", "a", "n.inc(1)"], ["delete", "a"]):
        ran = cli(command, shop, *arguments, "-c", "typo")
        assert (ran.code, "'orders', 'people'" in ran.err) == (3, True), (command, ran.err)
    assert list_tables(shop) == before


def test_a_store_without_any_collection_is_empty(cli: Cli, shop: str) -> None:
    """It is no failure; a table that isthmus did not create is not listed."""
    with closing(sqlite3.connect(shop.removeprefix("sqlite:///"))) as connection:
        connection.executescript("DROP TABLE orders; DROP TABLE people; CREATE TABLE theirs (x)")
    before = list_tables(shop)

    assert cli("ls", shop).out == ""
    assert cli("ls", shop, "--count", "--json").json == []
    assert cli("ping", shop).code == cli("doctor", shop).code == 0
    assert cli("stats", shop, "--json").json["collections"] == []
    assert "the store has none yet" in cli("count", shop).err
    assert list_tables(shop) == before


def test_every_command_on_a_store_was_tried() -> None:
    """A new command of the group belongs into the lists above."""
    tried = {command for command, *_ in NEED_NO_COLLECTION} | set(NEED_A_COLLECTION)
    elsewhere = {"index", "log"}
    assert {*GROUPS["a store"], *GROUPS["many records"]} - elsewhere == tried
