"""Runs commands in this process, or in one of their own where signals and pipes matter."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from isthmus.cli import _missing_fields
from isthmus.cli._commands import fields
from isthmus.cli._main import run
from tests.transfer.torture import stores


@dataclass
class CommandResult:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON document on standard output."""
        return orjson.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON lines on standard output."""
        return [orjson.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., CommandResult]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a function that runs a command in this process."""
    monkeypatch.delenv("ISTHMUS_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run_command(*arguments: object) -> CommandResult:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return CommandResult(code, out, err)

    return run_command


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a description take its time: on a busy machine even a small file takes long."""
    for name in ("COUNT_SECONDS", "SECONDS", "TEXT_SECONDS"):
        monkeypatch.setattr(fields, name, 60.0)
    monkeypatch.setattr(_missing_fields, "_SECONDS", 60.0)


def build_command(*arguments: object) -> list[str]:
    """Return the arguments of a process that runs a command."""
    return [sys.executable, "-m", "isthmus", *map(str, arguments)]


def run_process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process and wait for its end."""
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        build_command(*arguments), capture_output=True, env=environment, timeout=60, check=False, **options
    )


def make_url(kind: str, folder: Path) -> str:
    """Return the URL of a fresh collection; kinds are those of servers, sqlite, and s3-object."""
    store, _, layout = kind.partition("-")
    [url] = stores([store], folder, layout or "log", name=f"cli_{uuid.uuid4().hex[:8]}")
    return url


@pytest.fixture
def people(tmp_path: Path, cli: Cli) -> str:
    """Return the URL of a SQLite store with a hundred people."""
    lines = [
        {"id": f"p{i:03}", "data": {"name": f"Name {i}", "age": i, "city": "Oslo" if i % 2 else "Rome"}}
        for i in range(100)
    ]
    file = tmp_path / "people.jsonl"
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    url = f"sqlite:///{tmp_path}/people.db"
    assert cli("load", url, file, "--records").code == 0
    return url
