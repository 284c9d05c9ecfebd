"""An outage of 60 s at 200 operations a second: how much traffic retries add, how soon it recovers.

`python -m tests.faults.outage`: a real PostgreSQL is killed and comes back after the outage, behind
a proxy that counts what reaches the address. One run with retries alone, one with the whole
`service` preset.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from typing import Any

from isthmus import AsyncDatabase, IsthmusError, UnexpectedError
from tests import servers

RATE = 200


class Counted:
    """Counts attempts: a layer next to the store."""

    def __init__(self, db: AsyncDatabase) -> None:
        self.db = db
        self.results: Counter[str] = Counter()
        self.last_good = 0.0

    async def one(self, id: str) -> None:
        """Do one read and note what came of it."""
        try:
            await self.db.get(id)
        except IsthmusError as error:
            self.results[type(error).__name__] += 1
            if isinstance(error, UnexpectedError):
                print(f"  unexpected: {error} ({error.__cause__!r})")
        else:
            self.results["answer"] += 1
            self.last_good = time.monotonic()


async def outage(server: servers.PostgresServer, seconds: float, config: dict[str, Any]) -> tuple[str, bool]:
    """Run one outage; return what to print and whether the figures are met."""
    db = await AsyncDatabase.open(server.url, {"table": "outage", **config})
    id = await db.create({"n": 1})
    load = Counted(db)
    tasks: set[asyncio.Task[None]] = set()
    stopped = asyncio.Event()

    async def drive() -> None:
        begun, sent = time.monotonic(), 0
        while not stopped.is_set():
            due = int((time.monotonic() - begun) * RATE)
            while sent < due:
                task = asyncio.ensure_future(load.one(id))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(0.005)

    driver = asyncio.ensure_future(drive())
    await asyncio.sleep(2)
    await asyncio.to_thread(server.kill)
    before = db.stats().layers["retry"]["retries"]
    calls = sum(load.results.values())
    await asyncio.sleep(seconds)
    during = sum(load.results.values()) - calls
    added = db.stats().layers["retry"]["retries"] - before
    refused = db.stats().layers.get("breaker", {}).get("refused", 0)
    await asyncio.to_thread(server.start)
    listening = time.monotonic()
    while load.last_good < listening and time.monotonic() < listening + 30:
        await asyncio.sleep(0.005)
    recovery = load.last_good - listening
    await asyncio.sleep(2)
    stopped.set()
    await driver
    await asyncio.gather(*tasks)
    await db.close()
    share = added / max(during, 1)
    good = share <= 0.10 and 0 <= recovery <= 2.0
    return (
        f"{during} operations in {seconds:g} s without a server,"
        f" {added:g} retries ({share:.1%} more traffic),"
        f" {refused:g} held back by the breaker; first answer {recovery:.2f} s after the server listens;"
        f" {dict(load.results)}"
    ), good


def main() -> int:
    """Run both; 1 if a figure is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    met = True
    with servers.PostgresServer() as server:
        for name, config in {
            "retry alone": {"layers": {"retry": True}},
            "service": {"resilience": "service"},
        }.items():
            text, good = asyncio.run(outage(server, options.seconds, config))
            met = met and good
            print(f"{name}: {text}: {'met' if good else 'NOT met'}", flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
