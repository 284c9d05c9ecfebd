"""Measures stops of the event loop and the memory of processes, apart from what a busy machine adds."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import threading
import time
from pathlib import Path
from typing import Final

import asyncpg

_PAUSE: Final = 0.001
_NOTED: Final = 0.010
"""Shorter stops are not noted, in seconds."""
_BETWEEN_SAMPLES: Final = 0.020


class Probe:
    """A task that sleeps and notes how late it gets its turn, and by whose doing.

    A turn is late because the loop's thread worked, because another thread of this process held the
    interpreter's lock, or because the machine ran other processes. The first is the thread's processor
    time; the second is at most that of the other threads, and at most the time in which the loop's thread
    did not wait for a processor; the rest is the machine's, and no stop of ours.
    """

    def __init__(self, server: ServerMemory | None = None) -> None:
        self.stops: list[tuple[float, str]] = []
        self.longest_gap = 0.0
        """Between two turns by the clock, whatever the reason."""
        self.starved = 0.0
        """Seconds for which the machine ran other processes while this one had something to do."""
        self.doing = self.kind = ""
        self.longest_collection = 0.0
        """Of Python's garbage, in seconds: it grows with the heap of the program, whatever is called."""
        self._collected = self._collection = 0.0
        self._is_collecting = False
        self._server, self._sampled = server, 0.0
        gc.callbacks.append(self._note_collection)

    def _note_collection(self, phase: str, info: object) -> None:
        self._is_collecting = phase == "start"
        if phase == "start":
            self._collection = time.thread_time()
        else:
            seconds = time.thread_time() - self._collection
            self._collected += seconds
            self.longest_collection = max(self.longest_collection, seconds)

    def begin(self, kind: str) -> None:
        """Begin a call of a kind."""
        self.kind = kind
        if self._server is not None:
            self._server.begin()

    async def run(self) -> None:
        """Note each stop, until cancelled."""
        queued = QueueTime()
        while True:
            before = time.perf_counter(), time.thread_time(), time.process_time(), queued.read()
            collected = self._collected
            await asyncio.sleep(_PAUSE)
            after = time.perf_counter(), time.thread_time(), time.process_time(), queued.read()
            gap, own, all_threads, waited = (b - a for a, b in zip(before, after, strict=True))
            if gap > _NOTED:
                # A thread that collected may have let go of the lock before its callback counted that.
                while self._is_collecting:
                    await asyncio.sleep(_PAUSE)
                locked = min(gap - _PAUSE - own - waited, all_threads - own)
                stop = own + max(0.0, locked) - (self._collected - collected)
                self.starved += max(0.0, gap - _PAUSE - stop)
                self.longest_gap = max(self.longest_gap, gap)
                if stop > _NOTED:
                    self.stops.append((stop, self.doing))
            if self._server is not None and self.kind and after[0] > self._sampled + _BETWEEN_SAMPLES:
                self._sampled = after[0]
                self._server.sample(self.kind, self.doing)


class QueueTime:
    """How long the calling thread has waited for a processor, in seconds; 0 where Linux does not tell."""

    def __init__(self) -> None:
        try:
            self._file = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        except OSError:
            self._file = -1

    def read(self) -> float:
        if self._file < 0:
            return 0.0
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def client_memory() -> float:
    """Return the most that this process had in memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def highest_memory(pid: int) -> float:
    """Return the most that a process of this machine had in memory so far, with what it shares, in MB."""
    return int(_status(pid)["VmHWM"].split()[0]) / 1024


class ServerMemory:
    """The memory of PostgreSQL's processes, without the buffers that they share."""

    def __init__(self, parent: int) -> None:
        self._children = Path(f"/proc/{parent}/task/{parent}/children")
        self.peaks: dict[str, tuple[float, str]] = {}
        """By kind of call the most that a process grew by, in MB, and by what."""
        self._before: dict[int, float] = {}

    @classmethod
    async def of(cls, url: str) -> ServerMemory | None:
        """Return that of a server on this machine; None if it runs elsewhere."""
        connection = await asyncpg.connect(url)
        try:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            found = _status(pid)
        finally:
            await connection.close()
        if not found.get("Name", "").startswith("postgres"):
            return None
        return cls(int(found["PPid"]))

    def begin(self) -> None:
        """Note how much each process has before a call; the sessions keep what earlier calls made."""
        self._before = self._resident()

    def sample(self, kind: str, doing: str) -> None:
        """Note how much more each process has now than before the call."""
        for pid, size in self._resident().items():
            seen = size - self._before.get(pid, 0.0), doing
            self.peaks[kind] = max(self.peaks.get(kind, seen), seen)

    def _resident(self) -> dict[int, float]:
        found = {int(pid): _status(int(pid)) for pid in self._children.read_text().split()}
        return {pid: int(s.get("RssAnon", "0 kB").split()[0]) / 1024 for pid, s in found.items()}


def _status(pid: int) -> dict[str, str]:
    """Return what Linux says of a process; nothing if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
