"""Commands that are given a file of their own store, or one that is no journal: nothing is written over."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Cli

pytestmark = pytest.mark.backend("sqlite")


@pytest.fixture
def store(cli: Cli, tmp_path: Path) -> str:
    """Return the URL of a database with two records, and write a CSV file of two rows beside it."""
    (tmp_path / "a.csv").write_text("id,n\n1,x\n2,y\n")
    url = f"sqlite:///{tmp_path}/x.db"
    assert cli("load", url, tmp_path / "a.csv").code == 0
    return url


@pytest.mark.parametrize("scheme", ["sqlite:///", "sqlalchemy+sqlite+aiosqlite:///", ""])
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_no_command_writes_over_a_database(
    cli: Cli, tmp_path: Path, store: str, scheme: str, suffix: str
) -> None:
    """Nor over its logs; a link to a file is the file."""
    database, file, rows = tmp_path / "x.db", tmp_path / f"x.db{suffix}", tmp_path / "a.csv"
    link = tmp_path / "link"
    link.symlink_to(file)
    url = f"{scheme}{database}"
    for output in (file, link):
        for arguments in (
            ["dump", url, output, "-f", "jsonl"],
            ["query", url, "-o", output, "-f", "jsonl"],
            ["load", url, rows, "--rejects", output, "--on-error", "skip"],
            ["load", url, rows, "--journal", output],
            ["copy", url, "memory://", "--journal", output],
            ["copy", rows, url, "--journal", output],
            ["changes", url, "--position", output],
        ):
            ran = cli(*arguments)
            assert (ran.code, "is in this file" in ran.err) == (2, True), (arguments, ran)
    assert cli("count", store).out == "2\n"


def test_no_command_writes_over_the_files_that_it_reads(cli: Cli, tmp_path: Path, store: str) -> None:
    """A file, one of a folder or of a pattern; a new one beside them is written."""
    file = tmp_path / "a.csv"
    before = file.read_bytes()
    for place in (file, tmp_path, f"files://{tmp_path}/*.csv", f"files://{file}"):
        for arguments in (["query", place, 'n="x"', "-o", file], ["dump", place, file]):
            ran = cli(*arguments)
            assert (ran.code, "is in this file" in ran.err) == (2, True), (arguments, ran)
    assert file.read_bytes() == before

    (tmp_path / "b.jsonl").write_text("old")
    assert cli("query", f"files://{tmp_path}/*.csv", 'n="x"', "-o", tmp_path / "b.jsonl").code == 0
    assert cli("query", file, 'n="x"', "-o", tmp_path / "c.csv").code == 0


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("other", ["j", "./sub/../j", "link", "hard", "/dev/fd/{}"])
def test_rejects_are_not_written_into_the_journal(
    cli: Cli, tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch, *, exists: bool, other: str
) -> None:
    """Whatever name of the file is used, and whether it is there already."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("j")
    command = ["load", store, "a.csv", "--journal", "j"]
    if exists or other in ("hard", "/dev/fd/{}"):
        assert cli(*command).code == 0
        (tmp_path / "hard").hardlink_to(tmp_path / "j")
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}

    with (tmp_path / ("j" if "{}" in other else "a.csv")).open("rb") as opened:
        ran = cli(*command, "--resume", "--rejects", other.format(opened.fileno()))

    assert (ran.code, "is the same file" in ran.err) == (2, True), ran
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_a_hard_link_is_a_name_of_the_same_file(cli: Cli, tmp_path: Path, store: str) -> None:
    """Of a database, and of a file that is read."""
    for name in ("x.db", "a.csv"):
        (tmp_path / f"hard-{name}").hardlink_to(tmp_path / name)
    rejects = ["--on-error", "skip", "--rejects"]
    for arguments in (
        ["dump", store, tmp_path / "hard-x.db", "-f", "jsonl"],
        ["dump", tmp_path / "a.csv", tmp_path / "hard-a.csv"],
        ["load", store, tmp_path / "a.csv", *rejects, tmp_path / "hard-a.csv"],
        ["load", store, tmp_path / "a.csv", *rejects, tmp_path / "hard-x.db"],
        ["load", store, tmp_path / "a.csv", tmp_path / "hard-a.csv"],
    ):
        assert cli(*arguments).code == 2, arguments
    assert cli("count", store).out == "2\n"


