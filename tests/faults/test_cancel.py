"""Tasks cancelled at any await leave nothing behind: no session, no socket, no task, no place in a pool."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from isthmus import AsyncDatabase, IsthmusError, Query, field
from isthmus._core.loop_pools import open_pools
from isthmus._ids import new_id
from tests import servers
from tests.faults.targets import TARGETS
from tests.seeds import drawn

CANCELS = int(os.environ.get("ISTHMUS_CANCELS", "150"))
# uvloop's own close() was once seen to wait for ever in C after this run, where no timeout reaches:
# it is run by `make test-all`, so that one hang does not take a whole run with it.
LOOPS = ("asyncio", "uvloop", "anyio") if os.environ.get("ISTHMUS_TEST_ALL") else ("asyncio", "anyio")
BACKENDS = ("memory", "sqlite", *TARGETS)


async def _open(backend: str, folder: Path, name: str) -> AsyncDatabase:
    if backend == "memory":
        return await AsyncDatabase.create("memory")
    if backend == "sqlite":
        return await AsyncDatabase.open(f"sqlite:///{folder}/store.db", {"table": name})
    if backend == "postgres":
        # Named, so that its sessions can be told from those of tests that run beside this one.
        settings = {"url": servers.server("postgres").url, "table": name}
        settings["server_settings"] = {"application_name": name}
        return await AsyncDatabase.create("postgres", settings)
    target = TARGETS[backend]
    return await target.open(target.url(), name)


async def _connect(db: AsyncDatabase, folder: Path, backend: str, name: str) -> None:
    other = await _open(backend, folder, name)
    await other.close()


async def _stream(db: AsyncDatabase) -> None:
    async with db.stream(page_size=5) as records:
        async for _ in records:
            pass


async def _transaction(db: AsyncDatabase) -> None:
    async with db.transaction() as tx:
        await tx.create({"n": 1})
        async with tx.savepoint():
            await tx.upsert("a", {"n": 2})


async def _consistent(db: AsyncDatabase) -> None:
    async with db.stream(consistent=True, page_size=5) as records:
        async for _ in records:
            pass


def _works(backend: str, folder: Path, name: str, db: AsyncDatabase) -> list[Callable[[], Awaitable[Any]]]:
    """Return what is cancelled: every kind of call that the backend has."""
    works: list[Callable[[], Awaitable[Any]]] = [
        lambda: db.get("a"),
        lambda: db.create({"n": 1}),
        lambda: db.create_batch([{"n": n} for n in range(20)]),
        lambda: db.create_batch([{"n": n} for n in range(400)]),  # COPY, several bulks, many puts
        lambda: db.upsert_batch({str(n): {"n": n} for n in range(30)}),
        lambda: db.update("a", {"n": 3}),
        lambda: db.delete_batch([str(n) for n in range(30)]),
        lambda: db.search(Query().filter("n", ">=", 1).sort("n").limit(20)),
        lambda: db.count(field("n") == 1),
        lambda: _stream(db),
        lambda: _connect(db, folder, backend, name),
        db.ping,
    ]
    if db.capabilities.transactions:
        works.append(lambda: _transaction(db))
    if db.capabilities.consistent_stream:
        works.append(lambda: _consistent(db))
    return works


async def _interrupted(work: Callable[[], Awaitable[Any]], pick: Random) -> bool:
    """Run something and cancel it after some turns of the loop, or some time; return whether it was."""
    task = asyncio.ensure_future(work())
    if pick.random() < 0.5:
        for _ in range(pick.randrange(0, 30)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(pick.random() ** 2 * 0.03)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=20)
    assert done, f"a cancelled call still runs after 20 s: {task!r}"
    if task.cancelled():
        return True
    error = task.exception()
    if error is not None and not isinstance(error, IsthmusError):
        raise error
    return False


def _sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except OSError:  # the listing's own
            continue
    return count


async def _sessions(server: servers.Running, name: str) -> int:
    import asyncpg

    connection = await asyncpg.connect(server.url)
    try:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", name
            )
        )
    finally:
        await connection.close()


async def _torn(backend: str, folder: Path, seed: int) -> None:
    pick = Random(seed)
    name = f"cancel_{new_id().replace('-', '')}"
    server = servers.server("postgres") if backend == "postgres" else None
    db = await _open(backend, folder, name)
    await db.upsert_batch({id: {"n": 1} for id in "abcdefghijklmnop"})
    works = _works(backend, folder, name, db)
    begun = cancelled = 0
    while begun < CANCELS:
        batch = [_interrupted(pick.choice(works), pick) for _ in range(pick.randrange(1, 6))]
        cancelled += sum(await asyncio.gather(*batch))
        begun += len(batch)
        if pick.random() < 0.1:
            await db.clear()  # so that streams stay short
    print(f"{backend}: {begun} calls, {cancelled} cancelled on their way")
    assert cancelled > begun * 0.1 or backend == "memory", f"{cancelled} of {begun} were cancelled in time"
    await _served(db)
    # After all that, the handle works, and each call is whole.
    await db.clear()
    ids = await db.create_batch([{"n": n} for n in range(50)])
    assert await db.count() == 50
    assert [r.id async for r in db.stream(Query().sort("n"), page_size=7)] == list(ids)
    await _settled(lambda: db.stats().pool.in_use, "connections in use")
    await db.clear()
    await db.close()
    if server:
        for _ in range(100):
            if await _sessions(server, name) == 0:
                break
            await asyncio.sleep(0.05)
        assert await _sessions(server, name) == 0, f"sessions left at the server (seed {seed})"


async def _served(db: AsyncDatabase) -> None:
    """Wait until no more of the cancelled requests that had been sent is served: a busy server takes long."""
    seen, alike = -1, 0
    while alike < (1 if db.backend in ("memory", "sqlite") else 4):
        before, seen = seen, await db.count()
        alike = alike + 1 if seen == before else 0
        await asyncio.sleep(0.5)


async def _settled(what: Callable[[], int], name: str) -> None:
    for _ in range(100):
        if what() == 0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what()} {name}, though nothing runs")


async def _whole(backend: str, folder: Path, seed: int) -> None:
    """Run the torture and see that no task of it is left."""
    before = asyncio.all_tasks()
    await _torn(backend, folder, seed)
    for _ in range(100):
        left = asyncio.all_tasks() - before
        if not left:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"tasks left (seed {seed}): {left}")


def _run(loop: str, work: Callable[[], Awaitable[None]]) -> None:
    if loop == "anyio":
        import anyio

        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(work)

        anyio.run(main)
    elif loop == "uvloop":
        import uvloop

        async def call() -> None:
            await work()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(call())
    else:

        async def plain() -> None:
            await work()

        asyncio.run(plain())


@pytest.mark.skipif(sys.platform != "linux", reason="counts sockets in /proc")
@pytest.mark.breadth(2)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_cancelled_calls_leave_nothing_behind(backend: str, loop: str, tmp_path: Path) -> None:
    """Every call cancelled at random awaits: sessions, sockets, pools and tasks are as before."""
    if backend not in ("memory", "sqlite"):
        TARGETS[backend].url()
    seed = drawn()
    gc.collect()
    sockets, pools = _sockets(), open_pools()

    _run(loop, lambda: _whole(backend, tmp_path, seed))

    gc.collect()
    assert open_pools() == pools, f"seed {seed}"
    for _ in range(800):
        if _sockets() <= sockets:
            break
        time.sleep(0.05)  # obstore closes in threads of its own, at the latest by its timeout of idle ones
    assert _sockets() <= sockets, f"seed {seed}"
