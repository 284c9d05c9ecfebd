"""The prompt after `isthmus STORE` on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from isthmus.cli._prompt import _completer, _to_arguments
from tests.cli.conftest import build_command

pytestmark = pytest.mark.backend("sqlite")


def _talk(arguments: list[str], lines: list[str], home: Path) -> str:
    """Run a command on a terminal, give it each line after a prompt, and return what it printed."""
    terminal, other = pty.openpty()
    environment = {**os.environ, "HOME": str(home), "TERM": "dumb", "COLUMNS": "100"}
    process = subprocess.Popen(
        arguments, stdin=other, stdout=other, stderr=other, env=environment, close_fds=True
    )
    os.close(other)
    output, answered, end = "", 0, time.monotonic() + 60
    while time.monotonic() < end:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if ready:
            try:
                output += os.read(terminal, 65_536).decode()
            except OSError:  # the other side is closed
                break
        if output.count("isthmus> ") > answered and answered < len(lines):
            os.write(terminal, f"{lines[answered]}\n".encode())
            answered += 1
    os.close(terminal)
    assert process.wait(timeout=20) == 0, output
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output).replace("\r\n", "\n")


def test_a_prompt_answers_filters_and_commands(people: str, tmp_path: Path) -> None:
    """It goes on after an error, keeps a history, and ends with an empty line."""
    lines = [
        "age>97",
        "count age<10",
        'count city="Oslo"',
        "age >",
        "agg --by city",
        "load x.csv",
        "help",
        "",
    ]

    output = _talk(build_command(people), lines, tmp_path / "home")

    assert "100 records" in output
    assert "p099" in output
    assert "\n10\n" in output
    assert "\n50\n" in output
    assert "filter, character" in output
    assert "Rome" in output
    assert "load is not available here" in output
    history = (tmp_path / "home/.cache/isthmus/history").read_text()
    assert "count age<10" in history


def test_lines_are_filters_or_commands() -> None:
    """A filter's quotes stay its own; a command's options are split as a shell does."""
    assert _to_arguments('city = "Oslo"', "u", ["-c", "x"]) == ["query", "u", 'city = "Oslo"', "-c", "x"]
    assert _to_arguments('count city = "Oslo"', "u", []) == ["count", "u", 'city = "Oslo"']
    assert _to_arguments("agg --by 'a b'", "u", []) == ["agg", "u", "--by", "a b"]
    assert _to_arguments("ls", "u", ["-c", "x"]) == ["ls", "u"]


def test_fields_are_completed() -> None:
    """Those that begin with the text, one for each state."""
    complete = _completer(["age", "agent", "city"])
    assert [complete("ag", state) for state in range(3)] == ["age", "agent", None]