@pytest.mark.parametrize(
    "content",
    [b"first line\nno end", b"no end", b'{"isthmus_copy": 1}\n{"a"', b'{"isthmus_loaf', b"\n\nx", b"{}\nx"],
)
def test_a_file_that_is_no_journal_stays_as_it_is(
    cli: Cli, tmp_path: Path, store: str, content: bytes
) -> None:
    """What a crash cuts off is dropped of a journal only."""
    notes = tmp_path / "notes"
    notes.write_bytes(content)
    for arguments in (["load", store, tmp_path / "a.csv"], ["load", store, tmp_path / "a.csv", "--resume"]):
        ran = cli(*arguments, "--journal", notes)
        assert (ran.code, "not the journal of a load" in ran.err) == (3, True), ran
    assert notes.read_bytes() == content


def test_the_journal_of_another_load_stays_as_it_is(cli: Cli, tmp_path: Path, store: str) -> None:
    """And the setting that differs is named."""
    journal, command = tmp_path / "j", ["load", store, tmp_path / "a.csv", "--journal", tmp_path / "j"]
    assert cli(*command).code == 0
    with journal.open("ab") as file:
        file.write(b'{"cut')
    before = journal.read_bytes()

    ran = cli(*command, "--resume", "--id", "id")

    assert (ran.code, ran.err.count("id_fields")) == (3, 1)
    assert 'its id_fields is [], this load\'s is ["id"]' in ran.err
    assert journal.read_bytes() == before
    assert cli(*command, "--resume").code == 0
    assert journal.read_bytes() == before.removesuffix(b'{"cut')


def test_rejects_keep_what_was_read(cli: Cli, tmp_path: Path) -> None:
    """The text of a line, the cells of a row; so that it can be mended and loaded again."""
    url, rejects = f"sqlite:///{tmp_path}/x.db", tmp_path / "rejects"
    (tmp_path / "a.jsonl").write_bytes(
        b'{"a": 1}\n[1,2]\n{"a": \n{"b": "\xff"}\n{"n": 99999999999999999999}\n'
    )
    (tmp_path / "b.csv").write_text('n,t\n3,4,5\n"x"y,6\n7,8\n')
    (tmp_path / "c.csv").write_text("n,t\nx,4\n1,5\n")
    (tmp_path / "d.json").write_text('[{"a": 1},\n {"a": 2}, 3]')
    kept = {}
    for name in "abcd":
        [file] = tmp_path.glob(f"{name}.*")
        options = ["--types", "n=number"] if name == "c" else []
        cli("load", url, file, "--on-error", "skip", "--rejects", rejects, *options)
        lines = [json.loads(line) for line in rejects.read_bytes().splitlines()]
        kept[name] = [(line["line"], line["row"]) for line in lines]

    assert kept == {
        "a": [(2, "[1,2]"), (3, '{"a": '), (4, '{"b": "\udcff"}'), (5, '{"n": 99999999999999999999}')],
        "b": [(2, ["3", "4", "5"]), (3, '"x"y,6\n')],
        "c": [(2, {"n": "x", "t": 4})],
        "d": [(2, "3")],
    }


@pytest.mark.parametrize("quoted", [False, True])
def test_rejects_keep_the_cells_that_were_refused(cli: Cli, tmp_path: Path, *, quoted: bool) -> None:
    """All of a row, however it was read: by Arrow, or row by row for a cell of several lines."""
    extra = '"a\nb"' if quoted else "a"
    (tmp_path / "a.csv").write_bytes(
        f"n,k,b\n{2**70},{extra},yes\n1,\udcff,true\n".encode(errors="surrogateescape")
    )
    options = ["--types", "n=number,b=bool"]

    kept = load_rejects(cli, tmp_path / "a.csv", *options)

    assert kept == [
        {"n": str(2**70), "k": "a\nb" if quoted else "a", "b": "yes"},
        {"n": 1, "k": "\udcff", "b": True},
    ]


