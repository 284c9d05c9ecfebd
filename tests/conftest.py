"""Hooks for all tests: the servers' session, the count per backend, and what CI does not let pass."""

import os
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import pytest

from tests import servers

_PASSED = pytest.StashKey[Counter[str]]()
_NOT_ALLOWED = pytest.StashKey[dict[str, str]]()
_SESSION = pytest.StashKey[servers.Session]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and, in the process that leads, open the session of servers."""
    config.addinivalue_line("markers", "backend(name): the backend that a test is counted under")
    config.addinivalue_line("markers", "last: runs after the others, whose clocks it would disturb")
    config.stash[_PASSED] = Counter()
    config.stash[_NOT_ALLOWED] = {}
    # A worker of pytest-xdist is part of the session that its controller
    # opened, as is a pytest that runs under `tests.servers run`.
    if servers.Session.current() is None:
        config.stash[_SESSION] = servers.Session.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what this session started."""
    session = config.stash.get(_SESSION, None)
    if session is not None:
        session.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests marked `last` at the end."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="session")
def running_server() -> Callable[[str], servers.Running]:
    """Return the function that finds a server by kind, or skips: `running_server("postgres").url`."""
    return servers.server


def _backend(item: pytest.Item) -> str | None:
    """Return the backend of a test: its parameter `backend`, or its marker."""
    call = getattr(item, "callspec", None)
    if call is not None and "backend" in call.params:
        value = call.params["backend"]
        return value if isinstance(value, str) else str(getattr(value, "name", value))
    marker = item.get_closest_marker("backend")
    return str(marker.args[0]) if marker is not None else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write backend and strictness into the report, the only thing that a worker sends home."""
    report = yield
    report.user_properties.append(("backend", _backend(item) or "no backend"))
    if hasattr(report, "wasxfail"):
        default = bool(item.config.getini("xfail_strict"))
        markers = list(item.iter_markers("xfail"))
        strict = bool(markers) and all(marker.kwargs.get("strict", default) for marker in markers)
        report.user_properties.append(("strict", strict))
    return report


class _Tally:
    """Counts reports in the process that leads."""

    def __init__(self, config: pytest.Config) -> None:
        self._passed = config.stash[_PASSED]
        self._not_allowed = config.stash[_NOT_ALLOWED]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a passed test, and note a skip or an expected failure that is not strict."""
        told: dict[str, Any] = dict(report.user_properties)
        if report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            self._passed[told.get("backend", "no backend")] += 1
        elif hasattr(report, "wasxfail"):
            if not told.get("strict"):
                self._not_allowed[report.nodeid] = f"xfail that is not strict: {report.wasxfail}"
        elif report.skipped:
            self._not_allowed[report.nodeid] = _reason(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that skips as a whole."""
        if report.skipped:
            self._not_allowed[report.nodeid] = _reason(report)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    place = report.longrepr
    return str(place[2]) if isinstance(place, tuple) else str(place)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Count in the controller only: a worker's reports arrive there."""
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Tally(session.config), "isthmus-tally")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under CI=true, fail a run in which something was skipped or may fail unnoticed."""
    if not hasattr(session.config, "workerinput") and _strict() and session.config.stash[_NOT_ALLOWED]:
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how many tests each backend passed."""
    terminalreporter.section("passed by backend")
    for name, count in sorted(config.stash[_PASSED].items()):
        terminalreporter.line(f"{name}: {count} tests passed")
    if _strict() and config.stash[_NOT_ALLOWED]:
        terminalreporter.section("not allowed with CI=true")
        for nodeid, reason in config.stash[_NOT_ALLOWED].items():
            terminalreporter.line(f"{nodeid}: {reason}")


def _strict() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}
