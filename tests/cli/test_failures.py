"""Every failure gives one line and a documented exit code, never a traceback."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from isthmus.cli._errors import ExitCode, choose_exit_code
from isthmus.cli._urls import redact_url
from isthmus.errors import IsthmusError
from tests.cli.conftest import Cli, CommandResult, build_command, run_process

pytestmark = pytest.mark.backend("sqlite")
CANARY = "c4n4ry-s3cr3t"


def assert_one_line(ran: CommandResult, code: ExitCode) -> None:
    assert ran.code == code, ran.err
    assert re.fullmatch(r"isthmus: .+\n", ran.err), ran.err
    assert ran.out == ""


def fill(url: str, folder: Path) -> None:
    """Load half a megabyte into a store."""
    lines = (orjson.dumps({"id": f"{i}", "data": {"x": "y" * 1000}}) for i in range(500))
    (folder / "big.jsonl").write_bytes(b"\n".join(lines))
    assert run_process("load", url, folder / "big.jsonl", "--records").returncode == 0


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("scheme", ["postgres", "es+http"])
def test_an_unreachable_store_is_exit_code_4(cli: Cli, scheme: str) -> None:
    """The error is one line."""
    assert_one_line(cli("ping", f"{scheme}://127.0.0.1:{closed_port()}/x"), ExitCode.UNREACHABLE)


def test_an_invalid_filter_is_exit_code_2_and_marks_the_position(cli: Cli, people: str) -> None:
    """A caret is below the position."""
    ran = cli("query", people, "age>=")

    assert ran.code == 2
    assert ran.err.splitlines() == [
        "isthmus: filter, character 6: expected a value, found the end",
        "  age>=",
        "       ^",
    ]


def test_an_invalid_option_or_command_is_exit_code_2(cli: Cli, people: str) -> None:
    """The error refers to the help."""
    for arguments in (
        ["query", people, "--bogus"],
        ["frobnicate"],
        ["query", people, "-n", "many"],
        ["get", people],
    ):
        ran = cli(*arguments)
        assert_one_line(ran, ExitCode.USAGE)
        assert "--help" in ran.err


def test_an_invalid_url_or_setting_is_exit_code_3(cli: Cli, tmp_path: Path) -> None:
    """So is a missing SQLite file: commands that only read create nothing."""
    for url in ("nosuch://x", "sqlite:///x.db?max_sise=3", f"sqlite:///{tmp_path}/missing.db"):
        assert_one_line(cli("count", url), ExitCode.CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_collection_is_not_created_by_reading(cli: Cli, people: str) -> None:
    """A mistyped name leaves no empty table behind."""
    assert cli("count", people, "-c", "typo").code == 3
    assert cli("ls", people).out == "records\n"


def test_errors_are_json_with_json(cli: Cli, people: str) -> None:
    """The error has its class, message and exit code."""
    ran = cli("query", people, "age>=", "--json")

    shape = orjson.loads(ran.err)
    assert shape["error"] == "FilterError"
    assert shape["exit_code"] == ran.code == 2


def test_a_missing_file_is_exit_code_8(cli: Cli, people: str, tmp_path: Path) -> None:
    """Local files have an exit code of their own."""
    assert_one_line(cli("load", people, tmp_path / "missing.jsonl"), ExitCode.FILES)
    assert_one_line(cli("load", f"sqlite:///{tmp_path}/new.db", tmp_path / "missing.jsonl"), ExitCode.FILES)
    assert not (tmp_path / "new.db").exists()
    assert_one_line(cli("dump", people, tmp_path / "no" / "such" / "folder.jsonl"), ExitCode.FILES)


def test_a_bug_is_exit_code_70_and_debug_prints_the_traceback(
    cli: Cli, people: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line without --debug, a traceback with it."""
    monkeypatch.setattr("isthmus.cli._commands.query.parse_query", lambda text: 1 / 0)

    assert_one_line(cli("count", people), ExitCode.BUG)
    assert "Traceback" in cli("count", people, "--debug").err


