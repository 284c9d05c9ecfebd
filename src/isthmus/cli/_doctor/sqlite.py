"""Checks of a SQLite file, the disk it is on, and who else holds it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.cli._doctor.finding import Finding, ok, warning, wrong

if TYPE_CHECKING:
    from isthmus import AsyncDatabase

_LITTLE = 200_000_000


async def server(db: AsyncDatabase) -> AsyncIterator[Finding]:
    """Check file and disk, on a connection of our own that changes nothing."""
    config: Any = db.config
    if config.in_memory:
        yield warning(
            "file", "a database in memory is gone with this process", "name a file: sqlite:///file.db"
        )
        return
    for finding in await asyncio.to_thread(lambda: list(_file(Path(config.path), config))):
        yield finding


def _file(path: Path, config: Any) -> Iterator[Finding]:
    free = shutil.disk_usage(path.parent if str(path.parent) else Path()).free
    needed = max(_LITTLE, path.stat().st_size // 10)
    if free < needed:
        yield wrong(
            "disk",
            f"{free / 1e6:,.0f} MB are free where {path} is",
            "free some space: a write that does not fit fails, and so does a checkpoint",
        )
    else:
        yield ok("disk", f"{free / 1e9:,.1f} GB free")
    if config.synchronous in ("off", "normal"):
        yield warning(
            "durability",
            f"synchronous={config.synchronous}: a power cut can lose what was written",
            "leave synchronous out (full), unless the data can be made again",
        )
    else:
        yield ok("durability", f"synchronous={config.synchronous}")
    try:
        connection = sqlite3.connect(f"file:{_quoted(path)}?mode=rw", uri=True, timeout=0.5)
    except sqlite3.Error as error:
        yield wrong("connection", f"{path}: {error}", "check the path and its permissions")
        return
    try:
        yield from _opened(connection, path)
    except sqlite3.DatabaseError as error:
        yield _broken(path, error)
    finally:
        connection.close()


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))


def _broken(path: Path, error: sqlite3.Error) -> Finding:
    text = str(error)
    if "not a database" in text:
        return wrong("connection", f"{path} is no SQLite file", "name the right file")
    if "locked" in text:
        return _held(path)
    return wrong(
        "connection",
        f"{path}: {text}",
        f"restore a backup, or save what can be read: sqlite3 {path} .recover | sqlite3 new.db",
    )


def _held(path: Path) -> Finding:
    return wrong(
        "lock",
        f"another process holds the write lock of {path}",
        f"find it (fuser {path}), and let it commit or end; keep its transactions short",
    )


def _opened(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    if problems != ["ok"]:
        first = " ".join(str(problems[0]).split())
        yield wrong(
            "connection",
            f"{path} is damaged: {first}",
            f"restore a backup, or save what can be read: sqlite3 {path} .recover | sqlite3 new.db",
        )
        return
    yield ok("connection", f"SQLite {sqlite3.sqlite_version}, the file is sound")
    encoding = connection.execute("PRAGMA encoding").fetchone()[0]
    if encoding != "UTF-8":
        yield wrong(
            "encoding",
            f"the file holds text as {encoding}, which sorts otherwise",
            "make a new file and load into it: isthmus dump, isthmus load",
        )
    else:
        yield ok("encoding", "UTF-8")
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        yield warning(
            "journal",
            f"journal_mode is {mode}: readers and the writer wait for each other",
            f"sqlite3 {path} 'PRAGMA journal_mode=wal' (isthmus does so when it may write)",
        )
    else:
        yield ok("journal", "wal")
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            yield wrong("lock", str(error), "give this user the right to write the file and its folder")
        else:
            yield _held(path)
    else:
        yield ok("lock", "nobody holds it")
