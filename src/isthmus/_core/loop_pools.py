"""Pools, one for each event loop: shared by key, opened once, leased, self-cleaning (design §4).

A native client belongs to the loop that it was opened on. A database handle does not: it asks
here for the pool of the loop that runs. Pools are shared by all handles whose key is equal; the
key holds everything that matters, secrets as digests.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar


class LoopPool(Protocol):
    """What the registry needs of a pool."""

    async def close(self) -> None:
        """Close on the pool's own loop; waits for what is in use."""
        ...

    def discard(self) -> None:
        """Drop sockets without awaiting and without a warning; the loop may be dead."""
        ...

    def healthy(self) -> bool:
        """Return whether the pool can still serve; no I/O. A pool that reconnects by itself is healthy."""
        ...


P = TypeVar("P", bound=LoopPool)


def secret_digest(secret: str | bytes | None) -> str:
    """Return a digest that stands for a secret in a pool's key."""
    if secret is None:
        return ""
    return hashlib.blake2b(secret.encode() if isinstance(secret, str) else secret, digest_size=16).hexdigest()


class _Entry(Generic[P]):
    """A pool, or its opening, and how many leases it has."""

    def __init__(self, loop: asyncio.AbstractEventLoop, key: Hashable) -> None:
        self.loop = loop
        self.key = key
        self.leases = 0
        self.pool: P | None = None
        self.opening: asyncio.Task[P] | None = None


_lock = threading.Lock()
_entries: dict[tuple[int, Hashable], _Entry[LoopPool]] = {}
_pid = os.getpid()


class Lease(Generic[P]):
    """A counted hold on a pool of one loop."""

    __slots__ = ("_entry", "loop", "pool")

    def __init__(self, entry: _Entry[P], pool: P) -> None:
        self._entry: _Entry[P] | None = entry
        self.loop = entry.loop
        self.pool = pool

    async def release(self) -> None:
        """Give the lease back; the last one closes the pool. Call it on the pool's loop, once or more."""
        entry, self._entry = self._entry, None
        if entry is not None and _drop(entry):
            await _closed(self.pool)

    def release_threadsafe(self) -> None:
        """Give the lease back from elsewhere: the pool is closed on its loop if that still runs."""
        entry, self._entry = self._entry, None
        if entry is None or not _drop(entry):
            return
        pool, loop = self.pool, entry.loop
        try:
            loop.call_soon_threadsafe(lambda: _keep(loop.create_task(_closed(pool))))
        except RuntimeError:  # the loop is closed: nothing of it can be awaited
            pool.discard()


_closing: set[asyncio.Task[None]] = set()


def _keep(task: asyncio.Task[None]) -> None:
    _closing.add(task)  # the loop itself holds tasks only weakly
    task.add_done_callback(_closing.discard)


async def _closed(pool: LoopPool) -> None:
    # Shielded: whoever is cancelled while closing must not leave half-closed connections.
    await asyncio.shield(asyncio.ensure_future(pool.close()))


def _drop(entry: _Entry[P]) -> bool:
    """Take one lease off; return whether it was the last and the pool is out of the registry."""
    with _lock:
        entry.leases -= 1
        if entry.leases > 0:
            return False
        slot = (id(entry.loop), entry.key)
        if _entries.get(slot) is entry:
            del _entries[slot]
        return True


async def lease(key: Hashable, opener: Callable[[], Awaitable[P]]) -> Lease[P]:
    """Return a lease on the running loop's pool for a key, opening it if there is none.

    Concurrent callers share one opening; if it fails, each gets its error, and the next call
    tries anew. A caller that is cancelled does not disturb the others.
    """
    loop = asyncio.get_running_loop()
    sweep()
    while True:
        entry = _entry(loop, key)
        if entry.pool is not None:
            if entry.pool.healthy():
                return Lease(entry, entry.pool)  # type: ignore[arg-type]
            _forget(entry)  # the holders of the broken pool keep it until they let go
            _drop(entry)
            continue
        if entry.opening is None:
            entry.opening = loop.create_task(_open(entry, opener), name="isthmus-pool-open")
        try:
            pool = await asyncio.shield(entry.opening)
        except BaseException:
            _give_up(entry)
            raise
        return Lease(entry, pool)  # type: ignore[arg-type]


