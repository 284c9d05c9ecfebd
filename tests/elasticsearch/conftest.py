"""Backends on a real node, each test with an index of its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from isthmus.backends.elasticsearch import plugin
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.backends.elasticsearch.config import ElasticsearchConfig
from tests import servers
from tests.elasticsearch.proxy import AnswerProxy, answering


@pytest.fixture(scope="session")
def url() -> str:
    """Return the node's address."""
    return servers.server("elasticsearch").url


@pytest_asyncio.fixture
async def proxy(url: str) -> AsyncIterator[AnswerProxy]:
    """Return a proxy to the node."""
    async with answering(url) as running:
        yield running


Build = Callable[..., ElasticsearchBackend]


@pytest_asyncio.fixture
async def build(url: str) -> AsyncIterator[Build]:
    """Return a function that makes a backend; its indices are deleted and it is closed afterwards."""
    made: list[ElasticsearchBackend] = []

    def make(**settings: Any) -> ElasticsearchBackend:
        settings = {"hosts": [url], "replicas": 0, "index": f"test-{uuid.uuid4().hex[:12]}", **settings}
        backend = plugin.build(ElasticsearchConfig.load(settings, environ={}))
        assert isinstance(backend, ElasticsearchBackend)
        made.append(backend)
        return backend

    yield make
    for backend in made:
        native = await backend.native()
        for name in backend._collections:
            await native.options(ignore_status=[400, 404]).indices.delete(index=name)
        await backend.close()


@pytest_asyncio.fixture
async def backend(build: Build) -> ElasticsearchBackend:
    """Return an open backend on an empty index."""
    made = build()
    await made.open(made.default_collection)
    return made
