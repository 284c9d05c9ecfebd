"""Terminals without Unicode, names with reserved characters, and narrow tables."""

from __future__ import annotations

import io
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from rich.cells import cell_len
from rich.console import Console

from isthmus.cli import _output
from isthmus.cli._output import _fit_widths, build_table, make_console, print_table
from tests.cli.conftest import Cli, run_process

pytestmark = pytest.mark.backend("sqlite")

NAME = "Tromsø \N{SNOWMAN} \N{GRINNING FACE}"


@pytest.fixture
def towns(cli: Cli, tmp_path: Path) -> str:
    """Return the URL of a store whose names, ids and collections are not ASCII."""
    url = f"sqlite:///{tmp_path}/byen-ø.db"
    document = orjson.dumps({"ø": NAME, "long": NAME * 30}).decode()
    for collection in ("records", "steder-ø"):
        assert cli("put", url, "id-ø", document, "-c", collection).code == 0
    return url


@pytest.mark.breadth(2)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_command_works_with_any_encoding(towns: str, tmp_path: Path, encoding: str) -> None:
    """People see escapes for what the terminal lacks; JSON and CSV are UTF-8 in any case."""
    environment = {"PYTHONIOENCODING": encoding}
    for arguments in (
        ["ls", towns],
        ["ls", towns, "--count"],
        ["ping", towns],
        ["stats", towns],
        ["doctor", towns],
        ["get", towns, "id-ø"],
        ["query", towns, "-f", "table"],
        ["explain", towns, '"ø" = "ø"'],
        ["agg", towns, "--by", '"ø"'],
        ["put", towns, "id-ø2", "{}"],
        ["dump", towns, tmp_path / "ø.jsonl"],
        ["load", towns, tmp_path / "ø.jsonl"],
        ["top", towns, "-n", "1"],
        ["verify", towns, towns],
    ):
        ran = run_process(*arguments, env=environment)
        assert ran.returncode == 0, (arguments[0], ran.stderr)
        ran.stdout.decode(encoding)
    for arguments in (
        ["ls", towns, "--json"],
        ["get", towns, "id-ø", "--json"],
        ["query", towns, 'ø != "x"', "--json"],
        ["explain", towns, '"ø" = "ø"', "--json"],
        ["count", towns, "ø =", "--json"],
    ):
        ran = run_process(*arguments, env=environment)
        assert "ø" in (ran.stdout or ran.stderr).decode("utf-8")
        assert orjson.loads((ran.stdout or ran.stderr).splitlines()[0])
    piped = run_process("put", towns, "p", "-", input='{"ø": "æ"}'.encode(), env=environment)
    assert piped.returncode == 0, piped.stderr
    assert 'æ"' in run_process("get", towns, "p", "--json").stdout.decode()


def test_a_file_name_that_is_not_utf_8_is_shown(people: str, tmp_path: Path) -> None:
    """It is escaped in text, and in JSON."""
    file = bytes(tmp_path) + b"/bad-\xff.jsonl"

    for options in ([], ["--json"]):
        ran = run_process("dump", people, file.decode("utf-8", "surrogateescape"), *options)
        assert ran.returncode == 0, ran.stderr
        assert b"\\udcff" in ran.stdout


@pytest.mark.parametrize("name", ["my#1.db", "a#b#c.db", "#.db", "x@y:z.db", "50%25.db", "a b.db", "ø&=;.db"])
def test_a_file_may_have_any_name(cli: Cli, tmp_path: Path, name: str) -> None:
    """A # is part of the name, for the command line and for the library; nothing else is written."""
    url = f"sqlite:///{tmp_path}/{name}"

    assert cli("put", url, "a", '{"n": 1}').code == 0

    expected = name.replace("%25", "%")
    assert [path.name for path in tmp_path.iterdir()] == [expected]
    assert cli("count", url, "n=1").out == "1\n"
    assert cli("doctor", url).code == 0
    with closing(sqlite3.connect(tmp_path / expected)) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (1,)
    assert cli("count", f"{url}2").code == 3
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("id", ["a", "01a226af-7501-70fc-902d-f8dad393afe0", "x" * 300])
def test_an_id_is_readable_beside_long_values(cli: Cli, tmp_path: Path, id: str) -> None:
    """Up to half of the line; each other column shows a part of its cell. Of a generated id the end."""
    url = f"sqlite:///{tmp_path}/x.db"
    data = {f"f{number}": "value " * 50 for number in range(9)} | {"n": 7}
    cli("put", url, id, orjson.dumps(data).decode())

    heading, line, *_ = cli("query", url, "-f", "table").out.splitlines()
    assert line.startswith(f"…{id[-12:]} " if "-" in id else id[:36])
    assert len(line) <= 80
    assert [name in heading for name in ("_id", "f0")] == [True, True]
    assert "val" in line
    found = cli("agg", url, "--by", "f0", "-a", "sum:n").out.splitlines()
    assert found[1].split()[-1] == "7"