async def _open(entry: _Entry[LoopPool], opener: Callable[[], Awaitable[P]]) -> P:
    try:
        pool = await opener()
    except BaseException:
        _forget(entry)
        raise
    entry.pool = pool
    return pool


def _give_up(entry: _Entry[LoopPool]) -> None:
    """Take back the lease of a caller that never got its pool."""
    if not _drop(entry):
        return
    opening = entry.opening
    if entry.pool is not None:
        _keep(entry.loop.create_task(_closed(entry.pool)))
    elif opening is not None and not opening.done():
        opening.cancel()
        # Retrieve the outcome: nobody else will, and asyncio would complain.
        opening.add_done_callback(lambda task: None if task.cancelled() else task.exception() and None)


def _entry(loop: asyncio.AbstractEventLoop, key: Hashable) -> _Entry[LoopPool]:
    with _lock:
        slot = (id(loop), key)
        entry = _entries.get(slot)
        # id() may be that of a dead loop whose place this one took.
        if entry is None or entry.loop is not loop:
            entry = _entries[slot] = _Entry(loop, key)
        entry.leases += 1
        return entry


def _forget(entry: _Entry[P]) -> None:
    with _lock:
        slot = (id(entry.loop), entry.key)
        if _entries.get(slot) is entry:
            del _entries[slot]


def sweep() -> None:
    """Drop the pools of closed loops, and after a fork those of the parent."""
    global _pid
    if _pid != os.getpid():
        _pid = os.getpid()
        with _lock:
            # The sockets are the parent's: closing our copies of them must send nothing.
            _orphans.extend(_entries.values())
            _entries.clear()
        return
    with _lock:
        dead = [slot for slot, entry in _entries.items() if entry.loop.is_closed()]
        entries = [_entries.pop(slot) for slot in dead]
    for entry in entries:
        if entry.pool is not None:
            entry.pool.discard()


# What a forked child inherited: kept, so that no finalizer of it speaks to the parent's servers.
_orphans: list[_Entry[LoopPool]] = []


def open_pools() -> int:
    """Return how many pools are registered; for tests and `doctor`."""
    with _lock:
        return len(_entries)


class LoopBound(Generic[P]):
    """One backend's leases, at most one for each loop that the handle was used on."""

    def __init__(self, key: Hashable, opener: Callable[[], Awaitable[P]]) -> None:
        self._key = key
        self._opener = opener
        self._leases: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Lease[P]] = (
            weakref.WeakKeyDictionary()
        )
        self._pid = os.getpid()
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )

    def current(self) -> P | None:
        """Return this loop's pool if it is leased already; no I/O, no await."""
        if self._pid != os.getpid():
            self._after_fork()
        held = self._leases.get(asyncio.get_running_loop())
        return held.pool if held is not None and held.pool.healthy() else None

    async def pool(self) -> P:
        """Return this loop's pool, leasing and opening it if needed."""
        pool = self.current()
        if pool is not None:
            return pool
        loop = asyncio.get_running_loop()
        async with self._turns.setdefault(loop, asyncio.Lock()):
            pool = self.current()
            if pool is not None:
                return pool
            broken = self._leases.pop(loop, None)
            if broken is not None:
                await broken.release()
            held = await lease(self._key, self._opener)
            self._leases[loop] = held
            return held.pool

    async def close(self) -> None:
        """Give back the leases of all loops."""
        if self._pid != os.getpid():
            self._after_fork()
        here = asyncio.get_running_loop()
        leases = list(self._leases.values())
        self._leases.clear()
        for held in leases:
            if held.loop is not here:
                held.release_threadsafe()
        for held in leases:
            if held.loop is here:
                await held.release()

    def _after_fork(self) -> None:
        self._pid = os.getpid()
        self._leases.clear()
        self._turns.clear()


@atexit.register
def _at_exit() -> None:
    if _pid != os.getpid():
        return
    with _lock:
        entries = list(_entries.values())
        _entries.clear()
    for entry in entries:
        if entry.pool is not None:
            entry.pool.discard()
