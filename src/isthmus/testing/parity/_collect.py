"""A pytest plugin that writes the outcome of each test of a parity run to a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from isthmus.testing import conformance
from isthmus.testing.parity._results import Verdict

_MAX_REASON = 300


def pytest_configure(config: pytest.Config) -> None:
    """Register the collector in the main process, to which xdist's workers send their reports."""
    if not hasattr(config, "workerinput"):
        columns = [column["name"] for column in json.loads(os.environ["ISTHMUS_PARITY_COLUMNS"])]
        config.pluginmanager.register(_OutcomeCollector(columns), "isthmus-parity")


class _OutcomeCollector:
    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self._outcomes: list[dict[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the outcome of the call, or of a setup or teardown that failed."""
        if report.when != "call" and report.outcome == "passed":
            return
        test, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
        column, case = _split_case(parameters.removesuffix("]"), self._columns)
        verdict, why = _classify(report)
        self._outcomes.append(
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
        """Write all outcomes to the file."""
        Path(os.environ["ISTHMUS_PARITY_OUT"]).write_text(json.dumps(self._outcomes), encoding="utf-8")


def _split_case(parameters: str, columns: list[str]) -> tuple[str, str]:
    """Return the column named by a test's parameters, and the other parameters."""
    matching = [name for name in columns if parameters == name or parameters.startswith(f"{name}-")]
    column = max(matching, key=len)
    return column, parameters[len(column) + 1 :]


def _classify(report: pytest.TestReport) -> tuple[Verdict, str]:
    properties = dict(report.user_properties)
    match report.outcome:
        case "passed" if "refused" in properties:
            return Verdict.REFUSED, str(properties.get("because", ""))
        case "passed":
            return Verdict.PASSED, ""
        case "skipped":
            skip = report.longrepr
            return Verdict.NOT_RUN, str(skip[2] if isinstance(skip, tuple) else skip)[:_MAX_REASON]
        case _:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = report.longreprtext if crash is None else str(crash.message)
            return Verdict.FAILED, (text.strip().splitlines() or [""])[0][:_MAX_REASON]
