"""What goes wrong with a file: typed errors that say what to do, and nothing half-written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from isthmus import AsyncDatabase
from isthmus._core.executor import Mutation, TransactionOptions, WriteKind
from isthmus._query.ast import TRUE
from isthmus.backends.sqlite.errors import _BY_CODE, translate
from isthmus.errors import (
    AccessError,
    Applied,
    ClosedError,
    ConfigError,
    ConnectError,
    InvalidRecordError,
    IsthmusError,
    StoreError,
    UnavailableError,
    UnexpectedError,
)
from tests.sqlite.conftest import Opener

pytestmark = pytest.mark.backend("sqlite")
R = "records"


# The primary result codes from 1 to 26, as the manual lists them; the module's other constants of
# such small values are limits and what an authorizer is asked.
_ERRORS = """
    ERROR INTERNAL PERM ABORT BUSY LOCKED NOMEM READONLY INTERRUPT IOERR CORRUPT NOTFOUND FULL CANTOPEN
    PROTOCOL EMPTY SCHEMA TOOBIG CONSTRAINT MISMATCH MISUSE NOLFS AUTH FORMAT RANGE NOTADB
"""


def _codes() -> dict[str, int]:
    """Return every primary result code of the driver that is an error."""
    return {name: getattr(sqlite3, f"SQLITE_{name}") for name in _ERRORS.split()}


def test_every_code_of_the_driver_has_its_error() -> None:
    """All 26 primary codes, and the extended ones by their low byte, become isthmus errors."""
    codes = _codes()
    assert sorted(codes.values()) == list(range(1, 27))
    assert set(codes.values()) == set(_BY_CODE)
    for code in codes.values():
        for extended in (code, code | 7 << 8):
            error = sqlite3.OperationalError("it failed")
            error.sqlite_errorcode = extended
            mapped = translate(error, "d.db")
            assert isinstance(mapped, StoreError | InvalidRecordError)
            assert "d.db" in str(mapped)
    for kind in _subclasses(sqlite3.Error):
        assert isinstance(translate(kind("it failed"), "d.db"), IsthmusError)


def _subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _subclasses(child))]


def test_the_errors_that_pass_are_transient_and_the_others_are_not() -> None:
    """A lock passes; a full disk, damage, a wrong file do not by themselves."""

    def of(code: int, *, committing: bool = False) -> IsthmusError:
        error = sqlite3.OperationalError("it failed")
        error.sqlite_errorcode = code
        return translate(error, "d.db", committing=committing)

    assert of(sqlite3.SQLITE_BUSY).transient
    assert of(sqlite3.SQLITE_BUSY_SNAPSHOT).transient
    assert not of(sqlite3.SQLITE_FULL).transient
    assert not of(sqlite3.SQLITE_CORRUPT).transient
    assert isinstance(of(sqlite3.SQLITE_READONLY_DBMOVED), AccessError)
    assert of(sqlite3.SQLITE_IOERR_FSYNC).applied is Applied.NO
    assert of(sqlite3.SQLITE_IOERR_FSYNC, committing=True).applied is Applied.MAYBE
    assert isinstance(translate(sqlite3.ProgrammingError("… a closed database."), "d"), ClosedError)


@pytest.mark.asyncio
async def test_a_missing_folder_is_named(opened: Opener, tmp_path: Path) -> None:
    """ConnectError, not transient, and what to create."""
    with pytest.raises(ConnectError, match="create it") as caught:
        await opened(path=str(tmp_path / "no" / "d.db"))

    assert not caught.value.transient


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "path", ["file:a?mode=memory&cache=shared", "file::memory:", "file:/a?vfs=memdb", "file:"]
)
async def test_a_uri_of_a_database_in_memory_is_refused(path: str) -> None:
    """Its connections would be of several databases; there is one name for a database in memory."""
    with pytest.raises(ConfigError, match="':memory:'"):
        await AsyncDatabase.create("sqlite", {"path": path})


@pytest.mark.asyncio
async def test_a_folder_and_another_kind_of_file_are_no_database(opened: Opener, tmp_path: Path) -> None:
    """Each is said for what it is; the file stays as it was."""
    other = tmp_path / "text.db"
    other.write_bytes(b"this is no database\n" * 500)

    with pytest.raises(ConnectError, match="folder"):
        await opened(path=str(tmp_path))
    with pytest.raises(ConnectError, match="no SQLite database"):
        await opened(path=str(other))

    assert other.read_bytes() == b"this is no database\n" * 500


@pytest.mark.asyncio
async def test_a_damaged_file_is_said_to_be_damaged(opened: Opener, tmp_path: Path) -> None:
    """Not an empty result."""
    backend = await opened()
    await backend.write(
        R, WriteKind.CREATE, [Mutation(f"{n}", {"t": "x" * 500}) for n in range(2_000)], atomic=True
    )
    await backend.close()
    file = tmp_path / "d.db"
    content = bytearray(file.read_bytes())
    content[8_192:-4_096] = b"\xff" * (len(content) - 12_288)
    file.write_bytes(content)

    with pytest.raises(UnexpectedError, match="damaged"):
        backend = await opened()
        await backend.count(R, TRUE)


@pytest.mark.asyncio
async def test_a_full_disk_leaves_nothing_half_written(opened: Opener) -> None:
    """SQLite's own limit of pages stands for the disk; with room again, writing goes on."""
    backend = await opened()
    pool = await backend.native()
    await backend.write(R, WriteKind.CREATE, [Mutation("before", {})], atomic=True)
    (pages,) = await pool.writer.run(lambda session: session.execute("PRAGMA max_page_count = 60").fetchone())
    assert pages == 60
    changes = [Mutation(f"{n}", {"t": "x" * 500}) for n in range(2_000)]

    with pytest.raises(UnavailableError, match="free some disk space") as caught:
        await backend.write(R, WriteKind.CREATE, changes, atomic=True)
    with pytest.raises(UnavailableError):
        async with backend.begin(TransactionOptions()) as tx:
            await tx.write(R, WriteKind.UPDATE, [Mutation("before", {"n": 1})], atomic=True)
            await tx.write(R, WriteKind.CREATE, changes, atomic=True)

    assert caught.value.applied is Applied.NO
    assert not caught.value.transient
    assert (await backend.count(R, TRUE)).count == 1
    (record,) = await backend.read(R, ["before"])
    assert record is not None
    assert record.data == {}
    await pool.writer.run(lambda session: session.execute("PRAGMA max_page_count = 1000000").fetchone())
    assert await backend.write(R, WriteKind.CREATE, changes, atomic=True) == [change.id for change in changes]


