"""Declared columns in a file: format, names, what a rewritten table keeps, and other handles."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from isthmus import AlreadyExistsError, AsyncDatabase, ConfigError, Query, field
from isthmus._columns import declare_columns, drop_columns
from isthmus._core.columns import SupportsColumns, columns_of
from isthmus._path import parse_path
from isthmus._query.ast import Predicate

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlite")]

NUMBER = columns_of({"n": "number"})


async def _open(path: Path, **settings: Any) -> AsyncDatabase:
    return await AsyncDatabase.create("sqlite", {"path": str(path), **settings})


@contextmanager
def _outside(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file as another program does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


async def test_a_collection_with_columns_has_format_2(tmp_path: Path) -> None:
    """0.1.0 refuses it; the others in the file keep format 1."""
    db = await _open(tmp_path / "a.db", columns={"n": "number"})
    await db.create({"n": 1})
    await db.collection("plain").create({"n": 1})
    await db.close()

    with _outside(tmp_path / "a.db") as outside:
        formats = dict(outside.execute("SELECT name, format FROM isthmus_collections").fetchall())
        assert formats == {"records": 2, "plain": 1}
        assert outside.execute("SELECT n, isthmus_odd FROM records").fetchall() == [(1, None)]
        # Other programs write the columns too.
        outside.execute("UPDATE records SET data = '{\"n\": [7]}'")
        assert outside.execute("SELECT n, isthmus_odd FROM records").fetchall() == [(None, 1)]


@pytest.mark.parametrize(
    "names", [["a", "A"], ["id", "data"], ["true", "rowid"], ["é", " "], ["x" * 80, "a b"]]
)
async def test_any_field_is_a_column(tmp_path: Path, names: list[str]) -> None:
    """Names are quoted, and apart although SQLite ignores case."""
    db = await _open(tmp_path / "a.db", columns=dict.fromkeys(names, "number"))
    await db.create_batch([{names[0]: 1, names[1]: 2}, {names[0]: [1]}, {names[1]: 1}])

    assert await db.count(field([names[0]]) == 1) == 2
    assert await db.count(~(field([names[1]]) == 1)) == 2
    assert (await db.search(Query().sort([names[1]], "desc").limit(1)))[0].data == {names[0]: 1, names[1]: 2}
    await db.close()


async def test_a_statement_reads_a_column_where_no_index_serves(tmp_path: Path) -> None:
    """An index of the document is faster than a scan of columns; other fields are read from the document."""
    settings = {"columns": {"n": "number", "t": "text", "u": "text"}, "indexes": ["t"]}
    async with await _open(tmp_path / "a.db", **settings) as db:

        async def statement(where: Predicate) -> str:
            return str((await db.explain(where)).native)

        assert '"n" > ?' in await statement(field("n") > 1)
        for indexed_or_unknown in (field("t") == "a", field("x") > 1):
            assert "isthmus_odd" not in await statement(indexed_or_unknown)
        # A function of ours is not called where there is no value.
        assert '"u" IS NOT NULL AND isthmus_' in await statement(field("u").regex("x+y"))
        assert "IS NOT NULL" not in await statement(field("n") > 1)
        both = await statement((field("n") > 1) & (field("t") == "a"))
        assert '"n" > ?' in both
        assert '"t" = ?' not in both


async def test_odd_records_are_counted(tmp_path: Path) -> None:
    """Those that have something else at the path of a column, for the doctor."""
    async with await _open(tmp_path / "a.db", columns={"n": "number"}) as db:
        await db.create_batch([{"n": 1}, {"n": "x"}, {"n": [1]}, {}])
        await db.collection("plain").create({"n": "x"})
        assert isinstance(db._backend, SupportsColumns)
        assert await db._backend.count_odd("records") == (4, 2)
        assert await db._backend.count_odd("plain") == (0, 0)


async def test_a_handle_knows_which_of_its_columns_are_missing(tmp_path: Path) -> None:
    """A collection with records gets no columns by opening it; those that are added later are there."""
    async with await _open(tmp_path / "a.db") as db:
        await db.create({"n": 1})
    async with await _open(tmp_path / "a.db", columns={"n": "number", "t": "text"}) as db:
        assert await db.count(field("n") == 1) == 1
        assert db._backend.columns("records") == ((), columns_of({"n": "number", "t": "text"}))
        await declare_columns(db, NUMBER)
        assert db._backend.columns("records") == (NUMBER, columns_of({"t": "text"}))


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", ""])
async def test_a_field_without_a_path_is_refused(tmp_path: Path, name: str) -> None:
    """By the config and when it is added."""
    with pytest.raises(ConfigError, match="cannot be a column"):
        AsyncDatabase("sqlite", {"path": ":memory:", "columns": {name: "number"}})
    db = await _open(tmp_path / "a.db")
    with pytest.raises(ConfigError, match="cannot be a column"):
        await declare_columns(db, columns_of({name: "number"}))
    await db.close()


async def test_a_rewritten_table_keeps_what_belongs_to_it(tmp_path: Path) -> None:
    """Indexes, unique fields, changes, triggers and views of others; versions and times stay."""
    path = tmp_path / "a.db"
    db = await _open(path, indexes=["m"], unique=["email"], changes=True)
    id = await db.create({"n": 1, "m": 2, "email": "x"})
    before = await db.require(id)
    with _outside(path) as outside:
        outside.execute("CREATE VIEW theirs AS SELECT data FROM records")
        outside.execute("CREATE TABLE log (id)")
        outside.execute("CREATE TRIGGER t AFTER DELETE ON records BEGIN INSERT INTO log VALUES (OLD.id); END")
        names = {row[0] for row in outside.execute("SELECT name FROM sqlite_master")}

    await declare_columns(db, NUMBER)
    after = await db.require(id)
    assert (after.version, after.created_at, after.data) == (before.version, before.created_at, before.data)
    with pytest.raises(AlreadyExistsError):
        await db.create({"email": "x"})
    assert (await db.explain(field("m") == 2)).index == "records.m"
    await db.update(id, {"n": 7})
    assert await db.count(field("n") == 7) == 1
    assert [change.record and change.record.data["n"] async for change in _first(db)] == [7]
    await drop_columns(db, [parse_path("n")])
    await db.delete(id)
    with _outside(path) as outside:
        assert outside.execute("SELECT * FROM log").fetchall() == [(id,)]
        assert outside.execute("SELECT * FROM theirs").fetchall() == []
        assert names <= {row[0] for row in outside.execute("SELECT name FROM sqlite_master")}
    await db.close()


async def _first(db: AsyncDatabase) -> Any:
    async for change in db.changes(since="start"):
        yield change
        return


async def test_a_handle_whose_columns_were_dropped_by_another_program_goes_on(tmp_path: Path) -> None:
    """It reads and writes without them, as one that was opened afterwards."""
    path = tmp_path / "a.db"
    db = await _open(path, columns={"n": "number"})
    await db.create_batch([{"n": number} for number in range(10)])
    copied = sqlite3.connect(path, isolation_level=None)
    with closing(copied):
        copied.execute("BEGIN")
        copied.execute('DROP INDEX "records.odd#"')
        copied.execute("ALTER TABLE records DROP COLUMN isthmus_odd")
        copied.execute("ALTER TABLE records DROP COLUMN n")
        copied.execute("DELETE FROM isthmus_columns")
        copied.execute("COMMIT")

    assert await db.count(field("n") >= 5) == 5
    assert await db.delete_where(field("n") >= 5) == 5
    assert (await db.explain(field("n") == 1)).columns == ()
    await db.close()
