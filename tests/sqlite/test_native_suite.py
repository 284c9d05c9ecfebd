"""The shipped suite on a table that others made: what it can hold is kept, all else is refused by name.

The table has a text key and a column without a type for each field of the suite's records; its owner
adds one where a record brings a new name. The suite's records do not have the key as a field, so a layer
takes it out of what is read.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import pytest

from isthmus import AsyncDatabase
from isthmus._core.executor import Mutation
from isthmus._core.op import Modify, ModifyWhere, Op, Write
from isthmus._core.stack import Next
from isthmus.errors import IsthmusError
from isthmus.testing import conformance
from isthmus.testing.conformance import *  # noqa: F403
from isthmus.testing.conformance import Database
from tests.native_suite import KEY, VERSION, WITHOUT_TIMES, Outcomes, OwnerLayer, one_case, suite_fields

# All of it takes two minutes; `make test-all` runs it.
pytestmark = [pytest.mark.backend("sqlite"), pytest.mark.breadth(8)]
R = TypeVar("R")

outcomes = Outcomes(
    reasons=(
        "holds numbers and text",
        "neither lists nor objects",
        "is not declared BOOLEAN",
        "holds booleans",
        "the table has no column",
        "no place for metadata",
    ),
    is_contradicted=lambda test, arguments: test in WITHOUT_TIMES,
    failure=(AssertionError,),
    match="None",
)


class FileOwner(OwnerLayer):
    """The owner of a file, who adds the columns that records bring."""

    ops = (*OwnerLayer.ops, Write, Modify, ModifyWhere)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: dict[str, set[str]] = {}

    async def handle(self, op: Op[R], call_next: Next, /) -> R:
        match op:
            case Write():
                self._add(op.collection, (name for item in op.mutations for name in _names(item)))
            case Modify():
                self._add(op.collection, (c.path.keys[0] for item in op.modifications for c in item.changes))
            case ModifyWhere():
                self._add(op.collection, (change.path.keys[0] for change in op.changes))
        return await super().handle(op, call_next)

    async def make(self, table: str) -> None:
        """Make a table, if there is none of this name."""
        columns = ", ".join([f"{_quoted(KEY)} TEXT PRIMARY KEY", *map(_quoted, _fields()), "active BOOLEAN"])
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")  # so that readers and the writer do not wait
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {_quoted(table)} ({columns}, {_quoted(VERSION)} TEXT)"
            )

    def _add(self, table: str, names: Iterable[str]) -> None:
        known = self._columns.setdefault(table, set())
        missing = [name for name in dict.fromkeys(names) if name.lower() not in known]
        connection = sqlite3.connect(self._path, timeout=0)
        with contextlib.closing(connection), contextlib.suppress(sqlite3.Error):
            for name in missing[:200]:
                known.add(name.lower())
                with contextlib.suppress(sqlite3.OperationalError):
                    connection.execute(f"ALTER TABLE {_quoted(table)} ADD COLUMN {_quoted(name)}")


def _names(item: Mutation) -> Iterable[str]:
    with contextlib.suppress(IsthmusError):
        return list(item.decode()) if item.raw or item.data is not None else []
    return []


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _fields() -> list[str]:
    """Return the fields that the suite's records have."""
    return [name for name in one_case(suite_fields()) if name.lower() != "active"]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Return what opens a handle on a new table of its own."""
    path = tmp_path / "theirs.db"
    names = (f"t{number}" for number in itertools.count())

    async def open_new() -> AsyncDatabase:
        name, owner = next(names), FileOwner(path)
        await owner.make(name)
        others = {"others": {"version": VERSION}, f"{name}_other": {"version": VERSION}}
        settings = {"path": str(path), "layout": "native", "table": name, "version": VERSION}
        layers = {"owner": owner}
        return await AsyncDatabase.create("sqlite", {**settings, "collections": others, "layers": layers})

    return open_new


for _name in conformance.__all__:
    if _name.startswith("test_"):
        globals()[_name] = outcomes.watch(getattr(conformance, _name))


@pytest.mark.last
def test_a_good_part_of_the_suite_is_kept() -> None:
    """The rest has lists, objects, metadata, or bools beside other values, which no such table holds."""
    outcomes.check(0.4)
