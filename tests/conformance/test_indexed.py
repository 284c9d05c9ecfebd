"""What an index serves means the same: each kind of condition, and order, on indexed fields."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase
from isthmus.testing.conformance import Database, db  # noqa: F401
from isthmus.testing.conformance.filters import *  # noqa: F403
from isthmus.testing.conformance.lists import *  # noqa: F403
from isthmus.testing.conformance.negation import *  # noqa: F403
from isthmus.testing.conformance.numbers import *  # noqa: F403
from isthmus.testing.conformance.order import *  # noqa: F403
from isthmus.testing.conformance.texts import *  # noqa: F403
from tests.stores import Declared, store_of

_INDEXED = ["t", "v", "n", "name", "age", "score", "city", "tags", "items.price"]
# Each kind of index by the name of its tests: the store, and what is indexed.
_KINDS: dict[str, tuple[str, Declared]] = {
    "sqlite": ("sqlite", {"indexes": _INDEXED}),
    "postgres": ("postgres", {"indexes": _INDEXED}),
    "postgres-further": ("postgres", {"substring": ["t", "name"], "gin": True}),
}


@pytest.fixture(
    params=[pytest.param(kind, marks=pytest.mark.backend(store)) for kind, (store, _) in _KINDS.items()]
)
def database(request: pytest.FixtureRequest) -> Database:
    """Return what opens a fresh handle whose fields are indexed."""
    name, declared = _KINDS[request.param]

    async def fresh() -> AsyncDatabase:
        return await store_of(name).open(declared)

    return fresh
