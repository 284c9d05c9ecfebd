"""The shipped suite on a table that others made: what it can hold is kept, all else is refused by name.

The table has a text key and a column of jsonb for each field of the suite's records. Those do not have
the key as a field, so a layer takes it out of what is read, as it makes the tables, being their owner.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from isthmus import AsyncDatabase
from isthmus.testing import conformance
from isthmus.testing.conformance import *  # noqa: F403
from isthmus.testing.conformance import Database
from tests.native_suite import KEY, OwnerLayer, outcomes_of_json, suite_fields
from tests.servers import server

# All of it takes some minutes; `make test-all` runs it.
pytestmark = [pytest.mark.backend("postgres"), pytest.mark.breadth(8)]
outcomes = outcomes_of_json()


class SchemaOwner(OwnerLayer):
    """The owner of a schema."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = schema

    async def make(self, table: str) -> None:
        """Make a table, if there is none of this name."""
        columns = ", ".join([f'"{KEY}" text PRIMARY KEY', *(f'"{name}" jsonb' for name in suite_fields())])
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(f'CREATE TABLE IF NOT EXISTS {self._schema}."{table}" ({columns})')
        finally:
            await connection.close()


@pytest_asyncio.fixture(params=["asyncpg", "psycopg"])
async def database(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """Yield what opens a handle on a new table of its own."""
    url, schema = server("postgres").url, f"suite_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE SCHEMA {schema}")
    names = (f"t{number}" for number in itertools.count())

    async def open_new() -> AsyncDatabase:
        name, owner = next(names), SchemaOwner(url, schema)
        await owner.make(name)
        for other in ("others", f"{name}_other"):
            await owner.make(other)
        settings = {"url": url, "schema": schema, "table": name, "layout": "native", "driver": request.param}
        return await AsyncDatabase.create("postgres", {**settings, "layers": {"owner": owner}})

    yield open_new
    await connection.execute(f"DROP SCHEMA {schema} CASCADE")
    await connection.close()


for _name in conformance.__all__:
    if _name.startswith("test_"):
        globals()[_name] = outcomes.watch(getattr(conformance, _name))


@pytest.mark.last
def test_most_of_the_suite_is_kept() -> None:
    """The rest has metadata, or fields with names of their own."""
    outcomes.check(0.6)