def test_a_table_has_the_columns_that_fit(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, in any width; ids are whole where there is room, or where they are asked for."""
    url = f"sqlite:///{tmp_path}/x.db"
    ids = [f"01a226af-7501-70fc-902d-f8dad393afe{n}" for n in range(2)]
    for n, id in enumerate(ids):
        cli("put", url, id, f'{{"code": "c{n}", "n": {n}, "name": "Name {n}", "note": "{"long " * 30}"}}')

    for width in (20, 40, 60, 80, 120, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = cli("query", url, "-f", "table").out.splitlines()
        assert all(len(line) <= width for line in lines), lines
        assert lines[0].split()[:2] == ["_id", "code"]
        assert all(id[-4:] in line for id, line in zip(ids, lines[1:], strict=False)), lines
        assert (ids[0] in lines[1]) is (width >= 80)
        assert ("note" in lines[0]) is (width >= 60)
    monkeypatch.setenv("COLUMNS", "60")
    assert ids[0] in cli("query", url, "-f", "table", "--select", "_id, note").out


def test_widths_fill_the_line_and_starve_no_column() -> None:
    """Short columns keep their width; long ones share the rest equally."""
    assert _fit_widths([3, 200, 5, 200], 60) == [3, 26, 5, 26]
    assert _fit_widths([100, 4], 60) == [56, 4]
    assert _fit_widths([100, 100], 60) == [30, 30]
    assert _fit_widths([5], 60) == [5]
    assert min(_fit_widths([9] * 100, 60)) == 1
    for columns in range(1, 12):
        table = build_table([f"heading {n}" for n in range(columns)], [["cell " * 40] * columns])
        console = make_console()
        assert console.measure(table).maximum <= console.width


def test_a_long_field_name_leaves_room_for_its_value(cli: Cli, tmp_path: Path) -> None:
    """In the facts of a record, too."""
    url = f"sqlite:///{tmp_path}/x.db"
    cli("put", url, "a", orjson.dumps({"k" * 200: "the value of a long name"}).decode())

    out = cli("get", url, "a").out

    assert max(map(len, out.splitlines())) <= 80
    assert "the value of" in out


@pytest.mark.usefixtures("unhurried")
def test_a_profile_has_the_columns_that_fit(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Field and type always; headings are never cut; numbers stand at the right beside nulls."""
    file = tmp_path / "people.csv"
    file.write_text("name,age\nA long name of a person,34\nBob,\nEve,7\n")

    for width, headings in (
        (18, ["field", "type"]),
        (40, ["field", "type", "filled", "smallest"]),
        (80, ["field", "type", "filled", "distinct", "commonest", "smallest", "largest"]),
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = cli(file).out.splitlines()[2:]
        assert lines[0].split() == headings
        assert all(len(line) <= width for line in lines)
    ages = [
        line[-4:] for line in cli("query", file, "-f", "table", "--select", "name,age").out.splitlines()[1:]
    ]
    assert ages == ["  34", "    ", "   7"]


def test_escaped_characters_keep_the_columns(people: str, tmp_path: Path) -> None:
    """A terminal without them shows escapes, whose width counts."""
    file = tmp_path / "people.csv"
    file.write_text("name,city\nÇelik,İzmir\nBob,Bonn\n")

    ran = run_process("query", file, "-f", "table", env={"PYTHONIOENCODING": "ascii"})

    heading, *rows = ran.stdout.decode().splitlines()
    at = heading.index("city")
    assert [row[at:].strip() for row in rows] == [r"\u0130zmir", "Bonn"]


@pytest.mark.parametrize(
    ("encoding", "mark"), [("ascii", "..."), ("latin-1", "..."), ("utf-8", "…"), ("cp1252", "…")]
)
def test_a_cut_cell_has_a_mark(monkeypatch: pytest.MonkeyPatch, encoding: str, mark: str) -> None:
    """In each encoding, in headings too; an escape is shown whole or not at all."""
    headings, row = ["a", "字" * 20, "c"], ["x" * 99, "字" * 50, "\udcff😀x" * 50]
    for width in range(20, 90):
        stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace")
        monkeypatch.setattr(_output, "make_console", lambda: Console(file=stream, width=width))  # noqa: B023
        print_table(headings, [row, ["1", "2", "3"]])
        stream.flush()
        lines = stream.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]
        assert [cell.endswith(mark) for cell in lines[1].split()] == [True] * 3, lines
        for line in lines:
            assert cell_len(line) <= width, line
            assert "\\" not in re.sub(r"\\(u[0-9a-f]{4}|U[0-9a-f]{8}|x[0-9a-f]{2})", "", line), line


def test_messages_have_dots_where_there_is_no_ellipsis(people: str) -> None:
    """An escape of it would be read as a part of the text."""
    ran = run_process("query", people, "-f", "table", env={"PYTHONIOENCODING": "ascii", "COLUMNS": "30"})
    assert re.search(rb"^\.\.\. and \d+ more fields", ran.stdout, re.MULTILINE), ran.stdout
