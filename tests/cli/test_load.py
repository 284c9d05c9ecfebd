"""`load`: ids that exist, ids of several fields, several files, refused lines by kind."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Cli, CommandResult

pytestmark = pytest.mark.backend("sqlite")


def counts(ran: CommandResult) -> dict[str, int]:
    names = ("read", "created", "replaced", "skipped", "refused")
    return {name: ran.json[name] for name in names if ran.json[name]}


def write(file: Path, *lines: object) -> Path:
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return file


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize(
    ("clash", "counted", "stored"),
    [
        ("replace", {"read": 4, "created": 2, "replaced": 2}, [{"n": 2}, {"n": 4}, {"n": 3}]),
        ("update", {"read": 4, "created": 2, "replaced": 2}, [{"n": 2, "old": 1}, {"n": 4}, {"n": 3}]),
        ("skip", {"read": 4, "created": 2, "skipped": 2}, [{"n": 0, "old": 1}, {"n": 1}, {"n": 3}]),
    ],
)
def test_a_clash_is_treated_as_wanted(
    cli: Cli, tmp_path: Path, on_error: str, clash: str, counted: dict[str, int], stored: list[object]
) -> None:
    """With a record of the store, and with an earlier line of the same file."""
    url = f"sqlite:///{tmp_path}/x.db"
    cli("put", url, "a", '{"n": 0, "old": 1}')
    lines = [("b", 1), ("a", 2), ("c", 3), ("b", 4)]
    file = write(tmp_path / "x.jsonl", *({"id": id, "data": {"n": n}} for id, n in lines))

    ran = cli("load", url, file, "--on-clash", clash, "--on-error", on_error, "--json")

    assert counts(ran) == counted
    assert [line["data"] for line in cli("query", url, "--sort", "_id").lines] == stored
    text = cli("load", url, file, "--on-clash", clash).out
    done = {"replace": "4 replaced", "update": "4 updated", "skip": "0 replaced, 4 skipped"}[clash]
    assert text == f"4 read, 0 created, {done}, 0 refused\n"


def test_a_clash_can_be_a_failure(cli: Cli, tmp_path: Path) -> None:
    """The record that was there stays; `--mode create` is the older name."""
    url = f"sqlite:///{tmp_path}/x.db"
    cli("put", url, "a", '{"n": 0}')
    file = write(tmp_path / "x.jsonl", {"id": "a", "data": {"n": 1}}, {"id": "b", "data": {}})

    for options in (["--on-clash", "fail"], ["--mode", "create"]):
        ran = cli("load", url, file, *options, "--json")
        assert (ran.code, counts(ran)) == (6, {"read": 2, "refused": 1})
    assert cli("get", url, "a", "--json").json["data"] == {"n": 0}
    assert cli("load", url, file, "--on-clash", "fail", "--mode", "create").code == 2


def test_an_id_of_several_fields(cli: Cli, tmp_path: Path) -> None:
    """A JSON list as text, in the order of the fields; a line without one of them is refused."""
    url = f"sqlite:///{tmp_path}/x.db"
    lines = [{"year": 2013, "code": "A", "n": 1}, {"year": 2013, "code": "B"}, {"year": 2013}]
    file = write(tmp_path / "x.jsonl", *lines)

    ran = cli("load", url, file, "--id", "year,code", "--on-error", "skip")

    assert ran.code == 6
    assert "x.jsonl:3: there is no field 'code' for the id" in ran.err
    assert [line["id"] for line in cli("query", url).lines] == ['[2013,"A"]', '[2013,"B"]']


def test_store_and_files_come_in_any_order(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files in one call; a store of the environment is named by a dash."""
    url = f"sqlite:///{tmp_path}/x.db"
    one = write(tmp_path / "one.jsonl", {"n": 1}, {"n": 2})
    two = write(tmp_path / "two.jsonl", {"n": 3})

    assert cli("load", one, two, url).out == "3 read, 3 created, 0 replaced, 0 refused\n"
    monkeypatch.setenv("ISTHMUS_URL", url)
    assert cli("load", "-", one).code == 0
    assert cli("count", url).out == "5\n"
    monkeypatch.delenv("ISTHMUS_URL")
    assert cli("load", url, url, one).code == 2
    assert cli("load", url).code == 2
    assert cli("load", url, "-", "-").code == 2
    assert cli("load", url, one, tmp_path / "absent.jsonl").code == 8
    assert cli("count", url).out == "5\n"


def test_refused_lines_are_said_once_per_kind_and_kept(cli: Cli, tmp_path: Path) -> None:
    """2,000 lines of one kind are one note with their number; the file of rejects has each."""
    url = f"sqlite:///{tmp_path}/x.db"
    lines = [{"n": 2**64 + at} if at % 2 else {"n": at} for at in range(4_000)]
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(str(line).replace("'", '"') for line in [*lines, {"last": 1}]) + "\nbad\n")
    rejects = tmp_path / "rejects.jsonl"

    ran = cli("load", url, file, "--on-error", "skip", "--rejects", rejects)

    assert ran.code == 6
    notes = ran.err.splitlines()
    assert len(notes) == 3
    assert notes[0].startswith(f"{file}:2: ")
    assert notes[0].endswith("(and 1999 more such lines)")
    assert notes[1].startswith(f"{file}:4002: not JSON")
    kept = [orjson.loads(line) for line in rejects.read_bytes().splitlines()]
    assert len(kept) == 2_001
    assert {key: kept[0][key] for key in ("file", "line")} == {"file": str(file), "line": 2}
    assert cli("count", url).out == "2001\n"
