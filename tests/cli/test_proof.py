"""parity, bench, top and completion do their work."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from isthmus import Collection
from tests.cli.conftest import Cli, process

pytestmark = pytest.mark.backend("sqlite")


def test_parity_finds_no_difference(cli: Cli, tmp_path: Path) -> None:
    """Random queries over nasty records mean what is written, and the seed is told."""
    ran = cli("parity", f"sqlite:///{tmp_path}/x.db", "-n", 60, "--quick", "--json")

    assert ran.code == 0, ran.json
    assert ran.json["queries"] == 60
    again = cli("parity", "memory://", "-n", 20, "--quick", "--seed", ran.json["seed"])
    assert "0 differences" in again.out


def test_parity_names_a_wrong_answer(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that forgets a record is caught, with exit code 1."""
    honest = Collection.search

    async def forgetful(self: Collection, *arguments: Any, **options: Any) -> Any:
        found = await honest(self, *arguments, **options)
        return found[1:] if arguments else found

    monkeypatch.setattr(Collection, "search", forgetful)

    ran = cli("parity", "memory://", "-n", 20, "--seed", 1, "--quick")

    assert ran.code == 1
    assert "instead of" in ran.out


def test_bench_times_each_kind_of_call(cli: Cli, tmp_path: Path) -> None:
    """A row for each job, and nothing is left behind."""
    url = f"sqlite:///{tmp_path}/x.db"

    ran = cli("bench", url, "-n", 50, "--json")

    assert ran.code == 0
    assert all(row["median_ms"] > 0 and row["per_s"] > 0 for row in ran.json)
    assert {"create_batch", "get", "stream"} <= {row["job"] for row in ran.json}
    assert "records/s" in cli("bench", url, "-n", 20).out
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as left:
        tables = {name for (name,) in left.execute("SELECT tbl_name FROM sqlite_master")}
    assert tables <= {"isthmus_collections", "records"}


def test_top_looks_again_and_again(cli: Cli, people: str) -> None:
    """Each look has the times, the number of records and the pool."""
    looks = cli("top", people, "-n", 3, "--every", 0.05, "--json").lines

    assert len(looks) == 3
    assert all(look["records"] == 100 and len(look["ping_ms"]) == 5 for look in looks)
    assert "round trip" in cli("top", people, "-n", 2, "--every", 0.05).out


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", b"complete"), ("zsh", b"#compdef"), ("fish", b"complete")]
)
def test_completion_is_there_for_each_shell(shell: str, sign: bytes) -> None:
    """--show-completion prints the script of the shell that is used."""
    shown = process("--show-completion", shell, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})

    assert shown.returncode == 0, shown.stderr
    assert sign in shown.stdout


def test_completion_knows_commands_and_options() -> None:
    """What the shell asks for while one types is answered."""
    asked = {
        "_ISTHMUS_COMPLETE": "complete_bash",
        "COMP_WORDS": "isthmus co",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "isthmus co",
    }

    answer = process(env=asked)

    assert set(answer.stdout.split()) == {b"count", b"copy"}, answer


def test_the_version_is_printed(cli: Cli) -> None:
    """`isthmus --version` is one line."""
    from isthmus import __version__

    assert cli("--version").out == f"isthmus {__version__}\n"
    assert orjson.dumps(cli("--help").code) == b"0"
