"""Calls that are cancelled inside a transaction on SQLite, whose file has one lock."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from isthmus import AsyncDatabase, Record
from isthmus.errors import IsthmusError, TransactionError

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlalchemy")]


async def test_no_lock_is_left_by_a_cancelled_call(tmp_path: Path) -> None:
    """Whatever the call had reached, and while somebody still holds its error."""
    url = f"sqlite+aiosqlite:///{tmp_path}/a.db"
    held = []
    async with await AsyncDatabase.create("sqlalchemy", {"url": url}) as db:
        await db.create_batch([Record({"n": n}, id=f"{n:03}") for n in range(200)])
        for turns in range(0, 75, 3):
            with contextlib.suppress(TransactionError):
                async with db.transaction() as tx:
                    await tx.create({"n": turns})
                    call = asyncio.create_task(tx.update_batch({f"{n:03}": {"n": -n} for n in range(200)}))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    call.cancel()
                    with contextlib.suppress(IsthmusError):
                        try:
                            await call
                        except asyncio.CancelledError as error:
                            held.append(error)

            await asyncio.wait_for(db.upsert(Record({"n": turns}, id="last")), 3)
    assert held
