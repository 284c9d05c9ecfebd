"""Changes on SQLite: whichever program writes to the file, and when positions expire (§10)."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from isthmus import AsyncDatabase, ChangesExpiredError, ConfigError, Record
from isthmus._changes_declaration import declare_changes, end_changes
from isthmus.backends.sqlite.changes import prune
from isthmus.backends.sqlite.session import SQLiteSession
from tests.changes.follow import assert_orders_grow, last_data, read_all, read_until

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlite")]

SIDE = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'isthmus~_changes~__%' ESCAPE '~'"
COLUMNS = "(id, data, metadata, version, created_at, updated_at)"


async def _open(folder: Path, **settings: object) -> AsyncDatabase:
    return await AsyncDatabase.create("sqlite", {"path": folder / "db", "changes": True, **settings})


def _connect(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "db", isolation_level=None)


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
async def test_sql_of_others_is_followed(tmp_path: Path, recursive: str) -> None:
    """Inserts of each kind, updates, a changed key, deletes, savepoints; nothing of what is rolled back."""
    async with await _open(tmp_path) as db, db.changes(poll=0.05) as changes:
        sql = _connect(tmp_path)
        sql.execute(f"PRAGMA recursive_triggers = {recursive}")
        rows = [(f"r{n}", "{}", "{}", 1, 0, 0) for n in range(9)]
        sql.executemany(f"INSERT INTO records {COLUMNS} VALUES (?, ?, ?, ?, ?, ?)", rows)
        sql.execute(f"INSERT OR REPLACE INTO records {COLUMNS} VALUES ('r0', '{{\"n\":1}}', '{{}}', 1, 0, 0)")
        sql.execute(f"INSERT OR IGNORE INTO records {COLUMNS} VALUES ('r1', '{{\"n\":1}}', '{{}}', 1, 0, 0)")
        sql.execute(
            f"INSERT INTO records {COLUMNS} VALUES ('r2', '{{\"n\":2}}', '{{}}', 1, 0, 0)"
            " ON CONFLICT (id) DO UPDATE SET data = excluded.data"
        )
        sql.execute("UPDATE records SET id = 'moved' WHERE id = 'r3'")
        sql.execute("UPDATE OR REPLACE records SET id = 'r5' WHERE id = 'r4'")
        sql.execute("UPDATE records SET change_order = 0 WHERE id = 'r6'")
        sql.execute("BEGIN")
        sql.execute("DELETE FROM records WHERE id = 'r7'")
        sql.execute("SAVEPOINT inner")
        sql.execute("DELETE FROM records")
        sql.execute("ROLLBACK TO inner")
        sql.execute("COMMIT")
        sql.execute("BEGIN")
        sql.execute("DELETE FROM records WHERE id = 'r8'")
        sql.execute("ROLLBACK")

        found = await read_all(db, changes)
        assert_orders_grow(found)
        expected = {f"r{n}": {} for n in range(9)}
        gone = dict.fromkeys(["r3", "r4", "r7"])
        assert last_data(found) == {**expected, "r0": {"n": 1}, "r2": {"n": 2}, "moved": {}, **gone}
        assert last_data(found)["r1"] == {}

        sql.execute("DELETE FROM records")
        sql.close()
        emptied = await read_all(db, changes)
        assert last_data(emptied) == dict.fromkeys(["r0", "r1", "r2", "moved", "r5", "r6", "r8"])
        assert_orders_grow([*found, *emptied])


async def test_a_number_that_sql_gives_is_taken_if_it_is_greater(tmp_path: Path) -> None:
    """A smaller one is replaced; later ones are greater than either."""
    async with await _open(tmp_path) as db, db.changes(poll=0.05) as changes:
        await db.upsert("a", {})
        sql = _connect(tmp_path)
        for id, number in (("low", 0), ("same", 1), ("high", 1_000_000)):
            sql.execute("INSERT INTO records VALUES (?, '{}', '{}', 1, 0, 0, ?)", (id, number))
        sql.close()
        await db.upsert("a", {"n": 1})

        found = await read_all(db, changes)

        assert_orders_grow(found)
        orders = {change.id: change.order for change in found}
        assert orders["high"] == 1_000_000
        assert (orders["a"] or 0) > 1_000_000
        assert len(set(orders.values())) == 4


async def test_an_order_that_sql_sets_on_a_row_is_a_change(tmp_path: Path) -> None:
    """A greater one is kept, another one replaced; a row whose data it sets too has a new version."""
    async with await _open(tmp_path) as db, db.changes(poll=0.05) as changes:
        await db.create_batch([Record({}, id=id) for id in "abc"])
        await read_all(db, changes)
        before = {record.id: record.version async for record in db.stream()}
        sql = _connect(tmp_path)
        sql.execute("UPDATE records SET change_order = 1000 WHERE id = 'a'")
        sql.execute("""UPDATE records SET change_order = 2000, data = '{"n":1}' WHERE id = 'b'""")
        sql.execute("""UPDATE records SET change_order = 2, data = '{"n":2}' WHERE id = 'c'""")
        sql.close()

        found = await read_all(db, changes)

        orders = {change.id: change.order or 0 for change in found}
        assert (orders["a"], orders["b"]) == (1000, 2000)
        assert orders["c"] > 2000
        assert_orders_grow(found)
        after = {record.id: record.version async for record in db.stream()}
        assert after["b"] != before["b"]
        assert after["c"] != before["c"]


async def test_a_batch_keeps_no_copies_of_pages(tmp_path: Path) -> None:
    """SQLite keeps some for each row of a statement that calls a function: twice the time of a batch."""
    async with await _open(tmp_path) as db:
        await db.upsert("a", {})
    sql = _connect(tmp_path)
    row = "(id, data, metadata, version, created_at, updated_at, change_order) VALUES (?, ?, ?, ?, ?, ?, ?)"
    steps = sql.execute(
        f"EXPLAIN INSERT OR FAIL INTO records {row}", ("b", "{}", "{}", 1, 0, 0, 9)
    ).fetchall()
    sql.close()
    names = {step[1] for step in steps}
    assert "Program" in names
    assert not names & {"Function", "PureFunc"}


async def test_a_file_with_records_is_left_alone_by_connecting(tmp_path: Path) -> None:
    """Declared on request, its records are there from the start; ended, its version trigger is back."""
    async with await _open(tmp_path, changes=False) as db:
        await db.upsert("a", {"n": 1})
        with pytest.raises(ConfigError, match="isthmus index"):
            await _open(tmp_path)
        await declare_changes(db)
        sql = _connect(tmp_path)
        assert sql.execute("SELECT format FROM isthmus_collections").fetchall() == [(2,)]
        async with await _open(tmp_path) as other, other.changes(since="start", poll=0.05) as changes:
            [change] = await read_until(changes, "a")
            assert change.order == 0
            await db.update("a", {"n": 2})
            [change] = await read_until(changes, "a")
            assert (change.order or 0) > 0
        await end_changes(db)
        before = (await db.require("a")).version
        sql.execute("""UPDATE records SET data = '{"n":3}'""")
        sql.close()
        assert (await db.require("a")).version != before
        await declare_changes(db)
        await db.update("a", {"n": 4})


async def test_a_position_of_a_file_that_was_restored_has_expired(tmp_path: Path) -> None:
    """It is of changes that the older file does not have."""
    async with await _open(tmp_path) as db:
        await db.upsert("a", {})
    shutil.copy(tmp_path / "db", tmp_path / "backup")
    async with await _open(tmp_path) as db:
        await db.upsert("b", {})
        changes = await read_until(db.changes(since="start"), "b")
        async with db.changes() as stream:
            position = stream.position
    assert len(changes) == 2
    shutil.copy(tmp_path / "backup", tmp_path / "db")
    async with await _open(tmp_path) as db:
        with pytest.raises(ChangesExpiredError):
            await anext(db.changes(since=str(position)))


async def test_a_position_of_an_earlier_declaration_has_expired(tmp_path: Path) -> None:
    """However many changes there have been since."""
    async with await _open(tmp_path, changes=False) as db:
        await declare_changes(db)
        await db.upsert("a", {})
        position = (await anext(db.changes(since="start"))).position
        await end_changes(db)
        await declare_changes(db)
        await db.create_batch([Record({}) for _ in range(20)])
        with pytest.raises(ChangesExpiredError):
            await anext(db.changes(since=position))


@pytest.mark.parametrize("since", ["start", "now"])
async def test_a_reader_begins_again_after_its_collection_was_dropped(tmp_path: Path, since: str) -> None:
    """By the same handle, which declares the changes: the collection is made again, without records."""
    async with await _open(tmp_path) as db:
        await db.upsert("a", {})
        await db.drop_collection(db.collection_name)

        stream = db.changes(since=since)
        assert await stream.read(wait=False) == []
        await db.upsert("b", {})
        assert [change.id for change in await stream.read(wait=False)] == ["b"]


async def test_a_position_expires_once_its_changes_are_pruned(tmp_path: Path) -> None:
    """One that has read them goes on; the newest change stays, from which the next gets its number."""
    async with await _open(tmp_path, changes_keep=0.5) as db, db.changes(poll=0.05) as changes:
        old = str(changes.position)
        await db.create_batch([Record({}, id=f"r{n}") for n in range(300)])
        await db.delete("r0")
        [last] = (await read_all(db, changes))[-1:]
        sql = _connect(tmp_path)
        [side] = sql.execute(SIDE).fetchone()
        async with asyncio.timeout(20):
            while sql.execute(f"SELECT count(*) FROM {side}").fetchone() != (1,):
                # A reader prunes; nothing is new.
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(changes), 0.2)
        sql.close()
        with pytest.raises(ChangesExpiredError, match="pruned"):
            await anext(db.changes(since=old))
        await db.upsert("r0", {})
        [change] = await read_until(changes, "r0")
        assert (change.order or 0) > (last.order or 0)


async def test_pruning_goes_by_the_last_mark_that_is_old_enough(tmp_path: Path) -> None:
    """Older marks of the collection go with it, and those of the future; those of other collections stay."""
    async with await _open(tmp_path, changes_keep=1_000_000) as db:
        for number in range(5):
            await db.upsert(f"r{number}", {})
    sql, now = _connect(tmp_path), time.time()
    sql.execute("DELETE FROM isthmus_change_marks")
    marks = [
        ("records", now - 90, 1),
        ("records", now - 60, 3),
        ("records", now - 1, 4),
        ("records", now + 1_000_000, 2),  # of a clock that was set back: it would count as recent until then
        ("other", now - 90, 1),
    ]
    sql.executemany("INSERT INTO isthmus_change_marks VALUES (?, ?, ?)", marks)
    session = SQLiteSession(sql, "file", 1.0)

    assert not session.write(lambda s: prune(s, "records", 30.0))

    [side] = sql.execute(SIDE).fetchone()
    assert sql.execute(f"SELECT seq FROM {side}").fetchall() == [(4,), (5,)]
    left = sql.execute("SELECT collection, seq FROM isthmus_change_marks WHERE at < ? ORDER BY 1, 2", (now,))
    assert left.fetchall() == [("other", 1), ("records", 3), ("records", 4)]
    [[added]] = sql.execute("SELECT at FROM isthmus_change_marks WHERE at >= ?", (now,)).fetchall()
    assert added < now + 1_000
    assert sql.execute("SELECT pruned FROM isthmus_changes").fetchall() == [(3,)]
    sql.close()


async def test_a_dropped_collection_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    """No table, trigger or index of it; made again it keeps changes again."""
    async with await _open(tmp_path, table='a "table"') as db:
        await db.upsert("a", {})
        await db.drop_collection(db.collection_name)
        sql = _connect(tmp_path)
        left = {
            name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'")
        }
        sql.close()
        assert left == {"isthmus_collections", "isthmus_changes", "isthmus_change_marks"}
        await db.upsert("b", {})
        assert [change.id for change in await read_until(db.changes(since="start"), "b")] == ["b"]


@pytest.mark.parametrize("changes_first", [True, False])
async def test_a_record_that_a_unique_field_displaces_is_a_change(
    tmp_path: Path, changes_first: bool
) -> None:
    """OR REPLACE deletes it without any trigger; what is refused or ignored displaces nothing."""
    steps = [{"changes": True}, {"changes": True, "unique": ["email"]}]
    if not changes_first:
        steps[0] = {"changes": False, "unique": ["email"]}
    for settings in steps:
        async with await _open(tmp_path, **settings):
            pass
    async with await _open(tmp_path, unique=["email"]) as db, db.changes(poll=0.05) as changes:
        ids = await db.create_batch([Record({"email": id}, id=id) for id in "abcd"])
        first = await read_all(db, changes)
        sql = _connect(tmp_path)
        row = "VALUES (?, ?, '{}', 1, 0, 0)"
        sql.execute(f"INSERT OR REPLACE INTO records {COLUMNS} {row}", ("e", '{"email":"a"}'))
        sql.execute("UPDATE OR REPLACE records SET data = '{\"email\":\"b\"}' WHERE id = 'c'")
        sql.execute(f"INSERT OR IGNORE INTO records {COLUMNS} {row}", ("f", '{"email":"d"}'))
        with pytest.raises(sqlite3.IntegrityError):
            sql.execute(f"INSERT INTO records {COLUMNS} {row}", ("f", '{"email":"d"}'))
        sql.close()

        found = [*first, *await read_all(db, changes)]

        assert_orders_grow(found)
        assert last_data(found) == {
            "a": None,
            "b": None,
            "c": {"email": "b"},
            "d": {"email": "d"},
            "e": {"email": "a"},
        }
        assert await db.count() == len(ids) - 1
        await end_changes(db)
    async with await _open(tmp_path, changes=False) as db:
        await db.create(Record({"email": "x"}, id="x"))
