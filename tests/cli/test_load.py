"""`load`: ids that exist, ids of several fields, several files, refused lines by kind."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import subprocess
from decimal import Decimal
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Cli, CommandResult, build_command, make_url, run_process

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

    ran = cli("load", url, file, "--records", "--on-clash", clash, "--on-error", on_error, "--json")

    assert counts(ran) == counted
    assert [line["data"] for line in cli("query", url, "--sort", "_id").lines] == stored
    text = cli("load", url, file, "--records", "--on-clash", clash).out
    done = {"replace": "4 replaced", "update": "4 updated", "skip": "0 replaced, 4 skipped"}[clash]
    assert text == f"4 read, 0 created, {done}, 0 refused\n"


def test_a_clash_can_be_a_failure(cli: Cli, tmp_path: Path) -> None:
    """The record that was there stays; `--mode create` is the older name."""
    url = f"sqlite:///{tmp_path}/x.db"
    cli("put", url, "a", '{"n": 0}')
    file = write(tmp_path / "x.jsonl", {"id": "a", "data": {"n": 1}}, {"id": "b", "data": {}})

    for options in (["--on-clash", "fail"], ["--mode", "create"]):
        ran = cli("load", url, file, "--records", *options, "--json")
        assert (ran.code, counts(ran)) == (6, {"read": 2, "refused": 1})
    assert cli("get", url, "a", "--json").json["data"] == {"n": 0}
    assert cli("load", url, file, "--records", "--on-clash", "fail", "--mode", "create").code == 2


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
    assert cli("load", two, tmp_path / "x.db").code == 0  # it is a SQLite file, the other is not
    assert cli("count", url).out == "6\n"
    assert cli("load", url, url, one).code == 2
    assert cli("load", url).code == 2
    assert cli("load", url, "-", "-").code == 2
    assert cli("load", url, one, tmp_path / "absent.jsonl").code == 8
    assert cli("count", url).out == "6\n"


def test_csv_without_headings_can_be_given_some(cli: Cli, tmp_path: Path) -> None:
    """With a journal, whose load is the same one when it is resumed, and where a file is a store."""
    url, file = f"sqlite:///{tmp_path}/x.db", tmp_path / "bare.csv"
    file.write_text("a,1\nb,2\n")
    options = ("--headings", "name,n", "--id", "name", "--journal", tmp_path / "journal")

    assert cli("load", url, file, *options).out == "2 read, 2 created, 0 replaced, 0 refused\n"
    assert cli("load", url, file, *options, "--resume").code == 0
    assert cli("get", url, "b", "--json").json["data"] == {"name": "b", "n": 2}
    assert cli("query", file, "n = 1", "--headings", "name,n", "-f", "jsonl").json["data"] == {
        "name": "a",
        "n": 1,
    }


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


def test_a_column_of_csv_has_one_type(cli: Cli, tmp_path: Path) -> None:
    """Over all files of one load: codes stay text, and a number comes back to the letter."""
    url = f"sqlite:///{tmp_path}/x.db"
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("key,zip,price,open\n0E0,0123,1.5,true\n0E8,99,2,false\n")
    two.write_text("key,zip,price,open\n7,5,3.25,\n")

    assert cli("load", url, one, two, "--id", "key").code == 0

    assert [line["data"] for line in cli("query", url, "--sort", "price").lines] == [
        {"key": "0E0", "zip": "0123", "price": 1.5, "open": True},
        {"key": "0E8", "zip": "99", "price": 2, "open": False},
        {"key": "7", "zip": "5", "price": 3.25, "open": None},
    ]
    cli("load", url, two, "-c", "other", "--types", "zip=text", "--id", "key")
    assert cli("get", url, "7", "-c", "other", "--json").json["data"]["zip"] == "5"
    cli("load", url, two, "-c", "text", "--text", "--id", "key")
    assert cli("get", url, "7", "-c", "text", "--json").json["data"]["price"] == "3.25"


def test_a_bad_line_of_csv_refuses_itself_only(cli: Cli, tmp_path: Path) -> None:
    """A bad quote, a bad byte and a wrong number of cells; the lines around them are loaded."""
    url, file = f"sqlite:///{tmp_path}/x.db", tmp_path / "x.csv"
    file.write_bytes(b'a,b\n1,x\n2,"bad" quote\n3,\xff\n4\n5,y\n')

    ran = cli("load", url, file, "--on-error", "skip", "--json")

    assert counts(ran) == {"read": 5, "created": 2, "refused": 3}
    assert [error["line"] for error in ran.json["errors"]] == [3, 4, 5]
    assert [line["data"] for line in cli("query", url, "--sort", "a").lines] == [
        {"a": 1, "b": "x"},
        {"a": 5, "b": "y"},
    ]


def test_equal_headings_refuse_the_file(cli: Cli, tmp_path: Path) -> None:
    """No column is lost in silence."""
    url, file = f"sqlite:///{tmp_path}/x.db", tmp_path / "x.csv"
    file.write_text("a,b,a\n1,2,3\n")

    ran = cli("load", url, file)

    assert ran.code == 6
    assert "several columns have the heading 'a'" in ran.err
    assert cli("count", url).out == "0\n"


def test_foreign_lines_with_id_and_data_are_data(cli: Cli, tmp_path: Path) -> None:
    """Only a line with all keys of a dump is a record, or any with --records."""
    url = f"sqlite:///{tmp_path}/x.db"
    foreign = {"id": "a", "data": {"n": 1}}
    file = write(tmp_path / "x.jsonl", foreign)
    cli("load", url, file, "-c", "foreign")
    assert cli("query", url, "-c", "foreign").lines[0]["data"] == foreign

    cli("load", url, file, "--records")
    assert cli("dump", url, tmp_path / "dump.jsonl").code == 0
    cli("load", url, tmp_path / "dump.jsonl", "-c", "again")
    assert cli("get", url, "a", "-c", "again", "--json").json["data"] == {"n": 1}
    cli("load", url, tmp_path / "dump.jsonl", "-c", "plain", "--plain")
    assert cli("query", url, "-c", "plain").lines[0]["data"]["id"] == "a"


def test_json_documents_lines_and_compressed_files(cli: Cli, tmp_path: Path) -> None:
    """An array, an object inside one, lines named .json, gz."""
    url = f"sqlite:///{tmp_path}/x.db"
    (tmp_path / "array.json").write_text('[{"n": 1}, {"n": 2}]')
    (tmp_path / "lines.json").write_text('{"n": 3}\n{"n": 4}\n')
    (tmp_path / "deep.json").write_text('{"meta": 1, "items": [{"n": 5}]}')
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"n\n6\n7\n"))

    assert cli("load", url, *(tmp_path / name for name in ("array.json", "lines.json", "x.csv.gz"))).code == 0
    assert cli("load", url, tmp_path / "deep.json", "--path", "items").code == 0

    assert [line["data"]["n"] for line in cli("query", url, "--sort", "n").lines] == list(range(1, 8))
    assert cli("load", url, tmp_path / "x.unknown").code == 8
    (tmp_path / "x.unknown").write_text("n\n8\n")
    assert cli("load", url, tmp_path / "x.unknown").code == 2
    assert cli("load", url, tmp_path / "x.unknown", "-f", "csv").code == 0


def test_standard_input_of_each_kind(tmp_path: Path) -> None:
    """JSON lines as they come; CSV is read twice from a temporary file."""
    url = f"sqlite:///{tmp_path}/x.db"
    for text, options in ((b'{"n": 1}\n', []), (b"n\n2\n", ["-f", "csv"])):
        ran = subprocess.run(
            build_command("load", url, "-", *options), input=text, capture_output=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
    ran = subprocess.run(build_command("count", url), capture_output=True, check=False)
    assert ran.stdout == b"2\n"


@pytest.mark.usefixtures("unhurried")
def test_a_file_alone_is_described_and_queried(cli: Cli, tmp_path: Path) -> None:
    """As a store is; it can be copied to one."""
    file = tmp_path / "people.csv"
    file.write_text("name,age\nAnn,30\nBob,20\nCid,40\n")

    shown = cli(file).out

    assert "3 records" in shown
    assert "name" in shown
    assert [line["data"]["name"] for line in cli(file, "age>25", "--sort", "-age").lines] == ["Cid", "Ann"]
    assert cli(file, "--to", f"sqlite:///{tmp_path}/x.db").code == 0
    assert cli("count", f"sqlite:///{tmp_path}/x.db").out == "3\n"


def test_progress_has_a_rate_and_the_time_left(tmp_path: Path) -> None:
    """On a terminal; the number of rows is estimated from the bytes."""
    pty = pytest.importorskip("pty")
    file = tmp_path / "x.csv"
    file.write_text("n,text\n" + "".join(f"{n},{'x' * 200}\n" for n in range(20_000)))
    own, terminal = pty.openpty()
    with subprocess.Popen(
        build_command("load", f"sqlite:///{tmp_path}/x.db", file),
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as running:
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(own, 65_536)
            except OSError:  # the terminal of a process that has ended
                break
            if not part:
                break
            shown += part
        out, _ = running.communicate(timeout=60)
    os.close(own)

    assert out == b"20000 read, 20000 created, 0 replaced, 0 refused\n"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"\d+/\d+ [\d,]+/s \d:\d\d:\d\d left", text), text[-2_000:]


@pytest.mark.parametrize(
    "kind",
    [
        "sqlite",
        *(
            pytest.param(kind, marks=[pytest.mark.backend(kind.partition("-")[0]), pytest.mark.breadth(4)])
            for kind in ("postgres", "elasticsearch", "s3", "s3-object")
        ),
    ],
)
def test_csv_clashes_as_json_lines_do(cli: Cli, tmp_path: Path, kind: str) -> None:
    """Rows of CSV are written as JSON that Arrow made of them: with each treatment of what exists."""
    old = write(tmp_path / "old.jsonl", {"code": "b", "old": 1, "n": 0}, {"code": "é", "n": 0})
    rows = [{"code": code, "n": n, "open": n > 1} for n, code in enumerate(["a", "b", "é", "a", "c"])]
    lines = write(tmp_path / "new.jsonl", *rows)
    table = tmp_path / "new.csv"
    cells = [f"{row['code']},{row['n']},{'true' if row['open'] else 'false'}\n" for row in rows]
    table.write_text("code,n,open\n" + "".join(cells))

    for clash in ("replace", "update", "skip", "fail"):
        seen = []
        for file in (lines, table):
            url = make_url(kind, tmp_path)
            assert cli("load", url, old, "--id", "code").code == 0
            options = ["--id", "code", "--on-clash", clash, "--on-error", "skip", "--json"]
            ran = cli("load", url, file, *options)
            stored = cli("query", url, "--sort", "_id").lines
            seen.append((ran.code, counts(ran), [(line["id"], line["data"]) for line in stored]))
        assert seen[0] == seen[1]
        assert len(seen[0][2]) == 4


def test_hints_name_options_of_the_command(cli: Cli, tmp_path: Path) -> None:
    """Not the settings of the library, which the message comes from."""
    url = f"sqlite:///{tmp_path}/x.db"
    latin, repeated = tmp_path / "latin.csv", tmp_path / "repeated.csv"
    latin.write_bytes("name,n\nZoë,1\n".encode("latin-1"))
    repeated.write_text("a,b,a\n1,2,3\n")
    naive, fine, exact = (tmp_path / f"{name}.parquet" for name in ("naive", "fine", "exact"))
    pq.write_table(pa.table({"at": pa.array([1], pa.timestamp("us"))}), naive)
    pq.write_table(pa.table({"at": pa.array([1], pa.timestamp("ns", "UTC"))}), fine)
    pq.write_table(pa.table({"n": [Decimal("0.12345678901234567891")]}), exact)

    for file, hint in (
        (latin, "set --encoding, such as latin-1"),
        (repeated, "use --no-header"),
        (naive, "set --zone to the one that is meant, such as --zone UTC"),
        (fine, "--round cuts it"),
        (exact, "set --types to read the column as text"),
    ):
        assert hint in cli("load", url, file).err, file
    assert cli("load", url, latin, "--encoding", "latin-1").code == 0
    assert cli("load", url, naive, "--zone", "UTC").code == 0
    assert cli("load", url, fine, "--round").code == 0
    assert cli("load", url, exact, "--types", "n=text").code == 0


def test_a_misspelled_setting_names_what_is_meant(cli: Cli, tmp_path: Path) -> None:
    """A column, a kind, an encoding, a field of the id; nothing is written."""
    url = f"sqlite:///{tmp_path}/x.db"
    file = tmp_path / "x.csv"
    file.write_text("name,age\nAnn,34\n,\n")

    for options, code, message in (
        (["--types", "agee=text"], 2, "there is no column 'agee'; 'age' is there"),
        (["--types", "age=int"], 3, "types: expected NAME=KIND, with text, number or bool"),
        (["--types", "age"], 3, "types: expected NAME=KIND, with text, number or bool"),
        (["--encoding", "latin9x"], 3, "encoding: there is no such encoding"),
        (["--id", "nmae"], 6, "there is no field 'nmae' for the id; 'name' is there"),
        (["--on-clash", "repl"], 2, "'--on-clash': 'repl' is not one of"),
    ):
        ran = cli("load", url, file, *options)
        assert (ran.code, message in ran.err) == (code, True), ran.err
    assert "x.csv:3: the field 'age' for the id is null" in cli("load", url, file, "--id", "age").err
    assert "no store given" in cli("load", file).err
    assert "no file given" in cli("load", url).err


def test_an_id_is_found_inside_objects(cli: Cli, tmp_path: Path) -> None:
    """By a path with dots; a key that has a dot in it comes first."""
    url = f"sqlite:///{tmp_path}/x.db"
    file = write(tmp_path / "x.jsonl", {"p": {"code": "a"}}, {"p.code": "b", "p": {"code": "c"}})

    assert cli("load", url, file, "--id", "p.code").code == 0

    assert [line["id"] for line in cli("query", url).lines] == ["a", "b"]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_what_precedes_damage_is_loaded(cli: Cli, tmp_path: Path, suffix: str) -> None:
    """A compressed file that ends early: the line is the one that cannot be read any more."""
    lines = b"".join(b'{"n": %d, "text": "%x"}\n' % (n, n * 7919**9) for n in range(20_000))
    whole = gzip.compress(lines) if suffix == "gz" else pa.compress(lines, "zstd", asbytes=True)
    file = tmp_path / f"x.jsonl.{suffix}"
    file.write_bytes(whole[: len(whole) * 9 // 10])
    url = f"sqlite:///{tmp_path}/x.db"

    ran = cli("load", url, file, "--on-error", "skip", "--json")

    created = ran.json["created"]
    assert created > 10_000
    assert ran.json["errors"][0]["line"] == created + 1
    assert cli("count", url).out == f"{created}\n"
    head = tmp_path / f"x.csv.{suffix}"
    head.write_bytes(whole[:12])
    assert "the compressed file" in cli("load", url, head).err or "damaged" in cli("load", url, head).err


def test_standard_input_without_a_format_says_so(people: str) -> None:
    """CSV on a pipe is refused as JSON lines: the message names the option."""
    ran = run_process("load", people, "-", input=b"a,b\n1,2\n")

    assert ran.returncode == 6
    assert b"standard input:1: not JSON" in ran.stderr
    assert b"without --format it is read as JSON lines" in ran.stderr


@pytest.mark.parametrize("compression", ["gz", "zst"])
@pytest.mark.parametrize("place", ["-", "/dev/stdin"])
def test_compressed_input_of_a_pipe_is_recognized(tmp_path: Path, compression: str, place: str) -> None:
    """By its first bytes: of each text format, and of a file that was cut what precedes its end."""
    url = f"sqlite:///{tmp_path}/x.db"
    compress = gzip.compress if compression == "gz" else zstd
    csv = b"n\n" + b"".join(b"%d\n" % n for n in range(99_999))
    file = tmp_path / "x"
    for data, options, count in (
        (compress(b"n\n1\n2\n"), ["-f", "csv"], 2),
        (compress(b'{"n": 3}\n'), ["-f", "jsonl"], 1),
        (compress(csv)[:-100], ["-f", "csv", "--on-error", "skip"], None),
        (compress(csv)[:40], ["-f", "csv", "--on-error", "skip"], 0),
        *([(compress(b'{"n": 3}\n'), [], 1)] if place == "-" else []),
    ):
        if place == "-":
            ran = run_process("load", url, "-", *options, "--json", input=data)
        else:
            file.write_bytes(data)
            command = (
                f"cat {file} | {shlex.join(build_command('load', url, '/dev/stdin', *options, '--json'))}"
            )
            ran = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
        created = orjson.loads(ran.stdout)["created"]
        assert created == count if count is not None else 10_000 < created < 99_999
        assert ran.returncode == (0 if count else 6), ran
        assert not ran.returncode or b"ends early" in ran.stdout or b"damaged" in ran.stdout

    ran = run_process("load", url, "-", input=compress(b"a,b\n1,2\n"))
    assert b"standard input:1: not JSON" in ran.stderr
    assert b"without --format it is read as JSON lines" in ran.stderr


def zstd(data: bytes) -> bytes:
    compressed: bytes = pa.compress(data, "zstd", asbytes=True)
    return compressed


def test_a_load_does_not_write_over_its_files(cli: Cli, tmp_path: Path) -> None:
    """Nor does it read one of them twice; a link to a file is the file."""
    url = f"sqlite:///{tmp_path}/x.db"
    file = write(tmp_path / "x.jsonl", {"n": 1})
    link = tmp_path / "link.jsonl"
    link.symlink_to(file)
    before = file.read_bytes()

    for arguments in ([file, file], [file, link], [file, "--rejects", link], [file, "--journal", file]):
        ran = cli("load", url, *arguments)
        assert ran.code == 2, ran.err

    assert "--rejects" in cli("load", url, file, "--rejects", file).err
    assert file.read_bytes() == before
    assert not (tmp_path / "x.db").exists()
