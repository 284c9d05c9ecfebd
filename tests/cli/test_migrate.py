"""`isthmus migrate`: figures, exit codes, and names of models that are not there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isthmus import AsyncDatabase, Record
from tests.cli.conftest import Cli

MODEL = "tests.transfer.grown_model:Person"


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return the URL of a store with ten old records and one that cannot be upgraded."""
    url = f"sqlite:///{tmp_path}/people.db"

    async def fill() -> None:
        async with await AsyncDatabase.open(url) as db:
            people = db.collection("people")
            await people.create_batch(
                Record({"name": f"A {n}", "age": str(n)}, id=f"p{n}") for n in range(10)
            )
            await people.create(Record({"name": "B", "age": "old"}, id="odd"))

    asyncio.run(fill())
    return url


def test_a_dry_run_has_the_figures_of_the_run(cli: Cli, store: str) -> None:
    """Exit code 6 while a record fails; 0 when it is repaired; nothing is left after that."""
    dry = cli("migrate", store, "people", MODEL, "--dry-run", "--json")
    done = cli("migrate", store, "people", MODEL, "--batch", 3, "--json")

    assert (dry.code, done.code) == (6, 6)
    assert "1 of 11 records cannot be migrated" in done.err
    assert {**dry.json, "dry_run": False} == done.json
    assert (done.json["read"], done.json["migrated"], done.json["failed"]) == (11, 10, 1)
    assert done.json["reasons"][0]["example"] == "odd"
    assert cli("update", store, "-c", "people", "odd", '{"age": "7"}').code == 0
    again = cli("migrate", store, "people", MODEL)
    assert again.code == 0
    assert "migrated" in again.out
    record = cli("get", store, "-c", "people", "odd", "--json").json
    assert record["data"] == {"first": "B", "last": "", "city": "unknown", "age": 7, "n": 0}
    assert record["metadata"] == {"schema": 3}
    assert cli("migrate", store, "people", MODEL, "--json").json["read"] == 0


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        ("Person", 2, "expected module:Model"),
        ("no.such.module:Person", 3, "No module named"),
        ("tests.transfer.grown_model:Persn", 3, "Persn"),
        ("tests.transfer.grown_model:upgrade", 3, "no pydantic model"),
        ("tests.typing.models:Person", 2, "no upgrade functions"),
    ],
)
def test_a_name_of_no_model_is_an_error(cli: Cli, store: str, model: str, code: int, message: str) -> None:
    """Before anything is read."""
    result = cli("migrate", store, "people", model)

    assert result.code == code
    assert message in result.err


@pytest.mark.parametrize("options", [["--dry-run"], []])
def test_a_missing_collection_is_an_error(cli: Cli, store: str, options: list[str]) -> None:
    """It names those that are there, and makes none."""
    for _ in range(2):
        result = cli("migrate", store, "peple", MODEL, *options)

        assert result.code == 3
        assert "people" in result.err
