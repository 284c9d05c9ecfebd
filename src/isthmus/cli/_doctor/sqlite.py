"""Checks of a SQLite file, its disk, and its locks."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from isthmus.backends.sqlite.change_tables import find_changes, trigger_names
from isthmus.cli._doctor.finding import Finding, ok, problem, warning
from isthmus.cli._doctor.sqlite_native import check_native

if TYPE_CHECKING:
    from isthmus import AsyncDatabase
    from isthmus.backends.sqlite.config import SQLiteConfig

_MIN_FREE = 200_000_000
"""In bytes; for a file of more than ten times this, a tenth of its size."""


async def check_server(db: AsyncDatabase) -> AsyncIterator[Finding]:
    """Check the disk and the file, on a connection that changes nothing."""
    config = cast("SQLiteConfig", db.config)
    if config.in_memory:
        yield warning(
            "file", "a database in memory is lost when this process ends", "name a file: sqlite:///file.db"
        )
        return
    path = Path(config.path)
    for finding in await asyncio.to_thread(lambda: [*_check_disk(path, config), *_check_file(path, config)]):
        yield finding


def _check_disk(path: Path, config: SQLiteConfig) -> Iterator[Finding]:
    free = shutil.disk_usage(path.parent).free
    if free < max(_MIN_FREE, path.stat().st_size // 10):
        yield problem(
            "disk",
            f"{free / 1e6:,.0f} MB are free on the disk of {path}",
            "free some space: writes and checkpoints fail when the disk is full",
        )
    else:
        yield ok("disk", f"{free / 1e9:,.1f} GB free")
    if config.synchronous in ("off", "normal"):
        yield warning(
            "durability",
            f"synchronous={config.synchronous}: a power cut can lose committed writes",
            "leave synchronous out (full), unless the data can be restored from elsewhere",
        )
    else:
        yield ok("durability", f"synchronous={config.synchronous}")


def _check_file(path: Path, config: SQLiteConfig) -> Iterator[Finding]:
    try:
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=0.5)
    except sqlite3.Error as error:
        yield problem("connection", f"{path}: {error}", "check the path and its permissions")
        return
    with closing(connection):
        try:
            yield from _check_database(connection, path, is_native=config.layout == "native")
            yield from _check_changes(connection, path, config.table)
            if config.layout == "native":
                yield from check_native(connection, config)
        except sqlite3.DatabaseError as error:
            yield _explain_error(path, str(error))


def _check_database(connection: sqlite3.Connection, path: Path, *, is_native: bool) -> Iterator[Finding]:
    problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    if problems != ["ok"]:
        yield _damage_problem(path, f"damaged: {' '.join(str(problems[0]).split())}")
        return
    yield ok("connection", f"SQLite {sqlite3.sqlite_version}, the file is intact")
    encoding = connection.execute("PRAGMA encoding").fetchone()[0]
    if encoding != "UTF-8":
        yield problem(
            "encoding",
            f"the file stores text as {encoding}, which has another sort order",
            "create a new file and load the records into it: isthmus dump, isthmus load",
        )
    else:
        yield ok("encoding", "UTF-8")
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        yield warning(
            "journal",
            f"journal_mode is {mode}: readers and the writer wait for each other",
            f"sqlite3 {path} 'PRAGMA journal_mode=wal'"
            + (" (the owner's to decide)" if is_native else " (isthmus sets it when it may write)"),
        )
    else:
        yield ok("journal", "wal")
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            yield problem("lock", str(error), "let this user write the file and its folder")
        else:
            yield _lock_problem(path)
    else:
        yield ok("lock", "no other process holds it")


def _check_changes(connection: sqlite3.Connection, path: Path, collection: str) -> Iterator[Finding]:
    """Check the triggers of a collection that keeps its changes; nothing without changes."""
    tables = find_changes(connection, collection)
    if tables is None:
        return
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    missing = [name for name in trigger_names(tables) if (name,) not in names]
    if missing:
        yield problem(
            "changes",
            f"triggers are missing, so writes are not noted: {', '.join(missing)}",
            f"isthmus index sqlite:///{path} --changes --drop, then --changes; followers begin again",
        )
    else:
        yield ok("changes", "all triggers are there")


def _explain_error(path: Path, message: str) -> Finding:
    if "not a database" in message:
        return problem("connection", f"{path} is not a SQLite file", "name the right file")
    return _lock_problem(path) if "locked" in message else _damage_problem(path, message)


def _damage_problem(path: Path, message: str) -> Finding:
    return problem(
        "connection",
        f"{path}: {message}",
        f"restore a backup, or recover what can be read: sqlite3 {path} .recover | sqlite3 new.db",
    )


def _lock_problem(path: Path) -> Finding:
    return problem(
        "lock",
        f"another process holds the write lock of {path}",
        f"find it (fuser {path}), and let it commit or exit; keep its transactions short",
    )
