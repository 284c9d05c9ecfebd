"""A fair lock that works across event loops and threads."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from types import TracebackType

from isthmus.errors import PoolTimeoutError


class FairLock:
    """A lock for one task at a time, in order of arrival.

    Entering raises `PoolTimeoutError`, which names the holder, after `timeout` seconds.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._guard = threading.Lock()
        self._taken = False
        self._holder = ""
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._take()
                return
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
        try:
            async with asyncio.timeout(self._timeout):
                await future
        except BaseException as error:
            with self._guard:
                # The lock was handed over just as the wait ended: pass it on.
                handed = future.done() and not future.cancelled()
                if not handed and future in self._waiting:
                    self._waiting.remove(future)
            if handed:
                self._pass_on()
            if isinstance(error, TimeoutError):
                raise PoolTimeoutError(
                    f"a write waited {self._timeout:g} s for the transaction of {self._holder!r} to end"
                ) from None
            raise
        self._take()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pass_on()

    def _take(self) -> None:
        self._taken = True
        task = asyncio.current_task()
        self._holder = task.get_name() if task else "a callback"

    def _pass_on(self) -> None:
        with self._guard:
            while self._waiting:
                future = self._waiting.popleft()
                try:
                    future.get_loop().call_soon_threadsafe(_wake, self, future)
                except RuntimeError:  # the waiter's loop is closed
                    continue
                return
            self._taken = False


def _wake(lock: FairLock, future: asyncio.Future[None]) -> None:
    if future.done():  # cancelled meanwhile
        lock._pass_on()
    else:
        future.set_result(None)
