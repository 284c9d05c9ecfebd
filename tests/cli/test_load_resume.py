"""`load --journal` and `--resume`: a stopped load goes on where it was, and its counts are true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests import servers
from tests.breadth import size
from tests.cli.conftest import Cli, CommandResult, run_process
from tests.cli.load_torture import torture
from tests.seeds import drawn

pytestmark = pytest.mark.backend("sqlite")


def counts(ran: CommandResult) -> dict[str, int]:
    names = ("read", "created", "replaced", "skipped", "refused")
    return {name: ran.json[name] for name in names if ran.json[name]}


def write(file: Path, *lines: object) -> Path:
    file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return file


def entries(journal: Path) -> list[Any]:
    return [orjson.loads(line) for line in journal.read_bytes().splitlines()]


def forget(journal: Path, keeps: str | None) -> None:
    """Cut a journal behind the last entry of a kind, or behind its header: what a kill would leave."""
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = [number for number, entry in enumerate(entries(journal)) if keeps is None or keeps in entry]
    journal.write_bytes(b"".join(lines[: (kept[-1] if keeps else 0) + 1]))


@pytest.mark.timeout(240)
def test_a_load_that_is_stopped_is_equal_at_the_end() -> None:
    """By SIGKILL, Ctrl-C, a full disk and a closed pipe; with ids and without."""
    cases = torture(size(8_200, 20_000), size(2, 6), seed=drawn(), kinds=("sqlite",))

    assert [case.problems for case in cases] == [[], []]


@pytest.mark.breadth(4)
@pytest.mark.parametrize("kind", ["postgres", "elasticsearch", "s3", "s3-object"])
@pytest.mark.timeout(280)
def test_a_load_into_a_server_that_is_stopped_is_equal_at_the_end(kind: str) -> None:
    """The batch of unknown outcome is written again with the same ids."""
    servers.server(kind.partition("-")[0])

    cases = torture(size(8_200, 10_000), size(1, 2), seed=drawn(), kinds=(kind,))

    assert [case.problems for case in cases] == [[], []]


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize(
    ("clash", "counted"),
    [
        ("replace", {"read": 5, "created": 3, "replaced": 2}),
        ("update", {"read": 5, "created": 3, "replaced": 2}),
        ("skip", {"read": 5, "created": 3, "skipped": 2}),
    ],
)
def test_a_batch_in_doubt_is_counted_as_it_was_written(
    cli: Cli, tmp_path: Path, on_error: str, clash: str, counted: dict[str, int]
) -> None:
    """What the killed run created is not replaced: with all of the batch written, and with a part."""
    url, journal = f"sqlite:///{tmp_path}/x.db", tmp_path / "journal"
    cli("put", url, "a", '{"n": 0, "old": 1}')
    lines = [("b", 1), ("a", 2), ("c", 3), ("b", 4), ("d", 5)]
    file = write(tmp_path / "x.jsonl", *({"id": id, "data": {"n": n}} for id, n in lines))
    command = ["load", url, file, "--records", "--on-clash", clash, "--on-error", on_error]
    command += ["--journal", journal, "--resume", "--json"]
    first = cli(*command)
    stored = cli("query", url, "--sort", "_id").lines
    forget(journal, "existing")

    again = cli(*command)
    assert counts(again) == counts(first) == counted
    cli("delete", url, "c")
    cli("delete", url, "d")
    forget(journal, "existing")
    assert counts(cli(*command)) == counted

    now = cli("query", url, "--sort", "_id").lines
    assert [(line["id"], line["data"]) for line in now] == [(line["id"], line["data"]) for line in stored]


def test_a_batch_in_doubt_does_not_fail_over_its_own_records(cli: Cli, tmp_path: Path) -> None:
    """With `--on-clash fail`, only a record that was there before is a failure."""
    url, journal = f"sqlite:///{tmp_path}/x.db", tmp_path / "journal"
    file = write(tmp_path / "x.jsonl", *({"code": f"c{n}", "n": n} for n in range(5)))
    command = ["load", url, file, "--id", "code", "--on-clash", "fail", "--journal", journal, "--resume"]
    assert cli(*command).code == 0
    forget(journal, "existing")

    ran = cli(*command, "--json")

    assert (ran.code, counts(ran)) == (0, {"read": 5, "created": 5})
    cli("put", url, "c9", "{}")
    more = write(tmp_path / "y.jsonl", {"code": "c8"}, {"code": "c9"})
    refused = cli("load", url, more, "--id", "code", "--on-clash", "fail", "--journal", tmp_path / "j2")
    assert refused.code == 6
    assert "'c9'" in refused.err


def test_rows_without_ids_have_the_same_in_a_repeated_batch(cli: Cli, tmp_path: Path) -> None:
    """Made of the journal's id and the row's number, so they ascend and nothing is doubled."""
    url, journal = f"sqlite:///{tmp_path}/x.db", tmp_path / "journal"
    file = write(tmp_path / "x.jsonl", *({"n": n} for n in range(5)))
    command = ["load", url, file, "--journal", journal, "--resume", "--json"]
    cli(*command)
    stored = cli("query", url, "--sort", "_id").lines
    assert [line["data"]["n"] for line in stored] == list(range(5))
    forget(journal, None)
    cli("delete", url, stored[2]["id"])

    ran = cli(*command)

    assert counts(ran) == {"read": 5, "created": 5}
    assert [line["id"] for line in cli("query", url, "--sort", "_id").lines] == [
        line["id"] for line in stored
    ]
    cli("load", url, file, "--journal", tmp_path / "other")
    assert cli("count", url).out == "10\n"


def test_a_complete_load_is_not_loaded_again(cli: Cli, tmp_path: Path) -> None:
    """`--resume` gives the same counts, refused lines and exit code; without it the journal is in the way."""
    url, journal = f"sqlite:///{tmp_path}/x.db", tmp_path / "journal"
    file = tmp_path / "x.jsonl"
    file.write_text('{"n": 1}\nbad\n{"n": 2}\n')
    command = ["load", url, file, "--on-error", "skip", "--journal", journal, "--json"]
    first = cli(*command)
    assert (first.code, counts(first)) == (6, {"read": 3, "created": 2, "refused": 1})

    again = cli(*command, "--resume")

    assert again.code == 6
    assert again.json == {**first.json, "earlier": 3}
    assert "(3 of them in earlier runs)" in cli(*command[:-1], "--resume").out
    refused = cli(*command)
    assert refused.code == 2
    assert "already holds a load" in refused.err
    assert cli("count", url).out == "2\n"


def test_a_journal_fits_only_its_own_load(cli: Cli, tmp_path: Path) -> None:
    """A changed file, other files, another target and other settings are one error, and load nothing."""
    url, journal = f"sqlite:///{tmp_path}/x.db", tmp_path / "journal"
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2\n")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n3,4\n")
    cli("load", url, file, "--journal", journal)
    text = journal.read_bytes()
    resume = ["--journal", journal, "--resume"]

    for arguments, reason in [
        ((url, other), "it belongs to the load of"),
        ((url, file, other), "it belongs to the load of"),
        ((f"sqlite:///{tmp_path}/y.db", file), "its target is"),
        ((url, file, "-c", "other"), "its target is"),
        ((url, file, "--text"), "its types is"),
        ((url, file, "--id", "a"), "its id_fields is"),
    ]:
        ran = cli("load", *arguments, *resume)
        assert (ran.code, reason in ran.err) == (3, True), ran.err
    file.write_text("a,b\n1,3\n5,6\n")
    ran = cli("load", url, file, *resume)
    assert ran.code == 3
    assert "x.csv changed since the load began" in ran.err

    assert journal.read_bytes() == text
    assert cli("count", url).out == "1\n"
    (tmp_path / "notes").write_text("hello\n")
    assert cli("load", url, file, "--journal", tmp_path / "notes", "--resume").code == 3
    assert (tmp_path / "notes").read_text() == "hello\n"


def test_what_cannot_be_read_again_has_no_journal(cli: Cli, tmp_path: Path) -> None:
    """Standard input and FIFOs; and `--resume` needs a journal."""
    url, journal = f"sqlite:///{tmp_path}/x.db", tmp_path / "journal"

    ran = run_process("load", url, "-", "--journal", journal, input=b'{"n": 1}\n')

    assert ran.returncode == 2
    assert b"standard input cannot be read again" in ran.stderr
    assert not journal.exists()
    file = write(tmp_path / "x.jsonl", {"n": 1})
    assert "--resume needs --journal" in cli("load", url, file, "--resume").err
    memory = cli("load", "memory://", file, "--journal", journal)
    assert memory.code == 2
    assert "needs a store that keeps its records" in memory.err


def test_a_refused_line_can_be_skipped_on_resuming(cli: Cli, tmp_path: Path) -> None:
    """The file of rejects has each refused line once, those of earlier runs included."""
    url, journal, rejects = f"sqlite:///{tmp_path}/x.db", tmp_path / "journal", tmp_path / "rejects.jsonl"
    file = tmp_path / "x.jsonl"
    lines = [orjson.dumps({"n": n}) if n not in (1, 2_500) else b"bad" for n in range(5_000)]
    file.write_bytes(b"\n".join(lines))
    command = ["load", url, file, "--journal", journal, "--resume", "--rejects", rejects, "--json"]
    stopped = cli(*command)
    assert (stopped.code, stopped.json["stopped"]) == (6, 2)

    ran = cli(*command, "--on-error", "skip")

    assert counts(ran) == {"read": 5_000, "created": 4_998, "refused": 2}
    assert [orjson.loads(line)["line"] for line in rejects.read_bytes().splitlines()] == [2, 2_501]
    assert [error["line"] for error in ran.json["errors"]] == [2, 2_501]
    assert cli("count", url).out == "4998\n"
    last = max(number for number, entry in enumerate(entries(journal)) if "counts" in entry)
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:last]))
    again = cli(*command, "--on-error", "skip")
    assert counts(again) == counts(ran)
    assert again.json["errors"] == ran.json["errors"]
    assert [orjson.loads(line)["line"] for line in rejects.read_bytes().splitlines()] == [2, 2_501]
    assert cli("count", url).out == "4998\n"


def test_two_loads_cannot_share_a_journal(cli: Cli, tmp_path: Path) -> None:
    """The second one is told so and does nothing."""
    fcntl = pytest.importorskip("fcntl")
    url, journal = f"sqlite:///{tmp_path}/x.db", tmp_path / "journal"
    file = write(tmp_path / "x.jsonl", {"n": 1})
    with journal.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ran = cli("load", url, file, "--journal", journal)

    assert ran.code == 2
    assert "another load is using it" in ran.err
