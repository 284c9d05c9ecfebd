"""Pools, one for each event loop: shared by key, opened once, leased, closed with the last lease.

A native client belongs to the loop on which it was opened. A database handle does not: it gets the
pool of the running loop here. Handles with equal keys share a pool; the key holds every setting
that matters, secrets as digests.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hashlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, Protocol, TypeVar

from isthmus._core.uncancelled import Ends


class LoopPool(Protocol):
    """The interface that the registry needs of a pool."""

    async def close(self) -> None:
        """Close on the pool's own loop; waits for connections in use."""
        ...

    def discard(self) -> None:
        """Drop sockets without awaiting; the loop may be dead, or `close` may be waiting on it."""
        ...

    def is_healthy(self) -> bool:
        """Return whether the pool can still serve; no I/O. A pool that reconnects is healthy."""
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

    __slots__ = ("_entry", "is_closing", "loop", "pool")

    def __init__(self, entry: _Entry[P], pool: P) -> None:
        self._entry: _Entry[P] | None = entry
        self.is_closing = False
        """Whether this was the last lease, and the pool is not closed yet."""
        self.loop = entry.loop
        self.pool = pool

    async def release(self) -> None:
        """Release the lease; the last one closes the pool. Called on the pool's loop; idempotent."""
        entry, self._entry = self._entry, None
        if entry is not None and _drop_lease(entry):
            self.is_closing = True
            # A caller that is cancelled must not leave half-closed connections.
            await _closings.run(self.pool.close(), _CLOSE)
            self.is_closing = False

    def discard(self) -> None:
        """Release the lease without awaiting; the last one, or one being released, drops the pool."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self.is_closing = _drop_lease(entry)
        if not self.is_closing:
            return
        if self.loop is asyncio.get_running_loop():
            self.pool.discard()
            return
        try:
            self.loop.call_soon_threadsafe(self.pool.discard)
        except RuntimeError:  # the loop is closed
            self.pool.discard()

    def release_threadsafe(self) -> None:
        """Release the lease from another thread or loop; the pool is closed on its own loop if that runs."""
        entry, self._entry = self._entry, None
        if entry is None or not _drop_lease(entry):
            return
        pool, loop = self.pool, entry.loop
        try:
            loop.call_soon_threadsafe(lambda: _closings.start(pool.close(), _CLOSE))
        except RuntimeError:  # the loop is closed: nothing can be awaited on it
            pool.discard()


_closings = Ends()
_CLOSE = "isthmus-pool-close"


def _drop_lease(entry: _Entry[P]) -> bool:
    """Drop one lease; return whether it was the last, so that the pool left the registry."""
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
    tries again. A cancelled caller does not disturb the others.
    """
    loop = asyncio.get_running_loop()
    sweep()
    while True:
        entry = _entry(loop, key)
        if entry.pool is not None:
            if entry.pool.is_healthy():
                return Lease(entry, entry.pool)  # type: ignore[arg-type]
            _forget(entry)  # holders of the broken pool keep it until they release it
            _drop_lease(entry)
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
    """Drop the lease of a caller that never got its pool."""
    if not _drop_lease(entry):
        return
    opening = entry.opening
    if entry.pool is not None:
        _closings.start(entry.pool.close(), _CLOSE)
    elif opening is not None and not opening.done():
        opening.cancel()
        # Retrieve the outcome: nobody else will, and asyncio would warn.
        opening.add_done_callback(lambda task: None if task.cancelled() else task.exception() and None)


def _entry(loop: asyncio.AbstractEventLoop, key: Hashable) -> _Entry[LoopPool]:
    with _lock:
        slot = (id(loop), key)
        entry = _entries.get(slot)
        # The address may be that of a dead loop, reused by this one.
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
            # The sockets are the parent's: closing our copies must send nothing.
            _orphans.extend(_entries.values())
            _entries.clear()
        return
    with _lock:
        dead = [slot for slot, entry in _entries.items() if entry.loop.is_closed()]
        entries = [_entries.pop(slot) for slot in dead]
    for entry in entries:
        if entry.pool is not None:
            entry.pool.discard()


# Pools that a forked child inherited: kept alive, so that no finalizer sends to the parent's servers.
_orphans: list[_Entry[LoopPool]] = []


def open_pools() -> int:
    """Return the number of registered pools; for tests and `doctor`."""
    with _lock:
        return len(_entries)


def call_on(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Call a function on a loop: now on the running one, soon on another, never on a closed one."""
    if loop is asyncio.get_running_loop():
        call()
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed: nothing of it is left
        loop.call_soon_threadsafe(call)


class LoopBound(Generic[P]):
    """The leases of one backend: at most one for each loop on which its handle was used."""

    def __init__(self, key: Hashable, opener: Callable[[], Awaitable[P]]) -> None:
        self._key = key
        self._opener = opener
        # Not by weak references, which a lease would outlive, and which are gone for a stream that is
        # collected together with its handle.
        self._leases: dict[asyncio.AbstractEventLoop, Lease[P]] = {}
        self._closing: list[Lease[P]] = []
        self._pid = os.getpid()
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )

    def current(self) -> P | None:
        """Return this loop's pool if it is leased already, else None; no I/O."""
        if self._pid != os.getpid():
            self._after_fork()
        held = self._leases.get(asyncio.get_running_loop())
        return held.pool if held is not None and held.pool.is_healthy() else None

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
            for other in [other for other in self._leases if other.is_closed()]:
                del self._leases[other]  # `sweep` has dropped the pool
            self._leases[loop] = held
            return held.pool

    def call_on_each(self, call: Callable[[P], object]) -> None:
        """Call a function with the pool of each loop, on that loop."""
        for held in list(self._leases.values()):
            call_on(held.loop, partial(call, held.pool))

    async def close(self) -> None:
        """Release the leases of all loops."""
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
                self._closing.append(held)
                try:
                    await held.release()
                finally:
                    if not held.is_closing and held in self._closing:
                        self._closing.remove(held)

    def discard(self) -> None:
        """Release the leases of all loops without awaiting; drops pools whose closing is under way too."""
        leases = [*self._leases.values(), *self._closing]
        self._leases.clear()
        self._closing.clear()
        for held in leases:
            held.discard()

    def _after_fork(self) -> None:
        self._pid = os.getpid()
        self._leases.clear()
        self._closing.clear()
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
