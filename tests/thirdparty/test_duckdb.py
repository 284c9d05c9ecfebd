"""The DuckDB package, written from the page "Write a backend" alone, passes the shipped suite."""

from __future__ import annotations

import ast
import itertools
import os
from pathlib import Path

import pytest

from isthmus import AsyncDatabase
from isthmus.testing.conformance import *  # noqa: F403
from isthmus.testing.conformance import Database
from tests.differential import programs, queries
from tests.stores import Store

_PACKAGE = Path(__file__).parent / "duckdb" / "isthmus_duckdb"
_SEED = int(os.environ.get("ISTHMUS_TEST_SEED", "1"))
_numbers = itertools.count()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the file that the tests share."""
    return str(tmp_path_factory.mktemp("duckdb") / "test.duckdb")


@pytest.fixture
def database(path: str) -> Database:
    """Return a function that opens a handle on a collection of its own."""

    async def fresh() -> AsyncDatabase:
        return await AsyncDatabase.create("duckdb", {"path": path, "table": f"t{next(_numbers)}"})

    return fresh


@pytest.mark.asyncio
async def test_random_queries_have_the_evaluators_answers() -> None:
    """Leaves, negations, orders, pages, counts and aggregates, on everyday and odd records."""
    report = await queries.run(Store("duckdb", "duckdb"), queries.Plan(300, _SEED, per_set=60))

    print(f"seed {_SEED}")
    assert not report.failures, "\n\n".join(report.failures)


@pytest.mark.asyncio
async def test_random_programs_do_what_the_evaluator_does() -> None:
    """Writes, transactions and deletions by query."""
    report = await programs.run(Store("duckdb", "duckdb"), programs=10, seed=_SEED)

    print(f"seed {_SEED}")
    assert not report.failures, "\n\n".join(report.failures)


def test_the_package_imports_public_modules_only() -> None:
    """Of isthmus, `isthmus`, `isthmus.spi` and `isthmus.errors`."""
    imported: set[str] = set()
    for module in _PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Import(names):
                    imported |= {alias.name for alias in names}
                case ast.ImportFrom(module="isthmus", names=names):
                    imported |= {f"isthmus.{alias.name}" for alias in names}
                case ast.ImportFrom(module=str(name)):
                    imported.add(name)

    assert {name for name in imported if name.split(".")[0] == "isthmus"} <= {
        "isthmus",
        "isthmus.spi",
        "isthmus.errors",
    }
