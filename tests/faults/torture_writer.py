"""Writes under load and tells its parent of each write: begun, acknowledged, failed, or cancelled.

A process of its own, so that the acknowledgements are logged by another one. It stops when its
standard input ends, closes its handle, and tells what is left open.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from random import Random
from typing import Any

from isthmus import Applied, AsyncDatabase, IsthmusError
from isthmus.errors import BatchError

WRITERS = 40


class Writer:
    """Forty tasks that write numbers, each number once."""

    def __init__(self, db: AsyncDatabase, seed: int, start: int) -> None:
        self._db = db
        self._plain = db.options(resilience="none", deadline=5.0)
        self._pick = Random(seed)
        self._number = start
        self._stop = False

    def tell(self, what: str, numbers: list[int]) -> None:
        """Write one line to the parent, whole."""
        os.write(1, f"{what} {' '.join(map(str, numbers))}\n".encode())

    async def run(self) -> None:
        """Write until standard input ends."""
        loop = asyncio.get_running_loop()
        ended = loop.run_in_executor(None, sys.stdin.read)
        workers = [loop.create_task(self._work()) for _ in range(WRITERS)]
        await ended
        self._stop = True
        await asyncio.gather(*workers)

    async def _work(self) -> None:
        while not self._stop:
            size = self._pick.choice((1, 1, 1, 5))
            numbers = list(range(self._number, self._number + size))
            self._number += size
            task = asyncio.ensure_future(self._write(numbers))
            if self._pick.random() < 0.05:
                await asyncio.sleep(self._pick.random() * 0.02)
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(self._pick.random() * 0.01)

    async def _write(self, numbers: list[int]) -> None:
        self.tell("begun", numbers)
        db = self._db if self._pick.random() < 0.7 else self._plain
        try:
            if len(numbers) == 1:
                await db.create({"n": numbers[0]})
            elif db.capabilities.transactions and self._pick.random() < 0.5:
                async with db.transaction() as tx:
                    for number in numbers:
                        await tx.create({"n": number})
            else:
                await db.create_batch([{"n": number} for number in numbers])
        except BatchError as error:
            for number, outcome in zip(numbers, error.outcomes, strict=True):
                self._one(number, outcome)
        except IsthmusError as error:
            for number in numbers:
                self._one(number, error)
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            self.tell("cancelled", numbers)
            raise
        else:
            self.tell("acknowledged", numbers)

    def _one(self, number: int, outcome: Any) -> None:
        if not isinstance(outcome, IsthmusError):
            self.tell("acknowledged", [number])
        elif outcome.applied is Applied.MAYBE:
            self.tell("doubt", [number])
        else:
            why = f"{type(outcome).__name__}: {outcome}".replace("\n", " ")[:300]
            os.write(1, f"refused {number} {why}\n".encode())


def sockets() -> int:
    """Return how many TCP sockets this process has open."""
    count = 0
    inodes = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        if Path(table).exists():
            inodes |= {line.split()[9] for line in Path(table).read_text().splitlines()[1:]}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:  # the listing's own
            continue
        count += target.startswith("socket:[") and target[8:-1] in inodes
    return count


async def main() -> None:
    """Read the settings from the first argument and write."""
    settings = json.loads(sys.argv[1])
    config = {**settings["config"], "deadline": 8.0, "layers": {"retry": {"attempts": 6, "reserve": 10_000}}}
    db = await AsyncDatabase.open(settings["url"], config)
    writer = Writer(db, settings["seed"], settings["start"])
    await writer.run()
    await db.close()
    await asyncio.sleep(0.3)
    gc.collect()
    left = len(asyncio.all_tasks()) - 1
    os.write(1, f"left {left} {sockets()}\n".encode())


if __name__ == "__main__":
    warnings.simplefilter("error", ResourceWarning)
    # What isthmus logs about a store that is down is no complaint of the writer's.
    logging.getLogger("isthmus").addHandler(logging.NullHandler())
    asyncio.run(main())
