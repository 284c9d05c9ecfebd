"""Locks on records, held until a transaction ends; they work across event loops and threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from isthmus.errors import PoolTimeoutError, SerializationError

Key: TypeAlias = tuple[str, str]
"""A collection and an id, or the name of a collection's unique values (`values_of`) and a value."""


def values_of(collection: str) -> str:
    """Return the name under which the unique values of a collection are locked."""
    return f"{collection}\0unique"


class Holder:
    """A transaction as the holder of locks; it waits for one lock at a time."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        self.name = task.get_name() if task else "a callback"
        self.keys: list[Key] = []
        self.waits_for: Key | None = None


class _Waiter(NamedTuple):
    holder: Holder
    future: asyncio.Future[None]


class RecordLocks:
    """Exclusive locks in order of arrival; a circle of waits is found when it would close."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._guard = threading.Lock()
        self._holders: dict[Key, Holder] = {}
        self._queues: defaultdict[Key, deque[_Waiter]] = defaultdict(deque)

    async def acquire(self, holder: Holder, keys: Iterable[Key]) -> None:
        """Lock records one after another, until the holder releases them all.

        Raises `SerializationError` if a record's holder waits, directly or not, for this one, and
        `PoolTimeoutError` after `timeout` seconds of waiting for one record.
        """
        for key in keys:
            with self._guard:
                owner = self._holders.get(key)
                if owner is None:
                    self._holders[key] = holder
                    holder.keys.append(key)
                if owner is None or owner is holder:
                    continue
                if self._closes_circle(holder, owner):
                    raise SerializationError(
                        f"deadlock: the transaction of {owner.name!r} waits for that of {holder.name!r}"
                    )
                holder.waits_for = key
                waiter = _Waiter(holder, asyncio.get_running_loop().create_future())
                self._queues[key].append(waiter)
            await self._wait(key, waiter, owner)

    @contextlib.contextmanager
    def pause(self) -> Iterator[Mapping[Key, Holder]]:
        """Keep others from locking anything in a block; yield what is locked."""
        with self._guard:
            yield self._holders

    def others_locks(self, holder: Holder, collection: str) -> list[str]:
        """Return the ids of a collection that somebody else has locked, with a record or without."""
        with self._guard:
            held = [key for key, owner in self._holders.items() if owner is not holder]
        return [id for name, id in held if name == collection]

    def release(self, holder: Holder) -> None:
        """Give each record that the holder has to the next in its queue."""
        with self._guard:
            for key in holder.keys:
                self._pass_on(key)
            holder.keys.clear()

    def _closes_circle(self, holder: Holder, owner: Holder | None) -> bool:
        while owner is not None and owner is not holder:
            owner = None if owner.waits_for is None else self._holders.get(owner.waits_for)
        return owner is holder

    async def _wait(self, key: Key, waiter: _Waiter, owner: Holder) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await waiter.future
        except BaseException as error:
            with self._guard:
                # One that was granted just as the wait ended is released with the holder's others.
                if waiter in self._queues.get(key, ()):
                    self._queues[key].remove(waiter)
                waiter.holder.waits_for = None
            if isinstance(error, TimeoutError):
                raise PoolTimeoutError(
                    f"a write waited {self._timeout:g} s for the transaction of {owner.name!r} to end"
                ) from None
            raise

    def _pass_on(self, key: Key) -> None:
        queue = self._queues.get(key, deque())
        while queue:
            waiter = queue.popleft()
            try:
                waiter.future.get_loop().call_soon_threadsafe(_wake, waiter.future)
            except RuntimeError:  # the waiter's loop is closed
                continue
            waiter.holder.waits_for = None
            waiter.holder.keys.append(key)
            self._holders[key] = waiter.holder
            return
        self._queues.pop(key, None)
        del self._holders[key]


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():  # cancelled meanwhile
        future.set_result(None)
