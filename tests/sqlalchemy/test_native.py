"""SQL of the user inside a transaction, on the transaction's own connection."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import isthmus.native
from isthmus import AsyncDatabase, Record
from isthmus.errors import ClosedError
from sqlalchemy import text

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlalchemy")]


async def test_sql_shares_the_fate_of_the_transaction(tmp_path: Path) -> None:
    """Records and SQL are committed together, or rolled back together; a database gives the engine."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'd.db'}"
    async with await AsyncDatabase.create("sqlalchemy", {"url": url}) as db:
        async with db.transaction() as tx:
            connection = await isthmus.native.sqlalchemy(tx)
            await tx.create(Record({"n": 1}, id="kept"))
            await connection.execute(text("CREATE TABLE audit (id TEXT)"))
            await connection.execute(text("INSERT INTO audit VALUES (:id)"), {"id": "kept"})
            count = await connection.scalar(text(f"SELECT count(*) FROM {db.collection_name}"))
            assert count == 1
        with pytest.raises(RuntimeError, match="never mind"):
            async with db.transaction() as tx:
                await tx.create(Record({"n": 1}, id="gone"))
                await (await isthmus.native.sqlalchemy(tx)).execute(text("DELETE FROM audit"))
                raise RuntimeError("never mind")

        engine = await isthmus.native.sqlalchemy(db)
        assert isinstance(engine, AsyncEngine)
        async with engine.connect() as outside:
            assert await outside.scalar(text("SELECT count(*) FROM audit")) == 1
        assert await db.count() == 1
        with pytest.raises(ClosedError):
            await isthmus.native.sqlalchemy(tx)
