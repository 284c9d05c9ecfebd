"""What an index serves means the same: texts, lists, complements and order, on indexed fields."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase
from isthmus.testing.conformance import Database, db  # noqa: F401
from isthmus.testing.conformance.lists import *  # noqa: F403
from isthmus.testing.conformance.negation import *  # noqa: F403
from isthmus.testing.conformance.order import *  # noqa: F403
from isthmus.testing.conformance.texts import *  # noqa: F403
from tests.stores import store_of

_INDEXED = ["t", "v", "n", "name", "age", "score", "city", "tags", "items.price"]


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.backend(name)) for name in ("sqlite", "postgres")]
)
def database(request: pytest.FixtureRequest) -> Database:
    """Return what opens a fresh handle whose fields are indexed."""
    store = store_of(request.param)

    async def fresh() -> AsyncDatabase:
        return await store.open(_INDEXED)

    return fresh
