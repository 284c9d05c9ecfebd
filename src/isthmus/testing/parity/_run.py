"""Runs the suite in a subprocess, isolated from the caller's pytest settings."""

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
from isthmus.testing.parity._results import Outcome, StoreColumn, Verdict

_SETTINGS = """\
[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
"""
_PASSED_OR_FAILED = (0, 1)


class SuiteError(Exception):
    """The suite could not be run."""


def run_suite(
    columns: Sequence[StoreColumn], *, workers: int = 0, only: str = "", quiet: bool = True
) -> list[Outcome]:
    """Run the suite on all columns and return the outcome of each test; takes minutes on a slow store.

    `workers` is the number of parallel processes (requires pytest-xdist; 0 runs in one), `only` is
    pytest's `-k` and `quiet` captures pytest's output. Raises `SuiteError` if the suite did not run,
    and `MissingExtraError` if pytest is not installed.
    """
    for module in ("pytest", "pytest_asyncio"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(
                "the suite requires pytest: pip install 'isthmus[testing]'", extra="testing"
            )
    with tempfile.TemporaryDirectory(prefix="isthmus-parity-") as folder:
        settings, out = Path(folder, "pytest.ini"), Path(folder, "outcomes.json")
        settings.write_text(_SETTINGS, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(settings), "--rootdir", folder]
        command += ["-p", "no:cacheprovider", "-p", "isthmus.testing.parity._collect"]
        command += ["-n", str(workers), "--dist", "loadgroup"] if workers else ["-p", "no:xdist"]
        command += ["-k", only] if only else []
        column_settings = [dataclasses.asdict(column) for column in columns]
        result = subprocess.run(  # noqa: S603 - fixed arguments
            [*command, str(Path(__file__).with_name("_suite.py"))],
            env={
                **os.environ,
                "ISTHMUS_PARITY_COLUMNS": json.dumps(column_settings),
                "ISTHMUS_PARITY_OUT": str(out),
            },
            capture_output=quiet,
            text=True,
            check=False,
        )
        if result.returncode not in _PASSED_OR_FAILED or not out.exists():
            output = f"\n{result.stdout}{result.stderr}" if quiet else ""
            raise SuiteError(f"the suite did not run (pytest exited with {result.returncode}){output}")
        return [
            Outcome(**{**one, "verdict": Verdict(one["verdict"])})
            for one in json.loads(out.read_text(encoding="utf-8"))
        ]
