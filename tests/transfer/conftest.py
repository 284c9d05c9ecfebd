"""Stores to copy between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from isthmus import AsyncDatabase

Open = Callable[[str], Awaitable[AsyncDatabase]]


@pytest_asyncio.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Return the function that opens a SQLite store by name, and closes them all at the end."""
    stores: list[AsyncDatabase] = []

    async def open_(name: str) -> AsyncDatabase:
        store = await AsyncDatabase.create(
            "sqlite", {"path": str(tmp_path / f"{name}.db"), "synchronous": "off"}
        )
        stores.append(store)
        return store

    yield open_
    for store in stores:
        await store.close()


@pytest_asyncio.fixture
async def source(opened: Open) -> AsyncDatabase:
    """Return an empty store to copy from."""
    return await opened("source")


@pytest_asyncio.fixture
async def target(opened: Open) -> AsyncDatabase:
    """Return an empty store to copy into."""
    return await opened("target")


class FastClock:
    """Time that passes when somebody sleeps, and only then."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@pytest.fixture
def clock() -> FastClock:
    """Return a clock that takes no time."""
    return FastClock()
