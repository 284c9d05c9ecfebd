"""SQL of the user inside a transaction, on the transaction's own thread."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import isthmus.native
from isthmus import AsyncDatabase, IsthmusError, Record
from isthmus.errors import ClosedError, TransactionError, UsageError

pytestmark = [pytest.mark.backend("sqlite"), pytest.mark.asyncio]


@pytest.mark.parametrize("path", ["d.db", ":memory:"])
async def test_sql_shares_the_fate_of_the_transaction(path: str, tmp_path: Path) -> None:
    """Records and SQL are committed together, or rolled back together; each sees the other's writes."""
    where = path if path == ":memory:" else str(tmp_path / path)
    async with await AsyncDatabase.create("sqlite", {"path": where}) as db:
        async with db.transaction() as tx:
            sql = await isthmus.native.sqlite(tx)
            await sql.execute("CREATE TABLE audit (id TEXT, note TEXT)")
            await tx.create(Record({"n": 1}, id="kept"))
            assert await sql.execute("INSERT INTO audit VALUES (?, ?)", ("kept", "a")) == 1
            assert await sql.fetch("SELECT count(*) FROM records") == [(1,)]
        with pytest.raises(RuntimeError, match="never mind"):
            async with db.transaction() as tx:
                sql = await isthmus.native.sqlite(tx)
                await tx.create(Record({"n": 1}, id="gone"))
                await sql.execute("UPDATE audit SET note = :note", {"note": "b"})
                raise RuntimeError("never mind")
        async with db.transaction() as tx:
            sql = await isthmus.native.sqlite(tx)
            assert await sql.fetch("SELECT id, note FROM audit") == [("kept", "a")]
            await asyncio.gather(
                *(tx.create({"n": n}) for n in range(10)), *(sql.fetch("SELECT 1") for _ in range(10))
            )

        assert await db.count() == 11
        with pytest.raises(ClosedError):
            await sql.fetch("SELECT 1")
        with pytest.raises(ClosedError):
            await isthmus.native.sqlite(tx)


async def test_a_statement_that_fails_is_undone_alone(tmp_path: Path) -> None:
    """The transaction goes on, as after a refused record."""
    async with await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "d.db")}) as db:
        async with db.transaction() as tx:
            sql = await isthmus.native.sqlite(tx)
            await tx.create(Record({"n": 1}, id="x"))
            await sql.execute("CREATE TABLE one (a INTEGER PRIMARY KEY)")
            with pytest.raises(IsthmusError):
                await sql.execute("INSERT INTO one VALUES (1), (2), (1)")
            with pytest.raises(IsthmusError):
                await sql.execute("SELECT nonsense")
            assert await sql.fetch("SELECT * FROM one") == []

        assert await db.count() == 1


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK", "END", "BEGIN"])
async def test_sql_cannot_end_the_transaction(statement: str, tmp_path: Path) -> None:
    """The block does; and the statement changes nothing."""
    async with await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "d.db")}) as db:
        async with db.transaction() as tx:
            await tx.create(Record({"n": 1}, id="x"))
            with pytest.raises(UsageError, match="block"):
                await (await isthmus.native.sqlite(tx)).execute(statement)

        assert await db.count() == 1


async def test_a_read_only_transaction_writes_nothing_by_sql(tmp_path: Path) -> None:
    """The reader's connection refuses it."""
    async with await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "d.db")}) as db:
        await db.create(Record({"n": 1}, id="x"))
        async with db.transaction(read_only=True) as tx:
            sql = await isthmus.native.sqlite(tx)
            with pytest.raises(TransactionError):
                await sql.execute("DELETE FROM records")
            with pytest.raises(TransactionError):
                await sql.fetch("DELETE FROM records RETURNING id")
            assert await sql.fetch("SELECT id FROM records") == [("x",)]

        assert await db.count() == 1


async def test_a_database_is_no_transaction() -> None:
    """The message says what to pass."""
    async with await AsyncDatabase.create("sqlite", {"path": ":memory:"}) as db:
        with pytest.raises(UsageError, match="takes a transaction"):
            await isthmus.native.sqlite(db)  # type: ignore[arg-type]
