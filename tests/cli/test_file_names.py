"""Names of files that mean something else without their `./`: every command reads the file that is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

pytestmark = pytest.mark.backend("sqlite")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which is not the home folder; the latter has a file `w.csv`."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    (here / "~").mkdir(parents=True)
    (home / "w.csv").write_text("place\nhome\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("name", ["./~/w.csv", "~/w.csv", "./~nobody.csv", "./~root", "./~root/a.csv"])
def test_a_tilde_below_the_current_folder_is_a_name(cli: Cli, folder: Path, name: str) -> None:
    """No command takes it for a home folder, also in a URL and a pattern."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("place\nhere\n")
    options = [] if file.suffix else ["-f", "csv"]

    assert cli("load", "sqlite:///x.db", name, *options).code == 0
    assert [line["data"] for line in cli("query", "sqlite:///x.db").lines] == [{"place": "here"}]
    if file.suffix:
        url = f"files://./{name.removeprefix('./')}"
        for place in (name, url, f"{url[:-3]}*"):
            assert [line["data"] for line in cli("query", place).lines] == [{"place": "here"}]
        assert cli("load", "sqlite:///y.db", f"{name[:-3]}*").code == 0
        assert [line["data"] for line in cli("query", "sqlite:///y.db").lines] == [{"place": "here"}]


def test_a_file_named_as_a_stream_is_a_file(cli: Cli, folder: Path) -> None:
    """`./-` is neither standard input nor standard output."""
    (folder / "-").write_text("n\n1\n")
    assert cli("load", "sqlite:///x.db", "./-", "-f", "csv").code == 0
    assert cli("dump", "sqlite:///x.db", "./-", "-f", "csv", "--plain").code == 0
    assert (folder / "-").read_text() == "n\n1\n"

    assert cli("query", "sqlite:///x.db", "-o", "./-", "-f", "csv", "--plain", "--select", "n").code == 0
    assert (folder / "-").read_text() == "n\n1\n"


def test_a_name_that_is_not_utf_8_is_refused_by_each_command(cli: Cli, folder: Path) -> None:
    """It would be a part of ids; a folder's name is not."""
    name = os.fsdecode(b"bad\xff.csv")
    for place in (folder, folder / os.fsdecode(b"in\xff")):
        place.mkdir(exist_ok=True)
        (place / name).write_text("n\n1\n")
        (place / "good.csv").write_text("n\n1\n")
    for place in (name, f"./{name}", folder / name, folder, folder / os.fsdecode(b"in\xff") / name):
        for arguments in (
            ["load", "sqlite:///x.db", place],
            ["query", place],
            ["count", place],
            ["show", place],
            ["dump", place, "out.jsonl"],
            ["copy", place, "memory://"],
        ):
            ran = cli(*arguments)
            assert (ran.code, r"bad\xff.csv' is not UTF-8; rename the file" in ran.err) == (3, True), ran


def test_what_a_load_keeps_may_have_any_name(cli: Cli, folder: Path) -> None:
    """Its store, its file's folder, its rejects and its journal, which names them and resumes."""
    place = folder / os.fsdecode(b"in\xff")
    place.mkdir()
    (place / "a.csv").write_text("n\n1\nx\n3\n")
    url = f"sqlite:///{place}/x.db"
    command = ["load", url, place / "a.csv", "--types", "n=number", "--journal", place / "j"]
    command += ["--rejects", place / "r", "--on-error", "skip"]

    assert cli(*command).code == 6
    assert cli(*command, "--resume").code == 6
    assert cli(*command).code == 2
    assert cli("count", url).out == "2\n"
    assert len((place / "r").read_bytes().splitlines()) == 1
    assert cli("copy", url, f"sqlite:///{place}/y.db", "--journal", place / "k").code == 0
    assert cli("copy", url, f"sqlite:///{place}/y.db", "--journal", place / "k", "--resume").code == 0
