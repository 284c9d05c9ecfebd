"""Output files: replaced when complete, with links followed, modes kept, special files written to."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from isthmus.cli._formats.output_file import open_output
from tests.cli.conftest import Cli, build_command, run_process

pytestmark = [
    pytest.mark.backend("sqlite"),
    pytest.mark.skipif(os.name == "nt", reason="FIFOs, devices and modes of POSIX"),
]

COMMANDS = [["dump", "{store}", "{file}", "-f"], ["query", "{store}", "-o", "{file}", "-f"]]


def build(command: list[str], store: str, file: Path, format: str = "jsonl") -> list[str]:
    """Return the arguments of a command that writes to a file."""
    return [part.format(store=store, file=file) for part in command] + [format]


def list_temporary(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".isthmus-")]


@pytest.mark.parametrize("command", COMMANDS)
def test_links_are_followed_and_modes_kept(cli: Cli, people: str, tmp_path: Path, command: list[str]) -> None:
    """A link stays a link, also one to a file that does not exist yet, in another folder."""
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "target.jsonl"
    link = tmp_path / "link.jsonl"
    link.symlink_to(Path("far") / "target.jsonl")

    assert cli(*build(command, people, link)).code == 0
    assert link.is_symlink()
    assert target.read_bytes().count(b"\n") == 100
    for mode in (0o600, 0o640, 0o666):
        target.chmod(mode)
        target.write_text("old")
        target.chmod(mode)
        assert cli(*build(command, people, link)).code == 0
        assert stat.S_IMODE(target.stat().st_mode) == mode
        assert target.read_bytes().count(b"\n") == 100
    assert link.is_symlink()
    assert list_temporary(tmp_path) == list_temporary(tmp_path / "far") == []


def test_a_new_file_has_the_mode_that_the_umask_leaves(cli: Cli, people: str, tmp_path: Path) -> None:
    """The temporary file's private mode does not stay."""
    previous = os.umask(0o027)
    try:
        assert cli("dump", people, tmp_path / "new.jsonl").code == 0
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "new.jsonl").stat().st_mode) == 0o640


def test_hard_links_see_the_new_contents(cli: Cli, people: str, tmp_path: Path) -> None:
    """A rename would leave the other name with the old contents."""
    file, other = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    file.write_bytes(b"x" * 100_000)
    other.hardlink_to(file)

    assert cli("dump", people, file).code == 0

    assert file.samefile(other)
    assert other.read_bytes().count(b"\n") == 100
    assert list_temporary(tmp_path) == []


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_fifo_is_written_to(people: str, tmp_path: Path, command: list[str], format: str) -> None:
    """Its reader receives everything in each format, and it stays a FIFO; load reads one, too."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    other = f"sqlite:///{tmp_path}/other.db"
    with subprocess.Popen(build_command(*build(command, people, fifo, format))) as writing:
        loaded = run_process("load", other, fifo, "-f", format, "--json")
        assert writing.wait(60) == 0

    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert loaded.returncode == 0, loaded.stderr
    assert orjson.loads(loaded.stdout)["written"] == 100
    assert run_process("diff", people, other).returncode == 0


def _processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_ends_a_wait_for_the_reader_of_a_fifo(people: str, tmp_path: Path) -> None:
    """Opening a FIFO for writing waits for its reader, which may never come."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    arguments = build_command("dump", people, fifo, "-f", "csv")
    with subprocess.Popen(arguments, stderr=subprocess.PIPE) as waiting:
        deadline = time.monotonic() + 30
        while not (tmp_path / "people.db-shm").exists() and time.monotonic() < deadline:
            time.sleep(0.01)  # until the other process has opened the store, which comes just before
        used = -1.0
        while used != (used := _processor_seconds(waiting.pid)) and time.monotonic() < deadline:
            time.sleep(0.5)  # until it does nothing any more
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=30)

    assert waiting.returncode == 130
    assert err == b"isthmus: interrupted\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_devices_and_descriptors_are_written_to(people: str, tmp_path: Path, command: list[str]) -> None:
    """/dev/null stays a device; a descriptor continues where it is, without truncating its file."""
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    assert run_process(*build(command, people, link)).returncode == 0
    assert stat.S_ISCHR(link.stat().st_mode)
    assert link.is_symlink()

    appended = tmp_path / "appended.txt"
    for path in ("/dev/stdout", "/dev/fd/1", "/dev/fd/3"):
        appended.write_text("before\n")
        with appended.open("ab") as stream:
            number = path[-1] if path[-1].isdigit() else 1
            redirect = f'exec "$@" {number}>&{stream.fileno()}'
            ran = subprocess.run(
                ["bash", "-c", redirect, "x", *build_command(*build(command, people, Path(path)))],
                pass_fds=[stream.fileno()],
                capture_output=True,
                timeout=60,
                check=False,
            )
        assert ran.returncode == 0, ran.stderr
        lines = appended.read_bytes().splitlines()
        assert (lines[0], len(lines)) == (b"before", 101), path
        assert all(orjson.loads(line)["id"] for line in lines[1:])


