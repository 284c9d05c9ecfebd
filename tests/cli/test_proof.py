"""The commands parity, bench and top, shell completion, and the version."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from isthmus import Collection
from tests.cli.conftest import Cli, run_process

pytestmark = pytest.mark.backend("sqlite")


def test_parity_finds_no_difference(cli: Cli, tmp_path: Path) -> None:
    """Random queries return the specified results, and the seed is printed."""
    ran = cli("parity", f"sqlite:///{tmp_path}/x.db", "-n", 60, "--quick", "--json")

    assert ran.code == 0, ran.json
    assert ran.json["queries"] == 60
    again = cli("parity", "memory://", "-n", 20, "--quick", "--seed", ran.json["seed"])
    assert "0 differences" in again.out


def test_parity_reports_a_wrong_result(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that omits a record is detected, with exit code 1."""
    search = Collection.search

    async def forgetful(self: Collection, *arguments: Any, **options: Any) -> Any:
        found = await search(self, *arguments, **options)
        return found[1:] if arguments else found

    monkeypatch.setattr(Collection, "search", forgetful)

    ran = cli("parity", "memory://", "-n", 20, "--seed", 1, "--quick")

    assert ran.code == 1
    assert "instead of" in ran.out


def test_bench_times_each_kind_of_call(cli: Cli, tmp_path: Path) -> None:
    """A row for each job; no table is left behind."""
    url = f"sqlite:///{tmp_path}/x.db"

    ran = cli("bench", url, "-n", 50, "--json")

    assert ran.code == 0
    assert all(row["median_ms"] > 0 and row["per_s"] > 0 for row in ran.json)
    assert {"create_batch", "get", "stream"} <= {row["job"] for row in ran.json}
    assert "records/s" in cli("bench", url, "-n", 20).out
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as left:
        tables = {name for (name,) in left.execute("SELECT tbl_name FROM sqlite_master")}
    assert tables <= {"isthmus_collections", "records"}


def test_top_takes_samples(cli: Cli, people: str) -> None:
    """Each sample has round trips, number of records and pool."""
    samples = cli("top", people, "-n", 3, "--every", 0.05, "--json").lines

    assert len(samples) == 3
    assert all(sample["records"] == 100 and len(sample["ping_ms"]) == 5 for sample in samples)
    assert "round trip" in cli("top", people, "-n", 2, "--every", 0.05).out


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", b"complete"), ("zsh", b"#compdef"), ("fish", b"complete")]
)
def test_completion_supports_each_shell(shell: str, sign: bytes) -> None:
    """--show-completion prints the script for the given shell."""
    shown = run_process("--show-completion", shell, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})

    assert shown.returncode == 0, shown.stderr
    assert sign in shown.stdout


def test_completion_knows_commands_and_options() -> None:
    """The shell is given the matching commands."""
    environment = {
        "_ISTHMUS_COMPLETE": "complete_bash",
        "COMP_WORDS": "isthmus co",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "isthmus co",
    }

    completed = run_process(env=environment)

    assert set(completed.stdout.split()) == {b"count", b"copy"}, completed


def test_the_version_is_printed(cli: Cli) -> None:
    """`isthmus --version` is one line."""
    from isthmus import __version__

    assert cli("--version").out == f"isthmus {__version__}\n"
    assert orjson.dumps(cli("--help").code) == b"0"
