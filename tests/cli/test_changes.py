"""The command `changes`: JSON lines, and the file that keeps the position."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from isthmus import AsyncDatabase
from isthmus.cli._commands.changes import _keep_position, _print_changes
from tests.cli.conftest import Cli, build_command, run_process


@pytest_asyncio.fixture
async def db() -> AsyncIterator[AsyncDatabase]:
    """Return a handle on a store that keeps changes."""
    async with AsyncDatabase("memory", {"changes": True}) as handle:
        yield handle


@pytest.mark.asyncio
async def test_each_change_is_a_line(db: AsyncDatabase, capfd: pytest.CaptureFixture[str]) -> None:
    """With the record as the other commands print it, null if it is gone."""
    async with db.changes() as stream:
        await db.upsert("a", {"name": "Åse"})
        await db.upsert("b", {})
        await db.delete("b")
        await _print_changes(stream, None, None, wait=False)

    lines = [orjson.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [list(line) for line in lines] == [["id", "order", "version", "record", "position"]] * 2
    assert [line["id"] for line in lines] == ["a", "b"]
    assert lines[0]["record"]["data"] == {"name": "Åse"}
    assert lines[0]["version"] == lines[0]["record"]["version"]
    assert lines[1]["record"] is None
    assert lines[0]["order"] < lines[1]["order"]


def test_a_position_is_of_lines_that_the_pipe_took(tmp_path: Path) -> None:
    """Without Python's buffer too, where a write to a pipe may take a part of a page of lines."""
    store, file = f"sqlite:///{tmp_path}/db?changes=true", tmp_path / "position"
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(
        b"".join(orjson.dumps({"id": f"k{n:04}", "pad": "x" * 300}) + b"\n" for n in range(1_500))
    )
    assert run_process("load", store, rows, "--id", "id").returncode == 0
    command = build_command("changes", store, "--no-wait", "--position", file)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}

    with subprocess.Popen(
        [*command, "--since", "start"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as killed:
        assert killed.stdout is not None
        assert orjson.loads(killed.stdout.readline())["id"] == "k0000"
        killed.stdout.close()
    rest = subprocess.run([*command, "--since", "start"], capture_output=True, check=True, env=environment)

    ids = [orjson.loads(line)["id"] for line in rest.stdout.splitlines()]
    assert ids == [f"k{n:04}" for n in range(1_500)]


@pytest.mark.asyncio
async def test_the_file_is_the_position_of_the_last_line(
    db: AsyncDatabase, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A run of N changes continues at the next one; the file is replaced as a whole."""
    file = tmp_path / "position"
    for number in range(5):
        await db.upsert(f"r{number}", {})
    printed = []
    since = "start"
    for number in (2, 1, 2):
        async with db.changes(since=since) as stream:
            await _print_changes(stream, file, number, wait=False)
        lines = [orjson.loads(line) for line in capfd.readouterr().out.splitlines()]
        printed += [line["id"] for line in lines]
        since = file.read_text().strip()

    assert printed == [f"r{number}" for number in range(5)]
    assert [path.name for path in tmp_path.iterdir()] == ["position"]


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_replaced_stays_as_it_was(db: AsyncDatabase, tmp_path: Path) -> None:
    """The error is raised, and no other file is left."""
    folder = tmp_path / "position"
    folder.mkdir()
    (folder / "kept").touch()
    async with db.changes() as stream:
        with pytest.raises(OSError, match="position"):
            _keep_position(folder, stream)
    assert [path.name for path in tmp_path.iterdir()] == ["position"]


def test_a_missing_folder_is_named_by_the_file_that_was_asked_for(cli: Cli, tmp_path: Path) -> None:
    """Not by a temporary file in it."""
    file = tmp_path / "missing" / "position"
    ran = cli("changes", "memory://x?changes=true", "--no-wait", "--position", file)
    assert (ran.code, f"{file}: No such file" in ran.err) == (8, True)


def test_the_position_is_kept_before_the_first_change(cli: Cli, tmp_path: Path) -> None:
    """Else what is written before the second run would be missed; it fits no other store."""
    file = tmp_path / "position"
    ran = cli("changes", "memory://x?changes=true", "--no-wait", "--position", file)
    assert (ran.code, ran.out) == (0, "")
    assert file.read_text().strip()

    expired = cli("changes", "memory://x?changes=true", "--no-wait", "--position", file)
    assert (expired.code, "begin again" in expired.err) == (7, True)
    file.write_text("nonsense")
    assert cli("changes", "memory://x?changes=true", "--no-wait", "--position", file).code == 2
    file.write_text("")
    assert cli("changes", "memory://x?changes=true", "--no-wait", "--position", file).code == 2


def test_a_store_without_changes_is_refused(cli: Cli, tmp_path: Path) -> None:
    """By its kind, or because the collection does not keep them."""
    (tmp_path / "a.json").write_text("{}")
    refused = cli("changes", f"files://{tmp_path}/*.json", "--no-wait")
    assert (refused.code, "has no changes" in refused.err) == (7, True)
    undeclared = cli("changes", "memory://x", "--no-wait")
    assert (undeclared.code, "isthmus index" in undeclared.err) == (3, True)


@pytest.mark.backend("s3")
def test_a_log_is_followed_by_one_process_after_another(
    cli: Cli, tmp_path: Path, running_server: Callable[[str], Any]
) -> None:
    """Each goes on where the one before it was, compactions or not; a filter leaves changes in."""
    url = f"{running_server('s3').url}&layout=log&prefix=cli-{secrets.token_hex(4)}"
    file = tmp_path / "position"
    follow = ("changes", url, "--no-wait", "--position", file)
    assert cli("put", url, "a", '{"n": 1}').code == 0
    assert cli(*follow).code == 3
    assert cli("index", url, "--changes").code == 0
    assert [line["id"] for line in cli(*follow, "--since", "start").lines] == ["a"]
    assert cli(*follow).out == ""

    assert cli("put", url, "b", '{"n": 2}').code == 0
    assert cli("delete", url, "a").code == 0
    assert cli("log", "compact", url, "--json").json == {"checkpoint": True, "removed": 0}
    assert "nothing new" in cli("log", "compact", url).out

    lines = cli(*follow, "--where", "n=2").lines
    assert [(line["id"], line["record"] and line["record"]["data"]) for line in lines] == [
        ("b", {"n": 2}),
        ("a", None),
    ]
    assert cli("index", url, "--changes", "--drop").code == 0
    assert cli(*follow).code == 3


def test_only_a_log_is_compacted(cli: Cli) -> None:
    """Other stores, and S3 objects, are refused."""
    refused = cli("log", "compact", "memory://x")
    assert (refused.code, "layout=log" in refused.err) == (7, True)
    assert cli("log", "shrink", "memory://x").code == 2