def test_every_error_of_the_library_has_a_code() -> None:
    """No error class of the library counts as a bug."""

    def walk(cls: type[IsthmusError]) -> list[type[IsthmusError]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in walk(sub))]

    for cls in walk(IsthmusError):
        error = cls.__new__(cls)
        if not hasattr(error, "outcomes"):
            error.__dict__["outcomes"] = []
        assert choose_exit_code(error) not in (ExitCode.OK, ExitCode.NO, ExitCode.BUG), cls


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--json"], ["-f", "csv"], ["-f", "table"]])
def test_a_full_disk_is_exit_code_8(people: str, arguments: list[str]) -> None:
    """Output that cannot be written is an error in every format."""
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            build_command("query", people, *arguments),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )

    assert ran.returncode == ExitCode.FILES, ran.stderr
    assert b"no space left on the disk" in ran.stderr
    assert ran.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("closed", "unbuffered"), [(">&-", ""), (">&-", "1"), ("2>&-", ""), ("<&- >&- 2>&-", "")]
)
def test_a_closed_output_is_exit_code_8(people: str, tmp_path: Path, closed: str, unbuffered: str) -> None:
    """Where an answer is lost; closed errors are silent, and no file takes the place of a stream."""
    (tmp_path / "x.csv").write_text("n\n1\n")
    code = 8 if " >&-" in f" {closed}" else 0
    for command in (
        "load {0} x.csv",
        "count {0}",
        "query {0}",
        "show {0}",
        "get {0} p001",
    ):
        ran = run_shell(command.format(people), closed, tmp_path, PYTHONUNBUFFERED=unbuffered)
        assert ran.returncode == code, (command, ran)
        assert ran.stderr.count(b"standard stream") == (closed == ">&-"), (command, ran)
        assert b"Traceback" not in ran.stderr
    assert run_shell(f"query {people} -o x.jsonl", closed, tmp_path).returncode == 0
    assert run_shell(f"dump {people} y.jsonl", closed, tmp_path).returncode == code
    assert run_shell(f"ping {people}x?n=1", closed, tmp_path).returncode == 3
    assert run_process("count", people).returncode == 0


def test_a_closed_input_is_exit_code_8(people: str, tmp_path: Path) -> None:
    """Where a command reads it."""
    for command in ("load {} - -f csv", "load {} -", "put {} x -"):
        ran = run_shell(command.format(people), "<&-", tmp_path)
        assert (ran.returncode, ran.stderr.count(b"standard stream")) == (8, 1), (command, ran)
    assert run_shell(f"count {people}", "<&-", tmp_path).returncode == 0


