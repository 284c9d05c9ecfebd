"""Runs mypy, pyright and ty on files, and says which lines they find fault with and how long they take."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Found:
    """What a checker found: the faulty lines by file, and its processor time in seconds."""

    lines: dict[str, set[int]]
    text: str
    seconds: float


def run_mypy(files: Sequence[Path]) -> Found:
    """Check files by `mypy --strict`, with the project's settings and cache."""
    command = [str(BIN / "mypy"), "--strict", "--no-pretty", *map(str, files)]
    return _find(command, r"^(.+?):(\d+)(?::\d+)?: error: (.*)$")


def run_ty(files: Sequence[Path]) -> Found:
    """Check files by ty."""
    command = [str(BIN / "ty"), "check", "--python", sys.prefix, "--output-format", "concise"]
    return _find([*command, *map(str, files)], r"^(.+?):(\d+):\d+: error(.*)$")


def run_pyright(files: Sequence[Path]) -> Found:
    """Check the files that `pyrightconfig.json` of their folder includes, as pyright takes no others."""
    command = [str(BIN / "pyright"), "--pythonpath", sys.executable, "-p", str(files[0].parent)]
    return _find(command, r"^ *(/.+?):(\d+):\d+ - error: (.*)$")


CHECKERS: dict[str, Callable[[Sequence[Path]], Found]] = {
    "mypy": run_mypy,
    "pyright": run_pyright,
    "ty": run_ty,
}


def _find(command: list[str], pattern: str) -> Found:
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode()
    lines: dict[str, set[int]] = {}
    for match in re.finditer(pattern, text, re.MULTILINE):
        lines.setdefault(Path(match[1]).name, set()).add(int(match[2]))
    if process.returncode not in (0, 1) or (process.returncode == 1 and not lines):
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{text}")
    return Found(lines, text, usage.ru_utime + usage.ru_stime)
