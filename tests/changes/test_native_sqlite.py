"""Changes of SQLite tables that others made: what the owner runs, keys of all kinds, orders (§8, §10)."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from isthmus import AsyncDatabase, UnsupportedError
from isthmus._core.changes import SupportsChangeStatements
from tests.changes.follow import assert_orders_grow, last_data, read_until

pytestmark = [pytest.mark.backend("sqlite")]

KEYS = {
    "an integer": ("id INTEGER PRIMARY KEY", "{}", "{}"),
    "a text": ('"k""1" TEXT PRIMARY KEY', "'k{}'", "k{}"),
    "two columns": ("a TEXT, b INTEGER, PRIMARY KEY (a, b)", "'x', {}", '["x",{}]'),
    "without a rowid": ("id REAL PRIMARY KEY NOT NULL", "{}.5", "{}.5"),
}

NAME = "odd \" it's"
TABLE = '"' + NAME.replace('"', '""') + '"'


def _make(folder: Path, columns: str, *, options: str = "") -> sqlite3.Connection:
    sql = sqlite3.connect(folder / "db", isolation_level=None)
    # The key's columns come first, or its constraint last.
    names, _, constraint = columns.partition(", PRIMARY")
    end = f", PRIMARY{constraint}" if constraint else ""
    sql.execute(f"CREATE TABLE {TABLE} ({names}, n INTEGER{end}){options}")
    return sql


@pytest.mark.asyncio
@pytest.mark.parametrize("key", KEYS)
async def test_a_table_with_the_owners_triggers_is_followed(tmp_path: Path, key: str) -> None:
    """By every kind of writer; a record's order is None where it was not written since."""
    columns, cells, id_text = KEYS[key]
    sql = _make(tmp_path, columns, options=" WITHOUT ROWID" if key.startswith("without") else "")
    table = TABLE
    sql.execute(f"INSERT INTO {table} VALUES ({cells.format(0)}, 0)")
    settings = {"path": tmp_path / "db", "layout": "native", "table": NAME}
    async with await AsyncDatabase.create("sqlite", settings) as db:
        with pytest.raises(UnsupportedError):
            db.changes()
        with pytest.raises(UnsupportedError, match="--ddl"):
            await AsyncDatabase.create("sqlite", {**settings, "changes": True})
        assert isinstance(db._backend, SupportsChangeStatements)
        for statement in await db._backend.change_statements(db.collection_name):
            sql.execute(statement)
    ids = [id_text.replace("{}", str(number)) for number in range(5)]
    db = await AsyncDatabase.create("sqlite", {**settings, "changes": True})
    async with db, db.changes(since="start", poll=0.05) as changes:
        [first] = await read_until(changes, ids[0])
        assert first.order is None

        await db.update(ids[0], {"n": 7})
        sql.execute(f"INSERT INTO {table} VALUES ({cells.format(1)}, 1), ({cells.format(2)}, 2)")
        sql.execute(f"INSERT OR REPLACE INTO {table} VALUES ({cells.format(2)}, 3)")
        sql.execute(f"DELETE FROM {table} WHERE n = 1")
        found = await read_until(changes, ids[1])
        last = columns.split()[0] if "," not in columns else "b"
        sql.execute(f"UPDATE {table} SET {last} = ({cells.format(4).rpartition(', ')[2]}) WHERE n = 3")
        found += await read_until(changes, ids[2])
        assert await db.delete(ids[0])
        found += await read_until(changes, ids[0])

        assert_orders_grow(found)
        kept = {id: data and data["n"] for id, data in last_data(found).items()}
        assert kept == {ids[0]: None, ids[1]: None, ids[2]: None, ids[4]: 3}
        with pytest.raises(TimeoutError):
            while True:
                assert (await asyncio.wait_for(anext(changes), 0.3)).id == ids[4]
        await db.update(ids[4], {"n": 9})
        found += await read_until(changes, ids[4])
        again = await anext(db.changes(since="start"))
        assert again.id == ids[4]
        assert again.order == max(change.order or 0 for change in found if change.id == ids[4])
    sql.close()