def test_rejects_keep_values_that_json_lacks_as_text(cli: Cli, tmp_path: Path) -> None:
    """Of each type of Parquet and Arrow, also inside lists and objects."""
    naive, bad = dt.datetime(2025, 1, 2, 3, 4, 5), pa.array([b"a\xff"]).view(pa.string())
    columns = {
        "good": pa.array([1]),
        "naive": pa.array([naive], pa.timestamp("ms")),
        "nan": pa.array([float("nan")]),
        "inf": pa.array([float("-inf")]),
        "large": pa.array([2**64 - 1], pa.uint64()),
        "exact": pa.array([Decimal("0.1234567890123456789012345")]),
        "fine": pa.array([1], pa.timestamp("ns", "UTC")),
        "time": pa.array([1], pa.time64("ns")),
        "late": pa.array([2**60], pa.timestamp("ms", "UTC")),
        "bad": bad,
        "list": pa.array([[1.5, float("nan")]]),
        "object": pa.array([{"a": naive, "b": 1}]),
        "map": pa.array([[("k", float("inf"))]], pa.map_(pa.string(), pa.float64())),
        "kinds": pa.array([naive], pa.timestamp("us")).dictionary_encode(),
        "span": pa.array([7], pa.duration("s")),
        "none": pa.array([None], pa.timestamp("us")),
    }
    expected = {
        "good": 1,
        "naive": "2025-01-02 03:04:05.000",
        "nan": "nan",
        "inf": "-inf",
        "large": "18446744073709551615",
        "exact": "0.1234567890123456789012345",
        "fine": "1970-01-01 00:00:00.000000001Z",
        "time": "00:00:00.000000001",
        "late": f"{2**60} ms",
        "bad": "a\udcff",
        "list": [1.5, "nan"],
        "object": {"a": "2025-01-02 03:04:05.000000", "b": 1},
        "map": [["k", "inf"]],
        "kinds": "2025-01-02 03:04:05.000000",
        "span": "7 s",
        "none": None,
    }
    table = pa.concat_tables([pa.table(columns)] * 2).combine_chunks()
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as file:
        file.write_table(table)
    pq.write_table(table.drop_columns("kinds"), tmp_path / "a.parquet")

    for name in ("a.arrow", "a.parquet"):
        for row in load_rejects(cli, tmp_path / name):
            assert row == {key: value for key, value in expected.items() if key in row}
            assert row.keys() | {"kinds"} == expected.keys()


def load_rejects(cli: Cli, file: Path, *options: str) -> list[Any]:
    """Load a file; return the rows of its rejects, which have text that is not UTF-8."""
    rejects = file.with_name("rejects")
    cli("load", f"sqlite:///{file.parent}/x.db", file, "--on-error", "skip", "--rejects", rejects, *options)
    return [json.loads(line)["row"] for line in rejects.read_bytes().splitlines()]


def test_rejects_of_the_store_keep_metadata(cli: Cli, tmp_path: Path) -> None:
    """A record that the store refuses is kept as a whole."""
    record = {"id": "a", "data": {"n": 1}, "metadata": {"by": "me"}}
    (tmp_path / "a.jsonl").write_bytes(orjson.dumps(record) + b"\n")
    url, rejects = f"sqlite:///{tmp_path}/x.db", tmp_path / "rejects"
    command = ["load", url, tmp_path / "a.jsonl", "--records", "--on-clash", "fail", "--rejects", rejects]
    assert cli(*command).code == 0
    assert cli(*command).code == 6

    [line] = rejects.read_bytes().splitlines()
    assert {key: orjson.loads(line)[key] for key in record} == record


def test_options_that_do_not_fit_the_files_are_named(cli: Cli, tmp_path: Path, store: str) -> None:
    """Settings of CSV for JSON, output that would not be compressed, a file as the target of --to."""
    lines = tmp_path / "a.jsonl"
    lines.write_bytes('{"a": "é"}\n'.encode("latin-1"))

    ran = cli("load", store, lines, "--encoding", "latin-1")
    assert (ran.code, "--encoding is for CSV and TSV" in ran.err) == (2, True)
    assert "a byte that is not UTF-8" in cli("load", store, lines).err
    ran = cli("dump", store, tmp_path / "out.csv.gz", "-f", "csv")
    assert (ran.code, "output is not compressed" in ran.err) == (2, True)
    for target in (tmp_path / "new.csv", tmp_path / "a.csv"):
        ran = cli(tmp_path / "a.csv", "--to", target)
        assert (ran.code, f"isthmus query {tmp_path / 'a.csv'} -o {target}" in ran.err) == (2, True)
