"""For users' tests: a `db` fixture on any backend, and `--isthmus-leakcheck`.

Loaded by pytest through an entry point. Without its options it adds two fixtures and nothing else.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from isthmus import AsyncDatabase

_FDS = Path("/proc/self/fd")
_TURNS = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("isthmus")
    group.addoption(
        "--isthmus-leakcheck",
        action="store_true",
        help="fail a test that leaves tasks, sockets, files, isthmus pools or a ResourceWarning behind",
    )
    group.addoption(
        "--isthmus-url",
        action="append",
        metavar="URL",
        help="the store of the `db` fixture, memory:// by default; given again, tests run on each",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check for leaks only if that was asked for."""
    if config.getoption("--isthmus-leakcheck"):
        config.pluginmanager.register(LeakCheck(), "isthmus-leakcheck")


# The fixture


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests that use `db` on each URL."""
    if "isthmus_url" in metafunc.fixturenames:
        urls = metafunc.config.getoption("--isthmus-url") or ["memory://"]
        names = [url.split("://")[0] for url in urls]
        metafunc.parametrize("isthmus_url", urls, ids=names)


def _async_fixture() -> Callable[..., Any]:
    if importlib.util.find_spec("pytest_asyncio") is None:
        return pytest.fixture  # anyio's plugin runs it
    import pytest_asyncio

    return pytest_asyncio.fixture


@_async_fixture()
async def db(isthmus_url: str) -> AsyncIterator[AsyncDatabase]:
    """A connected handle whose collection is new, and is removed after the test."""
    from isthmus import AsyncDatabase
    from isthmus._core.registry import plugin
    from isthmus._ids import new_id

    fields = plugin(isthmus_url.split("://", 1)[0]).config().model_fields
    key = next(name for name in ("table", "index", "prefix") if name in fields)
    name = f"isthmus_test_{new_id().replace('-', '')}"
    handle = await AsyncDatabase.open(isthmus_url, {key: name})
    try:
        yield handle
        drop = getattr(handle._backend, "drop", None)
        if handle.closed:
            return
        if handle.capabilities.drop and drop is not None:
            await drop(handle.collection_name)
        else:
            await handle.clear()
    finally:
        await handle.close()


# The leak check


class LeakCheck:
    """Compares what is open before and after each test.

    What a fixture of a wider scope opens belongs to that scope and is not held against the test.
    """

    def __init__(self) -> None:
        self._before: set[str] = set()
        self._pools = 0
        self._tasks: list[str] = []
        self._warned: list[warnings.WarningMessage] = []

    def pytest_report_header(self) -> str:
        """Say that the check is on, and what of it cannot be done here."""
        return "isthmus leak check: tasks, pools, ResourceWarnings" + (
            ", sockets and files" if _FDS.exists() else "; sockets and files are not: no /proc here"
        )

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Look at the loop's tasks when a test's coroutine ends."""
        for item in items:
            test = getattr(item, "obj", None)
            if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(test):
                item.obj = self._watched(test)

    def _watched(self, test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        async def watched(*args: Any, **kwargs: Any) -> Any:
            before = asyncio.all_tasks()
            result = await test(*args, **kwargs)
            left: set[asyncio.Task[Any]] = set()
            for _ in range(_TURNS):  # what was cancelled needs a turn to end
                left = {task for task in asyncio.all_tasks() - before if not _ours(task)}
                if not left:
                    break
                await asyncio.sleep(0)
            self._tasks = sorted(_told(task) for task in left)
            return result

        return watched

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        """Record warnings; what is not a ResourceWarning goes on to pytest."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            self._warned = caught
            result = yield
        for warning in caught:
            if not issubclass(warning.category, ResourceWarning):
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno, source=warning.source
                )
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        """Note what is open."""
        self._tasks = []
        self._before = _open_files()
        self._pools = _open_pools()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Take what a wider fixture opens for given."""
        if fixturedef.scope == "function":
            return (yield)
        files, pools = _open_files(), _open_pools()
        result = yield
        self._before |= _open_files() - files
        self._pools += _open_pools() - pools
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Compare, after all the fixtures of the test have ended."""
        result = yield
        gc.collect()
        left = [f"a task that still runs: {task}" for task in self._tasks]
        pools = _open_pools() - self._pools
        if pools > 0:
            left.append(f"{pools} isthmus pool(s) not closed")
        left += [f"left open: {_explained(name)}" for name in sorted(_open_files() - self._before)]
        left += [
            f"ResourceWarning: {warning.message}"
            for warning in self._warned
            if issubclass(warning.category, ResourceWarning)
        ]
        self._warned[:] = [w for w in self._warned if not issubclass(w.category, ResourceWarning)]
        if left:
            pytest.fail(f"{item.nodeid} leaks:\n  " + "\n  ".join(left), pytrace=False)
        return result


def _ours(task: asyncio.Task[Any]) -> bool:
    """Return whether a task keeps an isthmus pool, which is counted as such, or is the check itself."""
    return task is asyncio.current_task() or task.get_name().startswith("isthmus-")


def _told(task: asyncio.Task[Any]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    place = f" ({code.co_qualname}, {code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{task.get_name()}{place}"


def _open_pools() -> int:
    from isthmus._core import loop_pools

    loop_pools.sweep()
    return loop_pools.open_pools()


def _open_files() -> set[str]:
    """Return sockets and files that this process has open, by number and name."""
    found: set[str] = set()
    if not _FDS.exists():
        return found
    for entry in _FDS.iterdir():
        try:
            target = str(entry.readlink())
        except OSError:  # the listing's own
            continue
        if target.startswith("socket:") or (target.startswith("/") and not target.startswith("/dev/")):
            found.add(f"{entry.name} {target}")
    return found


def _explained(name: str) -> str:
    """Return a socket with the address that it leads to."""
    number, _, target = name.partition(" ")
    if not target.startswith("socket:["):
        return f"{target} (fd {number})"
    inode = target[8:-1]
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            if fields[9] == inode:
                return f"socket to port {int(fields[2].rpartition(':')[2], 16)} (fd {number})"
    return f"socket (fd {number})"
