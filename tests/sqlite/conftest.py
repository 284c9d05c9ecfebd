"""Backends on a fresh file or in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest_asyncio

from isthmus.backends.sqlite import plugin
from isthmus.backends.sqlite.backend import SQLiteBackend

Opener: TypeAlias = Callable[..., Awaitable[SQLiteBackend]]


@pytest_asyncio.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Return a function that opens a backend, on `d.db` unless told otherwise; all are closed at the end."""
    backends: list[SQLiteBackend] = []

    async def open_one(**settings: Any) -> SQLiteBackend:
        config = plugin.config().load({"path": str(tmp_path / "d.db"), **settings})
        backend = SQLiteBackend(config)  # type: ignore[arg-type]
        backends.append(backend)
        await backend.open(backend.default_collection)
        return backend

    yield open_one
    for backend in backends:
        await backend.close()
