"""Which server, layout and transport a test runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from isthmus.backends.s3.backend import S3Backend
from tests.s3.stores import LAYOUTS, TRANSPORTS, opened


@pytest.fixture
def url(running_server: Callable[[str], Any]) -> str:
    """Return the URL of the server's bucket."""
    return str(running_server("s3").url)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    """Return each layout in turn."""
    return str(request.param)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Return each transport in turn."""
    return str(request.param)


@pytest_asyncio.fixture
async def backend(url: str, layout: str, transport: str) -> AsyncIterator[S3Backend]:
    """Open a backend of each layout over each transport."""
    async with opened(url, layout=layout, transport=transport) as made:
        yield made


@pytest_asyncio.fixture
async def objects(url: str, transport: str) -> AsyncIterator[S3Backend]:
    """Open a backend of layout `object` over each transport."""
    async with opened(url, transport=transport) as made:
        yield made