def test_a_file_named_like_a_temporary_one_is_left_alone(cli: Cli, people: str, tmp_path: Path) -> None:
    """FILE.part belongs to the user."""
    part = tmp_path / "dump.jsonl.part"
    part.write_text("mine")

    assert cli("dump", people, tmp_path / "dump.jsonl").code == 0

    assert part.read_text() == "mine"


def test_what_a_killed_run_left_is_removed_by_the_next(cli: Cli, people: str, tmp_path: Path) -> None:
    """Of the same file only, and not what a live run is writing."""
    file, elsewhere = tmp_path / "dump.jsonl", tmp_path / "elsewhere.jsonl"
    hold = (
        "import pathlib, sys, time\n"
        "from isthmus.cli._formats.output_file import open_output\n"
        "with open_output(pathlib.Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'half'); stream.flush(); print('ready', flush=True); time.sleep(60)\n"
    )
    for path in (file, elsewhere):
        with subprocess.Popen([sys.executable, "-c", hold, path], stdout=subprocess.PIPE) as killed:
            assert killed.stdout is not None
            killed.stdout.readline()
            killed.kill()
    abandoned = set(list_temporary(tmp_path))
    assert len(abandoned) == 2

    with open_output(file) as stream:
        stream.write(b"live\n")
        (live,) = set(list_temporary(tmp_path)) - abandoned
        assert run_process("dump", people, file).returncode == 0
        remaining = set(list_temporary(tmp_path))
        assert live in remaining
        assert len(remaining) == 2
    assert file.read_bytes() == b"live\n"
    assert cli("dump", people, elsewhere).code == 0
    assert list_temporary(tmp_path) == []


def test_a_failed_output_leaves_the_old_file(tmp_path: Path) -> None:
    """Contents and mode, and no temporary file."""
    file = tmp_path / "old.txt"
    file.write_text("old")
    file.chmod(0o604)

    with pytest.raises(ZeroDivisionError), open_output(file) as stream:
        stream.write(b"new" * 100_000)
        1 / 0  # noqa: B018 - any error

    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("old", 0o604)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["folder", "loop", "missing/x.jsonl", "n" * 300])
def test_a_path_that_cannot_be_written_is_exit_code_8(
    cli: Cli, people: str, tmp_path: Path, name: str
) -> None:
    """The message names the user's file, not the temporary one; a name of 255 bytes is possible."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")

    ran = cli("dump", people, tmp_path / name, "-f", "jsonl")

    assert (ran.code, ran.err.count("\n")) == (8, 1)
    assert str(tmp_path / name) in ran.err
    assert list_temporary(tmp_path) == []
    assert cli("dump", people, tmp_path / ("n" * 249 + ".jsonl")).code == 0


def test_a_read_only_file_is_not_replaced(cli: Cli, people: str, tmp_path: Path) -> None:
    """A rename needs no permission on the file, but its mode says that it is protected."""
    file = tmp_path / "protected.jsonl"
    file.write_text("old")
    file.chmod(0o400)

    may_write = os.access(file, os.W_OK)  # root may
    assert cli("dump", people, file).code == (0 if may_write else 8)
    assert (file.read_text() == "old") is not may_write
