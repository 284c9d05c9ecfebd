"""Fixtures of the files backend's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from isthmus import AsyncDatabase


@pytest_asyncio.fixture
async def memory() -> AsyncIterator[AsyncDatabase]:
    """Yield a handle on memory, which evaluates each condition by definition."""
    async with AsyncDatabase("memory") as db:
        yield db
