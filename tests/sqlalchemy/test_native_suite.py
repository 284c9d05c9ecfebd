"""The shipped suite on a table of MariaDB that others made: what it holds is kept, else refused by name.

The table has a text key, a text as its version and a column of JSON for each field of the suite's records.
Those do not have the key as a field, so a layer takes it out of what is read, as it makes the tables, being
their owner.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from isthmus import AsyncDatabase
from isthmus._core.executor import Page
from isthmus._core.op import Fetch, Op, Open, Read
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus._record import Record, make_record
from isthmus._value import replace
from isthmus.testing import conformance
from isthmus.testing.conformance import *  # noqa: F403
from isthmus.testing.conformance import Database
from tests.native_suite import Outcomes
from tests.servers import server

# All of it takes some minutes; `make test-all` runs it.
pytestmark = [pytest.mark.backend("sqlalchemy"), pytest.mark.breadth(16)]
R = TypeVar("R")

KEY, VERSION, TEMPLATE = "the key", "the version", "template"
_TIMES = "a native table has no times (meaning §8)"
_NULL = "a null is stored as NULL and comes back missing (meaning §8)"
CONTRADICTED = {
    "test_created_at_stays_and_updated_at_moves": _TIMES,
    "test_times_are_aware_and_a_new_record_was_updated_when_it_was_created": _TIMES,
    "test_null_is_stored_and_missing_is_not": _NULL,
    "test_mixed_types_in_one_field_are_all_stored": _NULL,
}
"""Tests of what the contract promises of isthmus's own tables only."""
_READ_BACK = "test_a_value_is_read_back_with_the_same_type"
"""Of a null likewise."""
outcomes = Outcomes(
    reasons=("the table has no column", "no place for metadata"),
    is_contradicted=lambda test, arguments: (
        test in CONTRADICTED or (test == _READ_BACK and arguments["name"] == "null")
    ),
    failure=(AssertionError, KeyError),
    match=r"None|'v'",
)


class OwnerLayer(Layer):
    """Makes the tables, as their owner, and hides the key and the version."""

    order = LayerOrder.CACHE
    in_transaction = True
    ops = (Open, Read, Fetch)

    def __init__(self, engine: AsyncEngine, database: str) -> None:
        self._engine = engine
        self._database = database

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        if isinstance(op, Open):
            await self.make(op.collection)
        result: Any = await call_next(op)
        if isinstance(op, Read):
            result = [None if record is None else _hide(record) for record in result]
        elif isinstance(result, Page):
            result = replace(result, records=[_hide(record) for record in result.records])
        return result  # type: ignore[no-any-return]

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
    return ", ".join([key, f"`{VERSION}` VARCHAR(40)", *(f"`{name}` JSON" for name in _fields())])


def _hide(record: Record) -> Record:
    data = {name: value for name, value in record.data.items() if name not in (KEY, VERSION)}
    return make_record(record.id or "", data, {}, record.version, None, None)


def _fields() -> list[str]:
    """Return the fields that the suite's records have."""
    names: dict[str, None] = {}
    for module in sorted(Path(conformance.__file__).parent.glob("*.py")):
        names |= dict.fromkeys(re.findall(r'"([A-Za-z]\w*)":', module.read_text()))
    # Names of columns ignore case: of two that differ by it only, the one in lower case.
    return list({name.lower(): name for name in sorted(names, key=str.islower)}.values())


@pytest_asyncio.fixture
async def database() -> AsyncIterator[Database]:
    """Yield what opens a handle on a new table of its own."""
    url, name = server("mariadb").url, f"suite_{secrets.token_hex(4)}"
    place, _, _ = url.rpartition("/")
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    tables = (f"t{number}" for number in itertools.count())

    async def open_new() -> AsyncDatabase:
        table, owner = next(tables), OwnerLayer(engine, name)
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
