"""Hooks for all tests: the servers' session, the count per backend, and what CI does not let pass.

With `ISTHMUS_TEST_REPORT=FOLDER` the run leaves files there for `.ci/run`, one entry per line: `exit`
(pytest's exit code), `failed` (ids of tests), `repeat` (the same, each after the test that ran before it),
`not_allowed` (id: reason) and `passed` (count and backend).
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from isthmus import errors
from isthmus._core.loop_pools import sweep
from isthmus._core.registry import BACKENDS
from tests import servers
from tests.breadth import left_out
from tests.ci.written import not_collected

REPORT = "ISTHMUS_TEST_REPORT"

_SESSION = pytest.StashKey[servers.Session]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and, in the controller, open the session of servers and count outcomes."""
    config.addinivalue_line("markers", "backend(name): the backend that a test is counted under")
    config.addinivalue_line("markers", "breadth(n): without ISTHMUS_TEST_ALL, one in n cases of a test runs")
    config.addinivalue_line("markers", "last: runs after the others, whose clocks it would disturb")
    # A shell lets its background jobs ignore it, and so would the processes that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        # Removed from the environment: a pytest that a test starts must not write over this run's report.
        folder = os.environ.pop(REPORT, None)
        outcomes = _Outcomes(Path(folder) if folder else None, config.rootpath)
        config.pluginmanager.register(outcomes, "isthmus-outcomes")
    # A worker of pytest-xdist is part of the session that its controller
    # opened, as is a pytest that runs under `tests.servers run`.
    if servers.Session.current() is None:
        config.stash[_SESSION] = servers.Session.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what this session started."""
    session = config.stash.get(_SESSION, None)
    if session is not None:
        session.end()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave breadth to `make test-all`, and put the tests marked `last` at the end."""
    if not os.environ.get("ISTHMUS_TEST_ALL"):
        markers = ((item.nodeid, item.get_closest_marker("breadth")) for item in items)
        shares = {nodeid: int(marker.args[0]) for nodeid, marker in markers if marker is not None}
        # `.ci/run` names the tests that it repeats: each of them runs.
        dropped = left_out(shares, seed=os.environ.get("ISTHMUS_TEST_SEED", "1")) - set(config.args)
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in dropped])
        items[:] = [item for item in items if item.nodeid not in dropped]
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def pytest_runtest_setup() -> None:
    """Drop the pools that a failed test left on a closed loop: the next test counts its own only."""
    sweep()


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
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add backend, strictness and a missing server to the report, the only thing that a worker sends home."""
    report = yield
    report.user_properties.append(("backend", _backend(item) or "no backend"))
    if call.excinfo is not None and call.excinfo.errisinstance(servers.MissingServerError):
        report.user_properties.append(("missing server", str(call.excinfo.value).splitlines()[0]))
    if hasattr(report, "wasxfail"):
        default = bool(item.config.getini("xfail_strict"))
        markers = list(item.iter_markers("xfail"))
        strict = bool(markers) and all(marker.kwargs.get("strict", default) for marker in markers)
        report.user_properties.append(("strict", strict))
    return report


class _Outcomes:
    """Collects the outcomes of all tests in the controller, and fails the run that CI does not allow."""

    def __init__(self, folder: Path | None, root: Path) -> None:
        self._folder = folder
        self._root = root
        self._collected: set[str] = set()
        # The test that ran last on each worker, and the one before each test.
        self._last: dict[object, str] = {}
        self._before: dict[str, str] = {}
        self._passed: Counter[str] = Counter()
        self._failed: dict[str, None] = {}
        self._not_allowed: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a passed test, note a failed one, and note what neither passed nor failed as a test."""
        properties: dict[str, Any] = dict(report.user_properties)
        worker = getattr(report, "node", None)
        if self._last.get(worker) != report.nodeid:
            self._before[report.nodeid] = self._last.get(worker, "")
            self._last[worker] = report.nodeid
        if hasattr(report, "wasxfail"):
            if not properties.get("strict"):
                self._not_allowed[report.nodeid] = f"xfail that is not strict: {report.wasxfail}"
        elif report.skipped:
            self._not_allowed[report.nodeid] = _reason(report)
        elif report.failed:
            self._failed[report.nodeid] = None
            if "missing server" in properties:
                self._not_allowed[report.nodeid] = properties["missing server"]
            elif report.when not in {"setup", "call", "teardown"}:
                # pytest-xdist's report of a worker that died.
                self._not_allowed[report.nodeid] = str(report.longrepr)
        elif report.when == "call":
            self._passed[properties.get("backend", "no backend")] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that skips as a whole or cannot be collected."""
        if report.skipped:
            self._not_allowed[report.nodeid] = _reason(report)
        elif report.failed:
            self._not_allowed[report.nodeid] = "cannot be collected"

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the tests of a run without workers."""
        self._collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Note the tests of a worker."""
        self._collected.update(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Under CI=true, fail a run in which something was skipped or may fail unnoticed."""
        for kind in servers.ended():
            self._not_allowed[kind] = "the server ended during the run"
        if self._folder is not None and session.config.args_source is not pytest.Config.ArgsSource.ARGS:
            self._note_what_did_not_run()
        if _strict() and self._not_allowed:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        if self._folder is not None:
            self._write(self._folder, int(session.exitstatus))

    def _note_what_did_not_run(self) -> None:
        """Note tests that nothing collected, backends without a test that passed, and another package."""
        if not Path(errors.__file__).is_relative_to(self._root / "src"):
            self._not_allowed["isthmus"] = (
                f"imported from {Path(errors.__file__).parent}, not from this checkout"
            )
        for test in not_collected(self._root, self._collected):
            self._not_allowed[test] = "is not collected"
        for backend in BACKENDS:
            if not any(name.startswith(backend) for name in self._passed):
                self._not_allowed[backend] = "no test of this backend passed"

    def _write(self, folder: Path, code: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        reasons = (f"{nodeid}: {' '.join(why.split())}" for nodeid, why in self._not_allowed.items())
        repeat = (test for failed in self._failed for test in (self._before.get(failed), failed) if test)
        counts = (f"{count} {name}" for name, count in sorted(self._passed.items()))
        files: dict[str, Iterable[str]] = {
            "failed": self._failed,
            "repeat": dict.fromkeys(repeat),
            "not_allowed": reasons,
            "passed": counts,
            "exit": [str(code)],
        }
        for name, lines in files.items():
            (folder / name).write_text("".join(f"{line}\n" for line in lines))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print how many tests each backend passed, and what CI does not allow."""
        terminalreporter.section("passed by backend")
        for name, count in sorted(self._passed.items()):
            terminalreporter.line(f"{name}: {count} tests passed")
        if _strict() and self._not_allowed:
            terminalreporter.section("not allowed with CI=true")
            for nodeid, reason in self._not_allowed.items():
                terminalreporter.line(f"{nodeid}: {reason}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    place = report.longrepr
    return str(place[2]) if isinstance(place, tuple) else str(place)


def _strict() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}
