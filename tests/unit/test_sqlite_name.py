"""Which names of SQLite are of a database without a file, compared with SQLite itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from isthmus.backends._tables.sqlite_name import lives_in_memory

pytestmark = pytest.mark.backend("sqlite")

WITHOUT_FILE = [
    "",
    ":memory:",
    "file:",
    "file:?cache=shared",
    "file:#a.db",
    "file://localhost",
    "file://",
    "file::memory:",
    "file::memory:?cache=shared",
    "file:%3Amemory%3a",
    "file:a.db?mode=memory",
    "file:a.db?mode=rwc&mode=memory",
    "file:a.db?mode=m%65mory&cache=shared",
    "file:/a.db?vfs=memdb",
    "file:///a.db?vfs=memdb",
]
WITH_FILE = [
    "a.db",
    "memory",
    ":MEMORY:",
    "file:a.db",
    "file:a.db?mode=rwc",
    "file:a.db?mode=memory&mode=rwc",
    "file:a.db#?mode=memory",
    "file:a.db?cache=shared",
    "file:a%3Fmode=memory",
    "file://localhost{}/a.db",
]


@pytest.mark.parametrize("name", [*WITHOUT_FILE, *WITH_FILE])
def test_sqlite_makes_a_file_unless_the_name_lives_in_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every spelling of a URI."""
    monkeypatch.chdir(tmp_path)
    name = name.format(tmp_path)

    connection = sqlite3.connect(name, uri=True)
    connection.execute("CREATE TABLE a (b)")
    connection.close()

    assert lives_in_memory(name, uri=True) is not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", WITHOUT_FILE[2:])
def test_a_name_that_is_no_uri_is_a_files(name: str) -> None:
    """Only `:memory:` and the empty name are special then."""
    assert not lives_in_memory(name, uri=False)
