"""`python -m tests.changes.torture`: readers follow a collection that 16 writers change at once.

Writers use isthmus and SQL: batches, COPY, savepoints, transactions that overlap, are slow or are
rolled back, deletes and re-creations of the same ids, TRUNCATE; the S3 log is compacted meanwhile. One
reader is a process that is killed by SIGKILL again and again and goes on at its position, one is
cancelled, one begins at "start" in the middle. In the end each has seen every id that a committed
transaction wrote, at its last order or a later one; for no id did the order fall; and what each made of
the changes equals the collection.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.changes.log_writers import LogWriters
from tests.changes.readers import FollowerLog, KilledReader, follow_and_cancel, follow_from_start
from tests.changes.writers import END, Committed, PostgresWriters, SQLiteWriters, Writers

SIZES = {"postgres": 1_000_000, "sqlite": 200_000, "s3": 200_000}


def main() -> int:
    """Run on the stores that are named; return 1 if a change was skipped or came in the wrong order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=0, help="for each store; 0: its own number")
    parser.add_argument("--stores", nargs="*", default=list(SIZES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=float, default=120.0, help="seconds after which changes are pruned")
    options = parser.parse_args()
    failed = False
    for store in options.stores:
        changes = options.changes or SIZES[store]
        failed |= not _torture(store, changes, options.seed, options.keep)
    return 1 if failed else 0


def _torture(store: str, changes: int, seed: int, keep: float) -> bool:
    from tests.servers import PostgresServer, VersityServer

    with tempfile.TemporaryDirectory(prefix="isthmus-changes-") as folder:
        common = {"table": "torture", "changes": True, "changes_keep": keep}
        if store == "postgres":
            with PostgresServer() as server:
                settings = {"url": server.url, **common}
                writers: Writers = PostgresWriters(settings, changes, seed)
                return asyncio.run(_run(store, settings, writers, Path(folder)))
        if store == "s3":
            with VersityServer() as bucket:
                log = {"checkpoint_entries": 50, "grace": 2.0}
                keys = {name.lower(): value for name, value in bucket.env.items()}
                settings = {"url": bucket.url, "prefix": "torture", "layout": "log", "log": log, **keys}
                # A reader that is killed loads the whole log each time.
                settings |= {"changes": True, "changes_keep": 5 * keep}
                return asyncio.run(_run(store, settings, LogWriters(settings, changes, seed), Path(folder)))
        settings = {"path": str(Path(folder) / "torture.db"), "synchronous": "normal", **common}
        return asyncio.run(_run(store, settings, SQLiteWriters(settings, changes, seed), Path(folder)))


async def _run(store: str, settings: dict[str, Any], writers: Writers, folder: Path) -> bool:
    begun = time.monotonic()
    await writers.open()
    logs = {name: FollowerLog() for name in ("cancelled", "start")}
    killed = KilledReader(store, settings, folder / "killed.log", settings["changes_keep"] / 3)
    await killed.begin()
    ready = asyncio.Event()
    readers = [
        asyncio.create_task(killed.run(writers.seed)),
        asyncio.create_task(follow_and_cancel(store, settings, logs["cancelled"], ready, writers)),
        asyncio.create_task(follow_from_start(store, settings, logs["start"], writers)),
    ]
    await ready.wait()
    await writers.run()
    wrote = time.monotonic() - begun
    ticking = asyncio.create_task(writers.tick())
    await asyncio.gather(*readers)
    ticking.cancel()
    await asyncio.wait([ticking])
    logs["killed"] = killed.read_log()
    content = await writers.content()
    await writers.close()
    print(
        f"{store}: {writers.count:,} changes committed in {wrote:.0f} s, readers at the end after"
        f" {time.monotonic() - begun:.0f} s; {killed.kills} readers killed, {writers.retries} deadlocks and"
        f" other failed transactions, {len(content):,} records at the end",
        flush=True,
    )
    results = [_judge(name, log, writers.committed, content) for name, log in logs.items()]
    return all(results)


def _judge(name: str, log: FollowerLog, committed: Committed, content: dict[str, Any]) -> bool:
    """Print what a reader got wrong; return whether that is nothing."""
    # From the start only what is there, or changes from then on, is promised.
    expected = committed.since_start if name == "start" else committed.everything
    skipped = [id for id, order in expected.items() if log.orders.get(id, -1) < order]
    different = [id for id in log.content.keys() | content.keys() if log.content.get(id) != content.get(id)]
    print(
        f"  {name}: {log.count:,} changes read, {len(skipped)} skipped, order fell {log.falls} times,"
        f" {len(different)} records differ at the end {skipped[:3]} {different[:3]}",
        flush=True,
    )
    return not skipped and not log.falls and not different and END in log.content


if __name__ == "__main__":
    sys.exit(main())
