"""A pytest plugin for applications: a `db` fixture on any backend, and `--isthmus-leakcheck`.

pytest loads it through an entry point. Without options it only adds the fixtures.
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

_FD_DIRECTORY = Path("/proc/self/fd")
# Loop iterations in which a cancelled task must end.
_GRACE_ITERATIONS = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
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
        help="the store of the `db` fixture, memory:// by default; repeat to run the tests on each",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the leak check if it is enabled."""
    if config.getoption("--isthmus-leakcheck"):
        config.pluginmanager.register(LeakCheck(), "isthmus-leakcheck")


# The fixtures


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that uses `db` once for each URL."""
    if "isthmus_url" in metafunc.fixturenames:
        urls = metafunc.config.getoption("--isthmus-url") or ["memory://"]
        names = [url.split("://")[0] for url in urls]
        metafunc.parametrize("isthmus_url", urls, ids=names)


def _async_fixture() -> Callable[..., Any]:
    if importlib.util.find_spec("pytest_asyncio") is None:
        return pytest.fixture  # anyio's plugin runs async fixtures
    import pytest_asyncio

    return pytest_asyncio.fixture


@_async_fixture()
async def db(isthmus_url: str) -> AsyncIterator[AsyncDatabase]:
    """Yield a connected database with collections of its own, which are removed after the test."""
    from isthmus import AsyncDatabase
    from isthmus._collection import Collection
    from isthmus._core.registry import plugin
    from isthmus._ids import new_id

    setting = plugin(isthmus_url.split("://", 1)[0]).config().collection_setting() or "table"
    name = f"isthmus_test_{new_id().replace('-', '')}"
    handle = await AsyncDatabase.open(isthmus_url, {setting: name})
    handle._namespace = f"{name}_"
    try:
        yield handle
    finally:
        if handle.closed:
            await handle.connect()
        for collection in sorted(handle._core.ready):
            if handle.capabilities.drop:
                await handle._drop(collection)
            else:
                await Collection(lambda: handle._session, collection).clear()
        await handle.close()


# The leak check


class LeakCheck:
    """Fails a test after which more tasks, pools, sockets or files are open than before it.

    Resources that a fixture of a wider scope opens are not counted.
    """

    def __init__(self) -> None:
        self._before: set[str] = set()
        self._pools = 0
        self._tasks: list[str] = []
        self._warned: list[warnings.WarningMessage] = []

    def pytest_report_header(self) -> str:
        """Return the header line; without /proc, sockets and files cannot be checked."""
        return "isthmus leak check: tasks, pools, ResourceWarnings" + (
            ", sockets and files" if _FD_DIRECTORY.exists() else "; not sockets and files: there is no /proc"
        )

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Wrap async tests, to check the loop's tasks when a test's coroutine ends."""
        for item in items:
            test = getattr(item, "obj", None)
            if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(test):
                item.obj = self._check_tasks(test)

    def _check_tasks(self, test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        async def run_and_check(*args: Any, **kwargs: Any) -> Any:
            before = asyncio.all_tasks()
            result = await test(*args, **kwargs)
            leaked: set[asyncio.Task[Any]] = set()
            for _ in range(_GRACE_ITERATIONS):  # a cancelled task needs an iteration to end
                leaked = {task for task in asyncio.all_tasks() - before if not _is_exempt(task)}
                if not leaked:
                    break
                await asyncio.sleep(0)
            self._tasks = sorted(map(_describe_task, leaked))
            return result

        return run_and_check

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, Any, Any]:
        """Record ResourceWarnings; other warnings are passed on to pytest."""
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
        """Record the open resources before the test."""
        self._tasks = []
        self._before = _open_files()
        self._pools = _open_pools()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        """Exempt the resources that a fixture of a wider scope opens."""
        if fixturedef.scope == "function":
            return (yield)
        files, pools = _open_files(), _open_pools()
        result = yield
        self._before |= _open_files() - files
        self._pools += _open_pools() - pools
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Compare, after all fixtures of the test have been torn down."""
        result = yield
        gc.collect()
        leaks = [f"task still running: {task}" for task in self._tasks]
        pools = _open_pools() - self._pools
        if pools > 0:
            leaks.append(f"{pools} isthmus pool(s) not closed")
        leaks += [f"still open: {_describe_file(name)}" for name in sorted(_open_files() - self._before)]
        leaks += [
            f"ResourceWarning: {warning.message}"
            for warning in self._warned
            if issubclass(warning.category, ResourceWarning)
        ]
        self._warned[:] = [w for w in self._warned if not issubclass(w.category, ResourceWarning)]
        if leaks:
            pytest.fail(f"{item.nodeid} leaks:\n  " + "\n  ".join(leaks), pytrace=False)
        return result


def _is_exempt(task: asyncio.Task[Any]) -> bool:
    """Return whether a task is the check itself, or belongs to a pool, which is counted as such."""
    return task is asyncio.current_task() or task.get_name().startswith("isthmus-")


def _describe_task(task: asyncio.Task[Any]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    location = f" ({code.co_qualname}, {code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{task.get_name()}{location}"


def _open_pools() -> int:
    from isthmus._core import loop_pools

    loop_pools.sweep()
    return loop_pools.open_pools()


def _open_files() -> set[str]:
    """Return the open sockets and files of this process, as "descriptor target"."""
    found: set[str] = set()
    if not _FD_DIRECTORY.exists():
        return found
    for entry in _FD_DIRECTORY.iterdir():
        try:
            target = str(entry.readlink())
        except OSError:  # the descriptor of the listing itself
            continue
        if target.startswith("socket:") or (target.startswith("/") and not target.startswith("/dev/")):
            found.add(f"{entry.name} {target}")
    return found


def _describe_file(name: str) -> str:
    """Return a file's path, or the remote port of a TCP socket."""
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
