"""The tests of a parity run: the conformance suite, on the columns that `_run` sets in the environment."""

from __future__ import annotations

import json
import os
import secrets

import pytest

from isthmus import AsyncDatabase
from isthmus._core.registry import plugin
from isthmus.testing.conformance import *  # noqa: F403
from isthmus.testing.conformance import Database

_COLUMNS = {column["name"]: column for column in json.loads(os.environ.get("ISTHMUS_PARITY_COLUMNS", "[]"))}


@pytest.fixture(params=_COLUMNS)
def database(request: pytest.FixtureRequest) -> Database:
    """Return a function that opens a new collection of a column's store."""
    column = _COLUMNS[request.param]
    collection = plugin(column["backend"]).config().collection_setting() or "table"

    async def open_new() -> AsyncDatabase:
        settings = {**column["settings"], collection: f"isthmus_parity_{secrets.token_hex(6)}"}
        return await AsyncDatabase.create(column["backend"], settings)

    return open_new
