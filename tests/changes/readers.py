"""Readers of the torture: one that is killed, one that is cancelled, one that begins at "start"."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from isthmus import AsyncDatabase, Change, ChangesExpiredError, ChangeStream, Record, StoreError
from tests.changes.writers import END, Writers

_SOME = 20_000
"""Bytes of a reader's log: about a hundred changes."""


class FollowerLog:
    """What one reader has made of the changes."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}
        self.orders: dict[str, int] = {}
        self.falls = 0
        self.count = 0

    def add(self, id: str, order: int | None, data: Any) -> None:
        """Apply one change; None for the data of a record that is gone."""
        self.count += 1
        known = self.orders.get(id, -1)
        self.falls += order is None or order < known
        self.orders[id] = max(known, -1 if order is None else order)
        if data is None:
            self.content.pop(id, None)
        else:
            self.content[id] = data

    def add_change(self, change: Change[Record]) -> bool:
        """Apply a change; return whether it is the last one."""
        self.add(change.id, change.order, None if change.record is None else dict(change.record.data))
        return change.id == END and change.record is not None


async def follow_from_start(store: str, settings: dict[str, Any], log: FollowerLog, writers: Writers) -> None:
    """Begin at "start" when a third is written, and read to the end."""
    while writers.count < writers.wanted / 3:
        await asyncio.sleep(0.05)
    async with AsyncDatabase(store, settings) as db, db.changes(since="start", poll=0.05) as changes:
        writers.committed.note_start()
        ended = False
        async for change in changes:
            ended |= log.add_change(change)
            # The last record may also be among those that were there, before any change was read.
            if ended and changes.caught_up:
                return


async def follow_and_cancel(
    store: str, settings: dict[str, Any], log: FollowerLog, ready: asyncio.Event, writers: Writers
) -> None:
    """Read to the end; a call is cancelled now and then, and the stream or the handle replaced.

    The writers wait for this reader, else changes would be pruned before it has read them on a slow machine.
    """
    rng = random.Random(writers.seed)
    position = "now"
    while True:
        async with AsyncDatabase(store, settings) as db, db.changes(since=position, poll=0.05) as changes:
            ready.set()
            for _ in range(rng.randrange(1, 20)):
                if await _read_for(changes, log, rng.uniform(0.0, 0.3)):
                    return
                if changes.caught_up:
                    writers.read = writers.count
            position = changes.position or position


async def _read_for(changes: ChangeStream[Record], log: FollowerLog, seconds: float) -> bool:
    task = asyncio.create_task(_read(changes, log))
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done:
        task.cancel()
        await asyncio.wait([task])
    if task.cancelled():
        return False
    error = task.exception()
    if error is not None and (isinstance(error, ChangesExpiredError) or not isinstance(error, StoreError)):
        raise error
    return error is None


async def _read(changes: ChangeStream[Record], log: FollowerLog) -> None:
    async for change in changes:
        if log.add_change(change):
            return


class KilledReader:
    """A process that writes what it reads, with positions, to a file; killed and begun again.

    While it has not caught up for `patience` seconds it is not killed, else it could fall behind the
    changes that are kept.
    """

    def __init__(self, store: str, settings: dict[str, Any], path: Path, patience: float) -> None:
        self._patience = patience
        self._arguments = orjson.dumps([store, settings]).decode()
        self._path = path
        self._process: asyncio.subprocess.Process
        self.kills = 0

    async def begin(self) -> None:
        """Start the process, and wait until it follows."""
        await self._start()
        while not self._path.exists():
            await asyncio.sleep(0.02)

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.changes.readers", self._arguments, str(self._path)
        )

    async def run(self, seed: int) -> None:
        """Kill the process at random times until it has ended by itself."""
        rng = random.Random(seed)
        while True:
            # One that is killed before it has read anything would never get anywhere.
            size = self._path.stat().st_size
            while self._process.returncode is None and (
                self._path.stat().st_size <= size + _SOME or self._is_far_behind()
            ):
                await asyncio.sleep(0.05)
            try:
                code = await asyncio.wait_for(self._process.wait(), rng.uniform(0.0, 4.0))
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
                self.kills += 1
                await self._start()
                continue
            assert code == 0, f"the reader ended with {code}"
            return

    def _is_far_behind(self) -> bool:
        caught_up = _caught_up(self._path)
        return (
            time.time() - (caught_up if caught_up.exists() else self._path).stat().st_mtime > self._patience
        )

    def read_log(self) -> FollowerLog:
        """Return what the process has read."""
        log = FollowerLog()
        for line in _whole_lines(self._path):
            for id, order, data, _ in line:
                log.add(id, order, data)
        return log


def _caught_up(path: Path) -> Path:
    """Return the file that is touched when a reader has caught up."""
    return path.with_suffix(".caught_up")


def _whole_lines(path: Path) -> list[Any]:
    # A line that is cut off was written by a process that was killed: it reads that again.
    raw = path.read_bytes()
    return [orjson.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines() if line]


async def _follow_to_file(store: str, settings: dict[str, Any], path: Path) -> None:
    lines = _whole_lines(path) if path.exists() else []
    since = next((line[-1][3] for line in reversed(lines) if line), "now")
    if path.exists():
        raw = path.read_bytes()
        path.write_bytes(raw[: raw.rfind(b"\n") + 1])
    async with AsyncDatabase(store, settings) as db, db.changes(since=since, poll=0.05) as changes:
        with path.open("ab", buffering=0) as file:
            file.write(b"[]\n")
            batch: list[Any] = []
            async for change in changes:
                data = None if change.record is None else dict(change.record.data)
                batch.append([change.id, change.order, data, change.position])
                ended = change.id == END and data is not None
                if changes.caught_up:
                    _caught_up(path).touch()
                if len(batch) >= 200 or changes.caught_up or ended:
                    file.write(orjson.dumps(batch) + b"\n")
                    batch = []
                if ended:
                    return


if __name__ == "__main__":
    name, given = orjson.loads(sys.argv[1])
    asyncio.run(_follow_to_file(name, given, Path(sys.argv[2])))
