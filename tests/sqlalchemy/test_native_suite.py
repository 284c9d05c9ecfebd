"""The shipped suite on a table of MariaDB that others made: what it holds is kept, else refused by name.

The table has a text key, a text as its version and a column of JSON for each field of the suite's records.
Those do not have the key as a field, so a layer takes it out of what is read, as it makes the tables, being
their owner.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from isthmus import AsyncDatabase
from isthmus.testing import conformance
from isthmus.testing.conformance import *  # noqa: F403
from isthmus.testing.conformance import Database
from tests.native_suite import KEY, VERSION, OwnerLayer, one_case, outcomes_of_json, suite_fields
from tests.servers import server

# All of it takes some minutes; `make test-all` runs it.
pytestmark = [pytest.mark.backend("sqlalchemy"), pytest.mark.breadth(16)]
TEMPLATE = "template"
outcomes = outcomes_of_json()


class DatabaseOwner(OwnerLayer):
    """The owner of a database."""

    def __init__(self, engine: AsyncEngine, database: str) -> None:
        self._engine = engine
        self._database = database

    async def make(self, table: str) -> None:
        """Make a table, if there is none of this name."""
        async with self._engine.connect() as connection:
            names = f"information_schema.tables WHERE table_schema = '{self._database}'"
            found = await connection.exec_driver_sql(f"SELECT table_name FROM {names}")
            known = set(found.scalars())
            if TEMPLATE not in known:
                await connection.exec_driver_sql(f"CREATE TABLE {self._database}.{TEMPLATE} ({_columns()})")
            if table not in known:
                await connection.exec_driver_sql(
                    f"CREATE TABLE {self._database}.`{table}` LIKE {self._database}.{TEMPLATE}"
                )


def _columns() -> str:
    """Return the columns of a table; a copy of it is made faster."""
    key = f"`{KEY}` VARCHAR(512) COLLATE utf8mb4_nopad_bin PRIMARY KEY"
    return ", ".join(
        [key, f"`{VERSION}` VARCHAR(40)", *(f"`{name}` JSON" for name in one_case(suite_fields()))]
    )


@pytest_asyncio.fixture
async def database() -> AsyncIterator[Database]:
    """Yield what opens a handle on a new table of its own."""
    url, name = server("mariadb").url, f"suite_{secrets.token_hex(4)}"
    place, _, _ = url.rpartition("/")
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    tables = (f"t{number}" for number in itertools.count())

    async def open_new() -> AsyncDatabase:
        table, owner = next(tables), DatabaseOwner(engine, name)
        await owner.make(table)
        others = {"others": {"version": VERSION}, f"{table}_other": {"version": VERSION}}
        settings = {"url": f"{place}/{name}", "layout": "native", "table": table, "version": VERSION}
        return await AsyncDatabase.create(
            "sqlalchemy", {**settings, "collections": others, "layers": {"owner": owner}}
        )

    try:
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield open_new
        async with engine.connect() as connection:
            await connection.exec_driver_sql(f"DROP DATABASE {name}")
    finally:
        await engine.dispose()


for _name in conformance.__all__:
    if _name.startswith("test_"):
        globals()[_name] = outcomes.watch(getattr(conformance, _name))


@pytest.mark.last
def test_most_of_the_suite_is_kept() -> None:
    """The rest has metadata, or fields with names of their own."""
    outcomes.check(0.6)
