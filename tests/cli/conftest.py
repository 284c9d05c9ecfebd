"""Runs commands: in this process, or as a real one where signals and pipes matter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from isthmus.cli._main import run


@dataclass
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document that was printed."""
        return orjson.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON lines that were printed."""
        return [orjson.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Ran]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return the function that runs a command in this process."""
    monkeypatch.delenv("ISTHMUS_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


def command(*arguments: object) -> list[str]:
    """Return the command line of a real process."""
    return [sys.executable, "-m", "isthmus.cli", *map(str, arguments)]


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a real process to its end."""
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        command(*arguments), capture_output=True, env=environment, timeout=60, check=False, **options
    )


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
    assert cli("load", url, file).code == 0
    return url
