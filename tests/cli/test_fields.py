"""What a collection holds, and fields that no record has."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from isthmus import Record
from isthmus.cli._commands import fields
from isthmus.cli._profile import MAX_DISTINCT, MAX_FIELDS, Profile, walk_fields
from tests.cli.conftest import Cli

pytestmark = pytest.mark.backend("sqlite")


@pytest.mark.usefixtures("unhurried")
def test_fields_describes_each_field(cli: Cli, people: str) -> None:
    """Types, filled share, distinct values, the commonest, smallest and largest."""
    cli(
        "put",
        people,
        "x",
        '{"age": "old", "home": {"city": "Bergen"}, "tags": ["a", "b", "a"], "none": null}',
    )

    found = cli("fields", people, "--json").json

    assert (found["records"], found["read"]) == (101, 101)
    fields = {entry.pop("field"): entry for entry in found["fields"]}
    assert list(fields) == ["name", "age", "city", "home.city", "tags", "none"]
    assert fields["age"] == {
        "types": ["number", "text"],
        "filled": 101,
        "distinct": 101,
        "commonest": None,
        "commonest_count": None,
        "smallest": 0,
        "largest": "old",
    }
    assert (fields["city"]["commonest"], fields["city"]["commonest_count"]) == ("Rome", 50)
    assert (fields["tags"]["filled"], fields["tags"]["distinct"], fields["tags"]["commonest"]) == (1, 2, "a")
    assert fields["home.city"]["smallest"] == "Bergen"
    assert (fields["none"]["filled"], fields["none"]["types"]) == (0, ["null"])
    table = cli("fields", people).out.splitlines()
    assert table[0] == "101 records"
    assert table[1].split() == ["field", "type", "filled", "distinct", "commonest", "smallest", "largest"]
    assert "99 %" in table[2]  # never rounded to all
    assert cli("fields", people, "age<3", "--json").json["records"] == 3


@pytest.mark.usefixtures("unhurried")
def test_empty_text_is_not_shown_as_none(cli: Cli, tmp_path: Path) -> None:
    """Empty text as the smallest value, and as a group beside that of null; in JSON it is what it is."""
    (tmp_path / "a.jsonl").write_text('{"a": ""}\n{"a": "x"}\n{"a": "x"}\n{"a": null}\n')
    file = f"{tmp_path}/a.jsonl"

    assert cli("fields", file).out.splitlines()[-1].split()[-3:] == ["x", '""', "x"]
    assert [line.split() for line in cli("agg", file, "--by", "a", "-a", "n=count").out.splitlines()] == [
        ["a", "n"],
        ['""', "1"],
        ["x", "2"],
        ["1"],  # null comes last
    ]
    assert cli("fields", file, "--json").json["fields"][0]["smallest"] == ""


def test_a_profile_is_bounded() -> None:
    """More values than are counted, and more fields than are described."""
    profile = Profile()
    for at in range(MAX_DISTINCT + 1):
        profile.add(Record({"n": at}))
    profile.add(Record({f"f{at}": at for at in range(MAX_FIELDS)}))

    assert len(profile.fields) == MAX_FIELDS
    assert profile.left_out
    described = profile.fields["n"].to_json(profile.records)
    assert (described["distinct"], described["commonest"]) == (None, None)
    assert (described["smallest"], described["largest"]) == (0, MAX_DISTINCT)


@pytest.mark.usefixtures("unhurried")
def test_fields_are_named_as_a_filter_names_them(cli: Cli, people: str) -> None:
    """Keys with dots, blanks, quotes, and of an attribute's name are quoted."""
    data = {"a.b": 1, "x y": 1, 'q"q': 1, "_id": 1, "ø": 1, "deep": {"a.b": [{"c": 1}]}}
    cli("put", people, "odd", orjson.dumps(data).decode())

    names = [name for name, _ in walk_fields(data)]

    assert names == ['"a.b"', '"x y"', '"q\\"q"', '"_id"', "ø", 'deep."a.b".c']
    for name in names:
        assert cli("count", people, f"{name} = 1").out == "1\n", name


@pytest.mark.usefixtures("unhurried")
def test_a_field_that_no_record_has_is_said(cli: Cli, people: str) -> None:
    """In a filter, an order, a selection, a group and a measure; with the nearest name."""
    note = "no record has 'agee'; 'age' is there\n"
    assert cli("query", people, "agee>25").err == note
    assert cli("count", people, "agee>25 or not agee=3").err == note
    assert note in cli("query", people, "--sort", "-agee", "-n", 1).err
    assert note in cli("query", people, "--select", "agee", "-n", 1).err
    assert cli("agg", people, "--by", "agee").err == note
    assert cli("agg", people, "-a", "sum:agee").err == note
    assert cli("count", people, "zzzzzz=1").err == "no record has 'zzzzzz'\n"
    cli("put", people, "x", '{"unset": null}')
    cli("put", people, "p000", '{"unset": null}')
    assert "no record has a value other than null in 'unset'" in cli("count", people, "unset=1").err
    assert cli("count", people, 'age>25 and city="nowhere"').err == ""


def test_a_sort_key_may_begin_with_a_minus(cli: Cli, people: str) -> None:
    """`-age` is `age desc`."""
    assert [line["id"] for line in cli("query", people, "--sort", "-age", "-n", 2).lines] == ["p099", "p098"]


