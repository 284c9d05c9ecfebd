"""Other programs that change a record change its version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from isthmus import AsyncDatabase, ConflictError, Record

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlite")]

CHANGES = {
    "data": ["""UPDATE records SET data = '{"n":2}' WHERE id = 'a'"""],
    "metadata": ["""UPDATE records SET metadata = '{"by":"hand"}' WHERE id = 'a'"""],
    "an upsert": [
        """INSERT INTO records VALUES ('a', '{"n":2}', '{}', 1, 0, 0)
        ON CONFLICT (id) DO UPDATE SET data = excluded.data"""
    ],
    "a replacing update": ["""UPDATE OR REPLACE records SET data = '{"n":2}' WHERE id = 'a'"""],
    "INSERT OR REPLACE": ["""INSERT OR REPLACE INTO records VALUES ('a', '{"n":2}', '{}', 1, 0, 0)"""],
    "a key that is changed and back": [
        "UPDATE records SET id = 'b' WHERE id = 'a'",
        "UPDATE records SET id = 'a' WHERE id = 'b'",
    ],
}


def run_outside(path: Path, *statements: str) -> None:
    """Run statements as another program does, without any function of ours."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("exists", [False, True], ids=["new", "of version 0.1.0"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_from_outside_changes_the_version(change: str, exists: bool, tmp_path: Path) -> None:
    """So a write that expects the version before it is refused; a table that exists gets the trigger."""
    path = tmp_path / "a.db"
    if exists:
        async with await AsyncDatabase.create("sqlite", {"path": str(path)}):
            pass
        run_outside(path, 'DROP TRIGGER "records.version"')
    async with await AsyncDatabase.create("sqlite", {"path": str(path)}) as db:
        await db.create(Record({"n": 1}, id="a"))
        before = await db.require("a")

        run_outside(path, *CHANGES[change])

        after = await db.require("a")
        assert after.version != before.version
        with pytest.raises(ConflictError):
            await db.replace("a", {"n": 3}, if_version=before.version)
        version = await db.replace("a", {"n": 3}, if_version=after.version)
        assert (await db.require("a")).version == version
        assert [(await db.upsert_batch({"a": {"n": 4}}))[0]] == [(await db.require("a")).version]