def run_shell(
    command: str, streams: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a shell that closes streams."""
    return subprocess.run(
        ["sh", "-c", f"{shlex.quote(sys.executable)} -m isthmus.cli {command} {streams}"],
        capture_output=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        timeout=60,
        check=False,
    )


def test_a_failed_dump_leaves_no_partial_file(people: str, tmp_path: Path) -> None:
    """A file appears only when it is complete; a limit on file size stands for a full disk."""
    fill(people, tmp_path)
    file = tmp_path / "dump.jsonl"
    file.write_text("the old one")

    ran = subprocess.run(
        ["bash", "-c", 'ulimit -f 128; trap "" XFSZ; exec "$@"', "x", *build_command("dump", people, file)],
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == ExitCode.FILES, ran.stderr
    assert file.read_text() == "the old one"
    assert not file.with_name("dump.jsonl.part").exists()


def test_a_pipe_closed_early_is_silent(people: str, tmp_path: Path) -> None:
    """`isthmus query … | head -1` exits with the code of SIGPIPE, without a message."""
    fill(people, tmp_path)
    with subprocess.Popen(
        build_command("query", people, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        err = running.stderr.read()
        code = running.wait(60)

    assert err == b""
    assert code == ExitCode.PIPE


def test_ctrl_c_ends_a_copy_with_an_intact_journal(people: str, tmp_path: Path) -> None:
    """Exit code 130; the copy can be resumed, and nothing is lost or duplicated."""
    other = f"sqlite:///{tmp_path}/other.db"
    journal = tmp_path / "journal"
    options = ["copy", people, other, "--journal", journal, "--page", 5]
    with subprocess.Popen(
        build_command(*options, "--throttle", 5), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        # Until the other process has acknowledged a range, however long a busy machine takes to start it.
        while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
            assert running.poll() is None, running.communicate()
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)

    assert running.returncode == ExitCode.INTERRUPTED
    assert b"Traceback" not in err
    assert b"--resume" in err
    resumed = run_process(*options, "--resume", "--verify", "--json")
    assert resumed.returncode == 0, resumed.stderr
    shape = orjson.loads(resumed.stdout)
    assert 0 < shape["earlier"] < 100
    assert shape["read"] == 100
    assert shape["verified"]["equal"]


def test_ctrl_c_in_a_load_reports_the_written_records(people: str) -> None:
    """The interrupt ends it although its input pipe stays open."""
    with subprocess.Popen(
        build_command("load", people, "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdin is not None
        line = orjson.dumps({"data": {"x": 1}}) + b"\n"
        running.stdin.write(line * 2_500)
        running.stdin.flush()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            counted = run_process("count", people)
            if counted.returncode == 0 and int(counted.stdout) >= 2_100:
                break
        running.send_signal(signal.SIGINT)
        err = running.stderr.read() if running.stderr else b""
        running.wait(30)

    assert running.returncode == ExitCode.INTERRUPTED, err
    assert b"2000 records were written" in err
    assert b"Traceback" not in err


def test_the_extra_cli_is_named_when_it_is_missing(tmp_path: Path) -> None:
    """Without typer or rich, one line names the package to install."""
    for missing in ("typer", "rich"):
        code = f"import sys; sys.modules[{missing!r}] = None; from isthmus.cli import main; main()"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)

        assert ran.returncode == ExitCode.CONFIG
        assert (
            ran.stderr == f"isthmus: the command line needs {missing}: pip install 'isthmus[cli]'\n".encode()
        )


def test_the_library_does_not_load_the_command_line() -> None:
    """`import isthmus` imports neither typer nor rich nor isthmus.cli."""
    code = (
        "import sys, isthmus, isthmus.transfer;"
        "own = [m for m in sys.modules if m.startswith(('typer', 'rich', 'isthmus.cli'))];"
        "print(own)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)

    assert ran.stdout == b"[]\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgres://u:{CANARY}@h:5433/db?pool.max_size=3", "postgres://u@h:5433/db?pool.max_size=3"),
        (f"postgres://u:{CANARY}@h1:1,h2:2/db", "postgres://u@h1:1,h2:2/db"),
        (f"es+https://h/i?api_key={CANARY}", "es+https://h/i"),
        (f"s3://b/p?aws_secret_access_key={CANARY}&region=x", "s3://b/p?region=x"),
        (f"postgres://u:{CANARY}@[bad/db", "postgres://…"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    """Printed and journaled URLs have no password, key or token."""
    assert redact_url(url) == shown


def test_no_secret_reaches_the_screen(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No password of a URL or the environment is printed, not even with --debug."""
    port = closed_port()
    urls = [
        f"postgres://u:{CANARY}@127.0.0.1:{port}/db",
        f"postgres://u:{CANARY}@127.0.0.1:{port}/db?bogus=1",
        f"postgres://u:{CANARY}@[bad/db",
        f"es+http://u:{CANARY}@127.0.0.1:{port}/i",
        f"s3://key:{CANARY}@bucket/p?endpoint_url=http://127.0.0.1:{port}&region=x&timeout=2",
    ]
    monkeypatch.setenv("ISTHMUS_PASSWORD", CANARY)
    for url in urls:
        for arguments in (
            ["ping", url],
            ["ping", url, "--json", "--debug"],
            ["doctor", url],
            ["copy", url, f"sqlite:///{tmp_path}/x.db", "--journal", tmp_path / "j"],
        ):
            ran = cli(*arguments)
            assert ran.code not in (0, ExitCode.BUG), (arguments[0], ran)
            assert CANARY not in ran.out + ran.err, arguments[0]
    assert not (tmp_path / "j").exists() or CANARY not in (tmp_path / "j").read_text()


def test_a_password_prompt_does_not_echo(people: str, tmp_path: Path) -> None:
    """-W reads from the terminal with echo off."""
    import pty

    port = closed_port()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(sys.executable, build_command("ping", f"postgres://u@127.0.0.1:{port}/x", "-W"))
    seen = b""
    answered = False
    while True:
        try:
            seen += os.read(terminal, 1000)
        except OSError:
            break
        if not answered and b"Password for postgres://u@127.0.0.1" in seen:
            os.write(terminal, CANARY.encode() + b"\n")
            answered = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)

    assert answered, seen
    assert os.waitstatus_to_exitcode(status) == ExitCode.UNREACHABLE, seen
    assert CANARY.encode() not in seen
