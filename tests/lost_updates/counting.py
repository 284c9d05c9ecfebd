"""Read-then-update of one record by `db.run`, by many tasks of one process or of several."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from isthmus import AsyncDatabase, Record, Transaction
from tests.stores import Store, discard, store_of

_PSYCOPG: Mapping[str, Any] = {"driver": "psycopg"}
# Each store by the name that is printed: its name in tests/stores.py, and further settings.
STORES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "memory": ("memory", {}),
    "sqlite": ("sqlite", {}),
    "postgres": ("postgres", {}),
    "postgres-psycopg": ("postgres", _PSYCOPG),
    "postgres18": ("postgres18", {}),
    "postgres18-psycopg": ("postgres18", _PSYCOPG),
    "postgres-pgbouncer": ("postgres-pgbouncer", {}),
    "postgres-pgbouncer-psycopg": ("postgres-pgbouncer", _PSYCOPG),
    "sqlalchemy-mariadb": ("sqlalchemy-mariadb", {}),
    "sqlalchemy-postgres": ("sqlalchemy-postgres", {}),
    "sqlalchemy-sqlite": ("sqlalchemy-sqlite", {}),
}
_ID = "counter"


class Count(NamedTuple):
    """The number at the end, how often the function ran for it, and how long all took."""

    total: int
    attempts: int
    seconds: float


def store_named(name: str) -> Store:
    """Return a store of this module's table; skips the test if there is no server for it."""
    base, settings = STORES[name]
    store = store_of(base)
    return Store(name, store.backend, store.url, {**store.config, **settings})


async def increment(db: AsyncDatabase, updates: int) -> int:
    """Add 1 to the record in as many tasks as there are updates; return the number of attempts."""
    attempts = 0

    async def add(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        n = (await tx.require(_ID))["n"]
        await tx.update(_ID, {"n": n + 1})

    await asyncio.gather(*(db.run(add) for _ in range(updates)))
    return attempts


async def count_in_one(name: str, updates: int) -> Count:
    """Count by tasks of this process."""
    async with store_named(name).fresh() as db:
        await db.create(Record({"n": 0}, id=_ID))
        begun = time.perf_counter()
        attempts = await increment(db, updates)
        seconds = time.perf_counter() - begun
        return Count((await db.require(_ID))["n"], attempts, seconds)


async def count_in_processes(name: str, updates: int, processes: int) -> Count:
    """Count by tasks of several processes that begin at the same time."""
    store = store_named(name)
    async with AsyncExitStack() as stack:
        db = await store.open()
        stack.push_async_callback(db.close)
        stack.push_async_callback(discard, db)
        await db.create(Record({"n": 0}, id=_ID))
        shares = [updates // processes + (n < updates % processes) for n in range(processes)]
        settings = {**store.config, "table": db.collection_name}
        settings |= {"url": store.url} if store.url is not None else {}
        children = [await _start(store.backend, settings, share) for share in shares]
        for child in children:
            await _line(child)  # connected
        begun = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"go\n")
        attempts = sum([int(await _line(child)) for child in children])
        seconds = time.perf_counter() - begun
        for child in children:
            await child.wait()
        return Count((await db.require(_ID))["n"], attempts, seconds)


async def _start(backend: str, settings: Mapping[str, Any], updates: int) -> asyncio.subprocess.Process:
    # Not through tests/stores.py, whose files are of one process.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.lost_updates.counting", backend, json.dumps(settings), str(updates),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def _line(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    line = await asyncio.wait_for(child.stdout.readline(), 120)
    if not line:
        raise RuntimeError(f"a counting process ended with code {await child.wait()}")
    return line.decode().strip()


async def _main(backend: str, settings: str, updates: str) -> None:
    """Connect, wait for a line on stdin, count, and print the number of attempts."""
    async with await AsyncDatabase.create(backend, json.loads(settings)) as db:
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        print(await increment(db, int(updates)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
