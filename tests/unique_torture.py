"""`python -m tests.unique_torture`: eight processes claim names while processes and servers are killed.

Each claims names in an order of its own; some are killed by SIGKILL and started again, and so is
the server. In the end each name belongs to one record, and a claim by a handle that does not declare
the field is refused: none is held twice, and none is stuck, that is, held by no record and refused.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from isthmus import AlreadyExistsError, AsyncDatabase, BatchError, IsthmusError, Record, StoreError, field

PROCESSES = 8
BATCH = 5


def main() -> int:
    """Run on the stores that are named; return 1 if a name is held twice or stuck."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--stores", nargs="*", default=["sqlite", "postgres", "mariadb", "s3-log"])
    options = parser.parse_args()
    failed = False
    for store in options.stores:
        failed |= not _torture(store, options.names, options.kills)
    return 1 if failed else 0


def _torture(store: str, names: int, kills: int) -> bool:
    from tests.servers import MariaDbServer, PostgresServer, VersityServer

    if store == "sqlite":
        with tempfile.TemporaryDirectory(prefix="isthmus-unique-") as folder:
            return _run(store, {"path": str(Path(folder) / "names.db"), "table": "names"}, names, kills, None)
    if store == "postgres":
        with PostgresServer(fsync=True) as server:
            return _run(store, {"url": server.url, "table": "names"}, names, kills, server)
    if store == "mariadb":
        with MariaDbServer() as server:
            settings = {"url": server.url, "table": "names"}
            return _run("sqlalchemy", settings, names, kills, server)
    with VersityServer() as server:
        keys = {name.lower(): value for name, value in server.env.items()}
        settings = {"url": server.url, "prefix": "names", "layout": "log", **keys}
        return _run("s3", settings, names, kills, server)


def _run(store: str, settings: dict[str, Any], names: int, kills: int, server: Any) -> bool:
    declaring = {**settings, "unique": ["name"]}
    asyncio.run(_make(store, declaring))
    context = multiprocessing.get_context("spawn")
    begun = time.monotonic()

    def start(number: int) -> Any:
        # Half of them do not declare the field: the store's own declaration binds them.
        given = declaring if number % 2 else settings
        process = context.Process(target=_claim_all, args=(store, given, names, number))
        process.start()
        return process

    processes = [start(number) for number in range(PROCESSES)]
    rng, killed, restarts = random.Random(1), 0, 0
    while any(process.is_alive() for process in processes):
        time.sleep(rng.uniform(1.0, 3.0))
        number = rng.randrange(PROCESSES)
        if killed < kills and processes[number].is_alive():
            os.kill(processes[number].pid, signal.SIGKILL)
            processes[number].join()
            processes[number] = start(number)
            killed += 1
            if server is not None and killed % 5 == 0:
                server.kill()
                server.start()
                restarts += 1
    codes = [process.exitcode for process in processes]
    twice, stuck = asyncio.run(_examine(store, settings, names))
    print(
        f"{store}: {names} names, {PROCESSES} processes, {killed} killed, {restarts} restarts of the server,"
        f" {time.monotonic() - begun:.0f} s: {twice} held twice, {stuck} stuck; exit codes {codes}",
        flush=True,
    )
    return twice == stuck == 0 and not any(codes)


async def _make(store: str, settings: dict[str, Any]) -> None:
    async with AsyncDatabase(store, settings):
        pass


def _claim_all(store: str, settings: dict[str, Any], names: int, number: int) -> None:
    asyncio.run(_claim(store, settings, names, number))


async def _claim(store: str, settings: dict[str, Any], names: int, number: int) -> None:
    """Claim all names, by each method that writes; repeat what failed while the store was away."""
    rng = random.Random(f"{number} {os.getpid()}")
    wanted = list(range(names))
    rng.shuffle(wanted)
    db = await AsyncDatabase.create(store, settings, lazy=True)
    own = f"own-{number}-{os.getpid()}"
    while wanted:
        batch, wanted = wanted[:BATCH], wanted[BATCH:]
        try:
            await _claim_some(db, rng, batch, own)
        except (BatchError, AlreadyExistsError):
            continue
        except StoreError:  # it may have been claimed by this very call: then it is refused
            await asyncio.sleep(0.2)
            wanted += batch
    await db.close()


async def _claim_some(db: AsyncDatabase, rng: random.Random, batch: list[int], own: str) -> None:
    data = [{"name": f"name {number}"} for number in batch]
    match rng.randrange(4):
        case 0:
            for item in data:
                with contextlib.suppress(AlreadyExistsError):
                    await db.create(item)
        case 1:
            await db.create_batch(data, atomic=rng.random() < 0.5, on_error="collect")
        case 2:
            await db.upsert(own, {})
            for item in data:
                with contextlib.suppress(AlreadyExistsError):
                    await db.modify(own, field("name").set(item["name"]))
                    # It moves on: the name is free again, and is claimed by a record that stays.
                    await db.modify(own, field("name").unset())
                    await db.create(item)
            await db.delete(own)
        case 3:
            ids = [f"{own}-{number}" for number in batch]
            await db.upsert_batch(
                [Record(item, id=id) for id, item in zip(ids, data, strict=True)],
                atomic=False,
                on_error="collect",
            )


async def _examine(store: str, settings: dict[str, Any], names: int) -> tuple[int, int]:
    """Return how many names are held twice, and how many are held by none and still refused."""
    async with AsyncDatabase(store, settings) as db:
        held: Counter[str] = Counter()
        async for record in db.stream(field("name").exists()):
            held[record["name"]] += 1
        twice = sum(count > 1 for count in held.values())
        stuck = 0
        for number in range(names):
            name = f"name {number}"
            try:
                await db.create({"name": name})
            except AlreadyExistsError:
                stuck += not held[name]
            except IsthmusError as error:
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
                stuck += 1
            else:
                twice += bool(held[name])
        return twice, stuck


if __name__ == "__main__":
    sys.exit(main())
