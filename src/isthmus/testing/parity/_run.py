"""Runs the suite in a process of its own, away from the caller's tests and their settings."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from isthmus.errors import MissingExtraError
from isthmus.testing.parity._results import Column, Outcome, Verdict

_SETTINGS = """\
[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
"""
_PASSED_OR_FAILED = (0, 1)


class SuiteError(Exception):
    """The suite could not be run at all."""


def measured(
    columns: Sequence[Column], *, workers: int = 0, only: str = "", quiet: bool = True
) -> list[Outcome]:
    """Run the suite on all columns and return every outcome; some minutes for a slow store.

    `workers` processes share the work (that needs pytest-xdist); `only` is pytest's `-k`. Raises
    `SuiteError` if the suite did not run.
    """
    for module in ("pytest", "pytest_asyncio"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                "the suite runs by pytest: pip install 'isthmus[testing]'", extra="testing"
            )
    with tempfile.TemporaryDirectory(prefix="isthmus-parity-") as folder:
        settings, out = Path(folder, "pytest.ini"), Path(folder, "outcomes.json")
        settings.write_text(_SETTINGS, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(settings), "--rootdir", folder]
        command += ["-p", "no:cacheprovider", "-p", "isthmus.testing.parity._collect"]
        command += ["-n", str(workers), "--dist", "loadgroup"] if workers else ["-p", "no:xdist"]
        command += ["-k", only] if only else []
        told = [dataclasses.asdict(column) for column in columns]
        done = subprocess.run(  # noqa: S603 - our own arguments
            [*command, str(Path(__file__).with_name("_suite.py"))],
            env={**os.environ, "ISTHMUS_PARITY_COLUMNS": json.dumps(told), "ISTHMUS_PARITY_OUT": str(out)},
            capture_output=quiet,
            text=True,
            check=False,
        )
        if done.returncode not in _PASSED_OR_FAILED or not out.exists():
            said = f"\n{done.stdout}{done.stderr}" if quiet else ""
            raise SuiteError(f"the suite did not run (pytest ended with {done.returncode}){said}")
        return [
            Outcome(**{**one, "verdict": Verdict(one["verdict"])})
            for one in json.loads(out.read_text(encoding="utf-8"))
        ]
