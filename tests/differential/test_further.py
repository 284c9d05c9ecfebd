"""A small slice on every other driver, transport, server and server version; all of it by `make test-all`."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.breadth import size
from tests.differential import programs, queries
from tests.differential.__main__ import EXACT
from tests.stores import FURTHER, store_of

# Elasticsearch 8 takes a second node of Java: `make test-all` starts it.
_LEFT_OUT = {"elasticsearch8"}
SEED = int(os.environ.get("ISTHMUS_TEST_SEED", "1"))


def _columns() -> list[Any]:
    return [
        pytest.param(name, marks=pytest.mark.backend(backend))
        for name, (backend, _, _) in FURTHER.items()
        if name not in _LEFT_OUT
    ]


@pytest.mark.parametrize("store", _columns())
@pytest.mark.asyncio
async def test_a_slice_means_the_same_on_further_columns(store: str) -> None:
    """A few queries and programs; differences print a test to paste."""
    where = store_of(store)

    wanted = size(25, 60)
    found = await queries.run(where, queries.Plan(wanted, SEED, per_set=wanted))
    ran = await programs.run(where, programs=size(1, 2), seed=SEED)

    print("\n".join(queries.lines(found, exact_required=where.backend in EXACT)), f"\nseed {SEED}")
    assert not found.failures, "\n\n".join(found.failures)
    assert not ran.failures, "\n\n".join(ran.failures)