@pytest.mark.usefixtures("unhurried")
def test_a_store_alone_is_described_and_a_store_with_a_filter_is_queried(cli: Cli, people: str) -> None:
    """As a URL and as a file; a command's name wins."""
    file = people.removeprefix("sqlite:///")

    shown = cli(file)
    assert shown.code == 0
    assert shown.out.startswith(f"sqlite:///{file}\n100 records\n")
    assert cli(people, "--json").json == {**cli("show", people, "--json").json}
    assert [line["id"] for line in cli(file, "age>97", "--sort", "-age").lines] == ["p099", "p098"]
    assert cli("nowhere.db").code == 2
    assert cli(file, "--to").code == 2


@pytest.mark.usefixtures("unhurried")
def test_a_name_of_a_command_wins(
    cli: Cli, people: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`count` is the command though there is a file `count`, and `./count` is the file."""
    Path(people.removeprefix("sqlite:///")).rename(tmp_path / "count")
    monkeypatch.chdir(tmp_path)

    assert cli("count", "sqlite:///count", "age<10").out == "10\n"
    assert "100 records" in cli("./count").out


def test_a_store_is_copied_with_a_receipt(cli: Cli, people: str, tmp_path: Path) -> None:
    """`--to` names the other store."""
    copy = f"sqlite:///{tmp_path}/copy.db"

    copied = cli(people, "--to", copy)

    assert copied.code == 0
    assert "digest" in copied.out
    assert cli("count", copy).out == "100\n"


@pytest.mark.usefixtures("unhurried")
def test_a_file_is_a_store_of_every_command(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the settings of `load`; `--to` takes a filter; a file that is not there has a near name."""
    monkeypatch.chdir(tmp_path)
    Path("people.csv").write_bytes("name;age\nZoë;34\nBob;\nÅse;61\n".encode("latin-1"))
    latin = ["--encoding", "latin-1"]

    assert cli("count", "people.csv", "age>30", *latin).out == "2\n"
    assert cli("query", "people.csv", *latin, "--sort=-age", "-n1").lines[0]["data"] == {
        "name": "Åse",
        "age": 61,
    }
    assert cli("people.csv", *latin, "--text", "--no-header", "--json").json["records"] == 4
    assert "set --encoding" in cli("people.csv").err
    assert cli("people.csv", "age>40", "--encoding=latin-1", "--to", "sqlite:///copy.db").code == 0
    assert cli("count", "copy.db").out == "1\n"
    assert cli("load", "copy.db", "people.csv", *latin, "--id", "name").code == 0
    cut = cli("count", "people.csv", "--delimiter")
    assert (cut.code, cut.err) == (2, "isthmus: --delimiter needs a value\n")
    missing = cli("poeple.csv")
    assert (missing.code, missing.err) == (
        2,
        "isthmus: poeple.csv: no such file or folder; 'people.csv' is there\n",
    )


@pytest.mark.usefixtures("unhurried")
def test_show_lists_collections_and_creates_nothing(cli: Cli, people: str, tmp_path: Path) -> None:
    """Without a collection of the default name; one alone is described."""
    one, two = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/two.db"
    for url, name in ((one, "a"), (two, "a"), (two, "b")):
        cli("put", url, "x", '{"n": 1}', "-c", name)

    assert "1 record\n" in cli(one).out
    assert cli(two).out.splitlines()[1:] == ["collections (-c NAME describes one):", "  a", "  b"]
    assert "1 record\n" in cli(two, "-c", "b").out
    with closing(sqlite3.connect(tmp_path / "two.db")) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM isthmus_collections ORDER BY 1")]
    assert names == ["a", "b"]
    assert cli(f"sqlite:///{tmp_path}/absent.db").code == 3
    assert not (tmp_path / "absent.db").exists()


def test_a_large_file_is_described_in_time(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting and the types of columns take passes of their own: they are left out, and that is said."""
    file = tmp_path / "large.csv"
    file.write_text("n,name\n" + "".join(f"{n},Name {n}\n" for n in range(120_000)))
    monkeypatch.setattr(fields, "COUNT_SECONDS", 0.0)  # as if the file had gigabytes
    monkeypatch.setattr(fields, "SECONDS", 0.0)
    monkeypatch.setattr(fields, "TEXT_SECONDS", 60.0)

    ran = cli("fields", f"files://{file}", "--json")

    assert (ran.json["records"], ran.json["read"]) == (None, fields.SAMPLE)
    assert [field["types"] for field in ran.json["fields"]] == [["text"], ["text"]]
    assert "cells are described as text" in ran.err
    assert "described from the first 100,000 (--all reads all)" in cli(file).out
    whole = cli("fields", f"files://{file}", "--json", "--all")
    assert (whole.json["records"], whole.json["read"]) == (120_000, 120_000)
    assert [field["types"] for field in whole.json["fields"]] == [["number"], ["text"]]


def test_what_was_read_to_its_end_is_counted(cli: Cli, people: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that takes too long is known all the same where the sample is everything."""
    monkeypatch.setattr(fields, "COUNT_SECONDS", 0.0)
    monkeypatch.setattr(fields, "SECONDS", 60.0)

    found = cli("fields", people, "--json").json

    assert (found["records"], found["read"]) == (100, 100)
    assert cli("fields", people, "age<3").out.startswith("3 records\n")
