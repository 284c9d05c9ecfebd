"""`close` and `terminate` on the backends that need no server."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from isthmus import AsyncDatabase
from isthmus.errors import ClosedError

BACKENDS = ["memory", "sqlite"]


def _settings(backend: str, folder: Path) -> dict[str, Any]:
    return {"path": str(folder / "d.db")} if backend == "sqlite" else {}


@pytest.mark.asyncio
@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_terminated_handle_can_be_opened_again(backend: str, tmp_path: Path) -> None:
    """It is closed at once, and its records are where they were."""
    db = await AsyncDatabase.create(backend, _settings(backend, tmp_path))
    await db.create({"n": 1})

    db.terminate()

    with pytest.raises(ClosedError):
        await db.count()
    await asyncio.sleep(0)
    await db.connect()
    assert await db.count() == 1
    await db.close(timeout=5)


@pytest.mark.asyncio
async def test_a_transaction_of_another_task_is_dropped_in_time(tmp_path: Path) -> None:
    """SQLite: nothing of it is applied, and `close` does not outlast its time."""
    db = await AsyncDatabase.create("sqlite", {"path": tmp_path / "a.db"})
    begun = asyncio.Event()

    async def write() -> None:
        async with db.transaction() as tx:
            await tx.upsert("a", {})
            begun.set()
            await asyncio.sleep(30)

    writing = asyncio.create_task(write())
    await begun.wait()
    start = time.monotonic()
    await db.close(timeout=0.1)
    assert time.monotonic() - start < 0.9  # it waited a second more
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    async with db:
        assert await db.count() == 0


@pytest.mark.asyncio
async def test_a_backend_that_does_not_close_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    """One that cannot drop its connections, too: its closing is cancelled, and a warning says so."""
    db = await AsyncDatabase.create("memory")
    never = asyncio.Event()

    async def close() -> None:
        await never.wait()

    db._backend.close = close  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, "isthmus"):
        await db.close(timeout=0.05)

    assert "memory: not closed within 0.05 s" in caplog.text


@pytest.mark.asyncio
async def test_an_error_of_closing_is_the_callers() -> None:
    """It is not lost in the background."""
    db = await AsyncDatabase.create("memory")

    async def close() -> None:
        raise RuntimeError("broken")

    db._backend.close = close  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="broken"):
        await db.close()
