"""The example package passes the shipped suite with one import and one fixture."""

from __future__ import annotations

import itertools

import pytest

from isthmus import AsyncDatabase
from isthmus.testing.conformance import *  # noqa: F403
from isthmus.testing.conformance import Database

_numbers = itertools.count()


_JUDGES = {
    "evaluates-some": {"evaluates": "some"},
    "compares-nothing": {"evaluates": "some", "seed": 1, "compares": False, "page": 2},
    # As S3 is where the server ignores conditions.
    "upserts-only": {"evaluates": "some", "creates": False, "compares": False},
}


@pytest.fixture(
    params=[
        pytest.param({"evaluates": "nothing"}, id="evaluates-nothing"),
        *(pytest.param(config, id=name, marks=pytest.mark.breadth(4)) for name, config in _JUDGES.items()),
    ]
)
def database(request: pytest.FixtureRequest) -> Database:
    """Return what opens a handle on a collection of its own."""

    async def fresh() -> AsyncDatabase:
        return await AsyncDatabase.create("rough", {**request.param, "table": f"t{next(_numbers)}"})

    return fresh
