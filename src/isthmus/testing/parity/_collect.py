"""A pytest plugin that writes down how each test of a parity run ended."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from isthmus.testing import conformance
from isthmus.testing.parity._results import Verdict

_LONGEST = 300


def pytest_configure(config: pytest.Config) -> None:
    """Collect in the process that leads: the reports of workers arrive there."""
    if not hasattr(config, "workerinput"):
        columns = [column["name"] for column in json.loads(os.environ["ISTHMUS_PARITY_COLUMNS"])]
        config.pluginmanager.register(_Collecting(columns), "isthmus-parity")


class _Collecting:
    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self._told: list[dict[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the outcome of a call, or of a setup or teardown that went wrong."""
        if report.when != "call" and report.outcome == "passed":
            return
        test, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
        column, case = _split(parameters.removesuffix("]"), self._columns)
        verdict, why = _judged(report)
        self._told.append(
            {
                "promise": getattr(conformance, test).__module__.rpartition(".")[2],
                "test": test,
                "case": case,
                "column": column,
                "verdict": verdict.value,
                "capability": str(dict(report.user_properties).get("refused", "")),
                "why": why,
            }
        )

    def pytest_sessionfinish(self) -> None:
        """Write all of them."""
        Path(os.environ["ISTHMUS_PARITY_OUT"]).write_text(json.dumps(self._told), encoding="utf-8")


def _split(parameters: str, columns: list[str]) -> tuple[str, str]:
    """Return the column that a test's parameters name, and the rest of them."""
    fitting = [name for name in columns if parameters == name or parameters.startswith(f"{name}-")]
    column = max(fitting, key=len)
    return column, parameters[len(column) + 1 :]


def _judged(report: pytest.TestReport) -> tuple[Verdict, str]:
    told = dict(report.user_properties)
    match report.outcome:
        case "passed" if "refused" in told:
            return Verdict.REFUSED, str(told.get("because", ""))
        case "passed":
            return Verdict.PASSED, ""
        case "skipped":
            place = report.longrepr
            return Verdict.NOT_RUN, str(place[2] if isinstance(place, tuple) else place)[:_LONGEST]
        case _:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = report.longreprtext if crash is None else str(crash.message)
            return Verdict.FAILED, (text.strip().splitlines() or [""])[0][:_LONGEST]
