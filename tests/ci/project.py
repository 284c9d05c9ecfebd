"""A copy of the project, in which faults are planted and `.ci/run` is run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Left out of each copy. Compiled modules and the caches of ruff, mypy and import-linter save half a minute.
_LEFT_OUT = (".git", ".venv*", ".pytest_cache", ".hypothesis", "site", "dist", "build", "out")
# The line of `.ci/run` that runs lint and types.
_CHECKS = 'timed_make lint types || finish RED "lint or types failed"\n'
# The longest that one `.ci/run` on a copy may take, in seconds.
_PATIENCE = 240


@dataclass(frozen=True, slots=True)
class Ended:
    """How a `.ci/run` ended: its exit code and everything that it printed."""

    code: int
    output: str


class Project:
    """A copy of this project at `root`; `env` is the environment of the commands that are run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # The installed package is this checkout's; the copy's own comes before it.
        self.env = {**os.environ, "PYTHONPATH": str(root / "src")}
        for name in ("CI", "ISTHMUS_TEST_ALL", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
            self.env.pop(name, None)

    def write(self, path: str, text: str) -> None:
        """Write a file of the copy."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def append(self, path: str, text: str) -> None:
        """Add text to a file of the copy."""
        with (self.root / path).open("a") as file:
            file.write(text)

    def leave_out_checks(self) -> None:
        """Let the copy's `.ci/run` begin with the tests."""
        script = self.root / ".ci/run"
        text = script.read_text()
        assert _CHECKS in text, "tests/ci knows another .ci/run"
        script.write_text(text.replace(_CHECKS, ""))

    def run_ci(self) -> Ended:
        """Run the copy's `.ci/run`, with all its processes ended when this returns."""
        with tempfile.TemporaryFile("w+") as output:
            child = subprocess.Popen(
                [".ci/run"],
                cwd=self.root,
                env=self.env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = child.wait(_PATIENCE)
            except BaseException:
                os.killpg(child.pid, signal.SIGTERM)
                child.wait(60)
                raise
            output.seek(0)
            return Ended(code, output.read())


@contextmanager
def copied(*, whole: bool = False) -> Iterator[Project]:
    """Copy the project to a temporary folder, `whole` or with no test but those that a case plants."""
    with tempfile.TemporaryDirectory(prefix="isthmus-ci-") as folder:
        root = Path(folder) / "isthmus"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
        if not whole:
            for path in (root / "tests").glob("**/test_*.py"):
                path.unlink()
            # They import every backend, for tests that are gone.
            for path in (root / "tests").glob("*/conftest.py"):
                path.unlink()
        _share_environment(root / ".venv")
        yield Project(root)


def _share_environment(venv: Path) -> None:
    """Let the copy use this checkout's environment, whose stamps say that nothing is to be installed."""
    venv.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name in {"bin", "include", "lib", "lib64", "pyvenv.cfg"}:
            (venv / path.name).symlink_to(path)
    for stamp in (".core", ".full"):
        (venv / stamp).touch()
