"""Forks: the child starts with connections of its own, and the parent goes on."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from isthmus._core.executor import Mutation, TransactionOptions, WriteKind
from isthmus._query.ast import TRUE
from isthmus.backends.sqlite import plugin
from isthmus.backends.sqlite.backend import SQLiteBackend
from isthmus.errors import UsageError

pytestmark = [
    pytest.mark.backend("sqlite"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    # Python 3.12 warns of forks in a process with threads; ours hold nothing then.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning"),
]
R = "records"


def _backend(path: Path) -> SQLiteBackend:
    return plugin.build(plugin.config().load({"path": str(path)}))  # type: ignore[return-value]


async def _create(backend: SQLiteBackend, *ids: str) -> None:
    assert await backend.write(R, WriteKind.CREATE, [Mutation(id, {}) for id in ids], atomic=True) == list(
        ids
    )


def _run(work: Callable[[SQLiteBackend], Coroutine[Any, Any, None]], backend: SQLiteBackend) -> int:
    """Run some work in a forked child and return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(work(backend))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def _writes_and_closes(backend: SQLiteBackend) -> None:
    await _create(backend, *(f"child-{n}" for n in range(100)))
    assert (await backend.count(R, TRUE)).count == 101
    await backend.close()


async def _is_refused(backend: SQLiteBackend) -> None:
    with pytest.raises(UsageError, match="forked"):
        await backend.count(R, TRUE)


def test_a_forked_child_writes_beside_its_parent(tmp_path: Path) -> None:
    """The handle works in both; no write is lost and the file stays whole."""
    backend = _backend(tmp_path / "d.db")

    async def parent() -> None:
        await backend.open(R)
        await _create(backend, "parent")
        code = await asyncio.to_thread(_run, _writes_and_closes, backend)
        assert code == 0
        assert (await backend.count(R, TRUE)).count == 101
        await _create(backend, "after")
        await backend.close()

    asyncio.run(parent())

    connection = sqlite3.connect(tmp_path / "d.db")
    assert connection.execute("SELECT count(*) FROM records").fetchone() == (102,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_child_of_an_open_transaction_is_refused(tmp_path: Path) -> None:
    """Its parent's transaction commits all the same."""
    backend = _backend(tmp_path / "d.db")

    async def parent() -> None:
        await backend.open(R)
        async with backend.begin(TransactionOptions()) as tx:
            await _create(tx, "a")  # type: ignore[arg-type]
            assert await asyncio.to_thread(_run, _is_refused, backend) == 0
        assert (await backend.count(R, TRUE)).count == 1
        await backend.close()

    asyncio.run(parent())