@pytest.mark.asyncio
async def test_another_process_with_the_lock_is_waited_for_and_then_told(
    opened: Opener, tmp_path: Path
) -> None:
    """Transient, nothing applied; reads go on; a cancelled wait ends at once and leaves the writer usable."""
    backend = await opened(busy_timeout=0.3)
    other = sqlite3.connect(tmp_path / "d.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(UnavailableError, match="lock") as caught:
        await backend.write(R, WriteKind.CREATE, [Mutation("a", {})], atomic=True)
    assert caught.value.transient
    assert caught.value.applied is Applied.NO
    assert (await backend.count(R, TRUE)).count == 0
    waiting = asyncio.create_task(backend.write(R, WriteKind.CREATE, [Mutation("b", {})], atomic=True))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    writing = asyncio.create_task(backend.write(R, WriteKind.CREATE, [Mutation("c", {})], atomic=True))
    await asyncio.sleep(0.01)
    other.execute("ROLLBACK")
    other.close()

    assert await writing == ["c"]
    assert (await backend.count(R, TRUE)).count == 1


@pytest.mark.asyncio
async def test_a_table_that_another_program_dropped_is_empty_until_the_next_write(
    opened: Opener, tmp_path: Path
) -> None:
    """Reads find nothing, and a write creates it again."""
    backend = await opened()
    other = sqlite3.connect(tmp_path / "d.db")
    other.execute("DROP TABLE records")
    other.commit()
    other.close()

    assert (await backend.count(R, TRUE)).count == 0
    assert await backend.collections() == []

    assert await backend.write(R, WriteKind.CREATE, [Mutation("a", {})], atomic=True) == ["a"]
    assert (await backend.count(R, TRUE)).count == 1
    assert await backend.collections() == [R]


_WRITER = """
    import asyncio, sys
    from isthmus import AsyncDatabase
from isthmus._core.executor import Mutation, WriteKind
    from isthmus.backends.sqlite import plugin

    async def main():
        backend = plugin.build(plugin.config().load({"path": sys.argv[1]}))
        await backend.open("records")
        batch = 0
        while True:
            rows = [Mutation(f"{batch:05}-{n:04}", {"batch": batch, "t": "x" * 300}) for n in range(500)]
            await backend.write("records", WriteKind.CREATE, rows, atomic=True)
            print(batch, flush=True)
            batch += 1

    asyncio.run(main())
"""


@pytest.mark.asyncio
@pytest.mark.parametrize("run", range(3))
async def test_a_killed_writer_leaves_whole_batches_only(opened: Opener, tmp_path: Path, run: int) -> None:
    """SIGKILL under load: each acknowledged batch is there in full, none is there in part."""
    path = tmp_path / "killed.db"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_WRITER), str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    acknowledged = -1
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 5 + 3 * run:
            break
    await asyncio.sleep(0.003 * run)
    os.kill(process.pid, signal.SIGKILL)
    rest = process.communicate()[0].split()
    acknowledged = int(rest[-1]) if rest else acknowledged

    backend = await opened(path=str(path))
    total = (await backend.count(R, TRUE)).count

    assert total % 500 == 0
    assert acknowledged + 1 <= total // 500 <= acknowledged + 2
    pool = await backend.native()
    (checked,) = await pool.readers.run(lambda s: s.execute("PRAGMA integrity_check").fetchone())
    assert checked == "ok"


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    """Run as a user without rights, if the tests run as root, who may write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.asyncio
async def test_a_file_without_write_permission_is_an_access_error(opened: Opener) -> None:
    """It says that the file and its folder need the permission."""
    # Not tmp_path: nobody may not even enter the folders above it.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        file = Path(folder) / "d.db"
        await (await opened(path=str(file))).close()
        file.chmod(0o444)
        file.parent.chmod(0o555)

        with _as_nobody(), pytest.raises(AccessError, match="permission"):
            backend = await opened(path=str(file))
            await backend.write(R, WriteKind.CREATE, [Mutation("a", {})], atomic=True)

        file.parent.chmod(0o755)


@pytest.mark.asyncio
async def test_a_newer_format_is_refused_and_left_alone(opened: Opener, tmp_path: Path) -> None:
    """The whole file by its mark, or one collection by the catalog."""
    await (await opened()).close()
    with sqlite3.connect(tmp_path / "d.db") as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ConfigError, match="newer"):
        await opened()
    with sqlite3.connect(tmp_path / "d.db") as connection:
        connection.execute("PRAGMA user_version = 1")
        connection.execute("UPDATE isthmus_collections SET format = 3")
    connection.close()

    with pytest.raises(ConfigError, match="newer"):
        await opened()


@pytest.mark.asyncio
async def test_a_file_of_another_program_is_shared_but_not_taken_over(opened: Opener, tmp_path: Path) -> None:
    """Its marks and tables stay; a table of ours cannot have the name of one of its own."""
    with sqlite3.connect(tmp_path / "d.db") as connection:
        connection.execute("CREATE TABLE mine (x)")
        connection.execute("PRAGMA user_version = 77")
    connection.close()

    backend = await opened()
    with pytest.raises(ConfigError, match="not made by isthmus"):
        await backend.open("mine")

    assert await backend.collections() == [R]
    pool = await backend.native()
    assert await pool.readers.run(lambda s: s.execute("PRAGMA user_version").fetchone()) == (77,)


@pytest.mark.asyncio
async def test_a_utf16_file_is_refused(opened: Opener, tmp_path: Path) -> None:
    """Its text order is not by code point."""
    with sqlite3.connect(tmp_path / "d.db") as connection:
        connection.execute("PRAGMA encoding = 'UTF-16le'")
        connection.execute("CREATE TABLE x (y)")
    connection.close()

    with pytest.raises(ConfigError, match="UTF-16"):
        await opened()


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ['a"b', "a'; DROP TABLE records; --", "select", "é 😀", "a.b", "%"])
async def test_a_collection_has_any_name(opened: Opener, name: str) -> None:
    """It is quoted in one place; indexes on it too."""
    backend = await opened(table=name, indexes=["age", "a'b", "Age"])

    await backend.write(name, WriteKind.CREATE, [Mutation("a", {"age": 1})], atomic=True)

    assert (await backend.count(name, TRUE)).count == 1
    assert await backend.collections() == [name]


@pytest.mark.asyncio
async def test_names_that_sqlite_confuses_are_told_apart_or_refused(opened: Opener) -> None:
    """`Users` and `users` would be one table."""
    backend = await opened(table="users")

    for name in ("Users", "sqlite_x", "isthmus_collections", "", "a\0b", "x" * 201):
        with pytest.raises(IsthmusError):
            await backend.open(name)
