"""The counts of load and copy are the store's: after success, refusal, a full disk and Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from isthmus import AsyncDatabase, IsthmusError, Record
from isthmus.cli._formats.input_line import InputLine
from isthmus.cli._loader import Loader, OnClash
from isthmus.testing.chaos import Chaos
from tests.cli.conftest import Cli, build_command, run_process

pytestmark = pytest.mark.backend("sqlite")


def write_lines(file: Path, ids: list[str], size: int = 10) -> None:
    """Write a line for each id, with its number."""
    lines = (orjson.dumps({"id": id, "data": {"n": n, "x": "y" * size}}) for n, id in enumerate(ids))
    file.write_bytes(b"\n".join(lines))


def pick_counts(document: dict[str, Any]) -> dict[str, int]:
    return {name: document[name] for name in ("read", "created", "replaced", "refused")}


@pytest.mark.parametrize("mode", ["stop", "skip"])
@pytest.mark.parametrize("backend", ["sqlite", "memory"])
def test_created_replaced_and_refused_are_counted_apart(
    cli: Cli, tmp_path: Path, mode: str, backend: str
) -> None:
    """An id that occurs twice is created once, within a batch and beyond it; the last line stays."""
    url = "memory://" if backend == "memory" else f"sqlite:///{tmp_path}/x.db"
    file = tmp_path / "lines.jsonl"
    write_lines(file, [f"k{i % 1_500}" for i in range(2_500)])

    first = cli("load", url, file, "--records", "--on-error", mode, "--json").json
    assert pick_counts(first) == {"read": 2_500, "created": 1_500, "replaced": 1_000, "refused": 0}
    assert (first["written"], first["failed"]) == (2_500, 0)
    text = cli("load", url, file, "--records", "--on-error", mode).out
    if backend == "memory":  # each command has a store of its own
        assert text == "2500 read, 1500 created, 1000 replaced, 0 refused\n"
        return
    assert text == "2500 read, 0 created, 2500 replaced, 0 refused\n"
    assert cli("count", url).out == "1500\n"
    assert cli("get", url, "k7", "--json").json["data"]["n"] == 1_507


def test_refused_lines_are_counted_with_the_others(cli: Cli, tmp_path: Path) -> None:
    """In create mode an id that exists is refused, also one that the file itself created."""
    url, file = f"sqlite:///{tmp_path}/x.db", tmp_path / "lines.jsonl"
    file.write_text(
        '{"id": "a", "data": {}}\n{"id": "b", "data": {}}\nbad\n'
        '{"id": "a", "data": {"again": 1}}\n{"id": "c", "data": {}}\n{"n": 18446744073709551616}\n'
    )

    skipped = cli("load", url, file, "--records", "--mode", "create", "--on-error", "skip", "--json").json
    assert pick_counts(skipped) == {"read": 6, "created": 3, "replaced": 0, "refused": 3}
    replaced = cli("load", url, file, "--records", "--on-error", "skip", "--json").json
    assert pick_counts(replaced) == {"read": 6, "created": 0, "replaced": 4, "refused": 2}
    stopped = cli("load", url, file, "--records", "--json").json
    assert pick_counts(stopped) == {"read": 3, "created": 0, "replaced": 2, "refused": 1}


@pytest.mark.parametrize("as_json", [True, False])
def test_after_a_full_disk_the_written_records_are_counted(tmp_path: Path, as_json: bool) -> None:
    """A limit on the size of files stands for the full disk."""
    url, file = f"sqlite:///{tmp_path}/x.db", tmp_path / "lines.jsonl"
    write_lines(file, [f"k{i:05}" for i in range(20_000)], size=300)
    command = build_command("load", url, file, "--records", *(["--json"] if as_json else []))

    ran = subprocess.run(
        ["bash", "-c", 'ulimit -f 4000; trap "" XFSZ; exec "$@"', "x", *command],
        capture_output=True,
        timeout=120,
        check=False,
    )

    counted = int(run_process("count", url).stdout)
    assert ran.returncode in (4, 7, 8), ran.stderr
    assert 0 < counted < 20_000
    if as_json:
        document = orjson.loads(ran.stdout)
        assert document["created"] == document["written"] == counted
        assert orjson.loads(ran.stderr)["exit_code"] == ran.returncode
    else:
        assert f"failed after {counted} records were written".encode() in ran.stderr


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_ctrl_c_the_written_records_are_counted(tmp_path: Path, seed: int) -> None:
    """At any moment: the batch that is interrupted is finished and counted."""
    url, file = f"sqlite:///{tmp_path}/x.db", tmp_path / "lines.jsonl"
    write_lines(file, [f"k{i:06}" for i in range(150_000)])
    with subprocess.Popen(
        build_command("load", url, file, "--records", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        deadline = time.monotonic() + 60
        grown = tmp_path / "x.db-wal"
        least = Random(seed).randrange(200_000, 2_000_000)
        while time.monotonic() < deadline and not (grown.exists() and grown.stat().st_size > least):
            time.sleep(0.001)  # until the other process has written a good part
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)

    assert running.returncode == 130, err
    document = orjson.loads(out)
    assert document["created"] == int(run_process("count", url).stdout)
    assert 0 < document["created"] <= document["read"] < 150_000
    assert orjson.loads(err)["message"] == "interrupted"


@pytest.mark.parametrize("seed", range(12))
def test_the_store_is_asked_about_writes_without_an_answer(tmp_path: Path, seed: int) -> None:
    """Answers are lost, writes dropped, and the question may fail, too: then the rest is uncertain."""
    generator = Random(seed)
    asyncio.run(check_uncertain_writes(f"sqlite:///{tmp_path}/x.db", generator, seed))


async def check_uncertain_writes(url: str, generator: Random, seed: int) -> None:
    """Load lines through failures, and compare the counts with the store."""
    ids = [f"k{generator.randrange(120)}" for _ in range(200)]
    lines = [InputLine("x", n, Record({"n": n}, id=id)) for n, id in enumerate(ids)]
    loader = Loader(OnClash.REPLACE, skip_refused=seed % 2 == 1, batch_size=generator.choice([7, 20, 64]))
    chaos = Chaos(seed=seed, lost=0.1, dropped=0.05, refused=0.03)
    failing = await AsyncDatabase.open(url, {"layers": {"chaos": chaos}}, lazy=True)
    async with await AsyncDatabase.open(url) as db:
        try:
            await loader.load(
                db.collection("records") if seed == 0 else failing.collection("records"), iter(lines)
            )
        except IsthmusError:
            pass
        else:
            assert loader.written == 200
        stored = await db.count()
        assert loader.created <= stored <= loader.created + loader.uncertain
        last = {record.data["n"] for record in await db.search()}
        assert len(last) == stored
    await failing.close()


def test_a_copy_that_is_interrupted_reports_its_count(people: str, tmp_path: Path) -> None:
    """In text and as JSON, with and without a journal."""
    for number, as_json in enumerate([True, False]):
        other = f"sqlite:///{tmp_path}/other{number}.db"
        arguments = ["copy", people, other, "--page", 5, "--throttle", 4, *(["--json"] if as_json else [])]
        with subprocess.Popen(
            build_command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as running:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                counted = run_process("count", other)
                if counted.returncode == 0 and int(counted.stdout) >= 10:
                    break
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)

        assert running.returncode == 130, err
        stored = int(run_process("count", other).stdout)
        if as_json:
            document = orjson.loads(out)
            assert document["complete"] is False
            assert 0 < document["read"] <= stored
        else:
            assert b"records were copied" in err


def test_a_load_that_fails_before_its_first_line_reports_no_counts(cli: Cli, tmp_path: Path) -> None:
    """One error line, as for every other command."""
    file = tmp_path / "lines.jsonl"
    write_lines(file, ["a"])

    ran = cli("load", f"sqlite:///{tmp_path}/no/such/folder.db", file)

    assert (ran.out, ran.err.count("\n")) == ("", 1)
