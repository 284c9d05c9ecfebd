"""A connection on a thread of its own, to which event loops send jobs.

The standard library's connections block. Each has one thread that runs its jobs in order; a job is
a plain function of the session. Its result goes back to the loop of the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from isthmus._query.find import stoppable
from isthmus.backends.sqlite import fork
from isthmus.backends.sqlite.session import SQLiteSession
from isthmus.errors import ClosedError

T = TypeVar("T")


class ThreadJob:
    """One function to be run on a thread, and the future for its result."""

    __slots__ = ("cancelled", "done", "error", "future", "loop", "result", "shielded", "work")

    def __init__(
        self,
        work: Callable[[SQLiteSession], Any],
        future: asyncio.Future[Any],
        done: Callable[[], None] | None,
    ) -> None:
        self.work = work
        self.future = future
        self.loop = future.get_loop()
        self.done = done
        self.cancelled = False
        self.shielded = False
        # On their way to the loop, which takes them and `future`: a thread that is slow to go on must not
        # keep a page of records alive while the caller reads it.
        self.result: Any = None
        self.error: BaseException | None = None


class ConnectionThread:
    """One connection with its thread; opened by the first job, and again by the first after it was closed."""

    def __init__(self, opener: Callable[[], SQLiteSession], name: str) -> None:
        self._opener = opener
        self._jobs: queue.SimpleQueue[ThreadJob | None] = queue.SimpleQueue()
        # Held while a job is started, ended or interrupted, so that an interrupt never hits the next job.
        self._guard = threading.Lock()
        self._current: ThreadJob | None = None
        self._session: SQLiteSession | None = None
        self._stopped = False
        self._ended = False
        self._watchers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()
        fork.watch(self)

    async def run(
        self,
        work: Callable[[SQLiteSession], T],
        *,
        done: Callable[[], None] | None = None,
        shielded: bool = False,
    ) -> T:
        """Run a job and return its result.

        When the caller is cancelled, a running job is interrupted and a waiting one is skipped,
        unless it is `shielded`. `done` is called on the loop once the thread has finished the job,
        even if its caller was cancelled. Raises `ClosedError` after `stop`.
        """
        if self._stopped:
            if done is not None:
                done()
            raise ClosedError("the database is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job = ThreadJob(work, future, done)
        job.shielded = shielded
        self._jobs.put(job)
        try:
            return await future
        except asyncio.CancelledError:
            if not shielded:
                self._cancel(job)
            raise

    def _cancel(self, job: ThreadJob) -> None:
        with self._guard:
            job.cancelled = True
            if self._current is job and self._session is not None:
                self._session.interrupt()

    def pause(self, timeout: float) -> None:
        """Start no more jobs, and close the connection if it is idle within `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            self._guard.acquire()
            if self._current is None:
                break
            if time.monotonic() >= end:
                return
            self._guard.release()
            time.sleep(0.001)
        session = self._session
        if session is not None and not session.connection.in_transaction and session.reopens:
            self._close_session()

    def resume(self) -> None:
        """Start jobs again after `pause`."""
        self._guard.release()

    def open_label(self) -> str | None:
        """Return the path of the file whose connection is open, or None."""
        return None if self._session is None else self._session.label

    def stop(self) -> None:
        """End the thread after the waiting jobs; the thread closes the connection."""
        if not self._stopped:
            self._stopped = True
            self._jobs.put(None)

    async def close(self) -> None:
        """End the thread after the waiting jobs, and wait for it."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        with self._guard:
            if self._ended:
                return
            self._watchers.append((loop, ended))
        self.stop()
        await ended
        self._thread.join()  # it is about to return

    def discard(self) -> None:
        """Interrupt the running job and end the thread, without a loop; waits up to 2 seconds."""
        with self._guard:
            current = self._current
            if current is not None and not current.shielded and self._session is not None:
                current.cancelled = True
                self._session.interrupt()
        self.stop()
        self._thread.join(timeout=2)

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._perform(job)
            del job  # an idle thread must not keep the last batch in memory
        self._close_session()
        with self._guard:
            self._ended = True
        for loop, ended in self._watchers:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                loop.call_soon_threadsafe(_set_ended, ended)

    def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _perform(self, job: ThreadJob) -> None:
        with self._guard:
            if not job.cancelled:
                self._current = job
        if self._current is job:
            try:
                if self._session is None:
                    self._session = self._opener()
                self._session.job = job
                # An interrupt does not reach our SQL functions.
                with stoppable(lambda: not job.cancelled):
                    job.result = job.work(self._session)
            except BaseException as caught:  # raised in the caller
                job.error = caught
            finally:
                with self._guard:
                    self._current = None
                if self._session is not None:
                    self._session.job = None
                    if isinstance(job.error, sqlite3.ProgrammingError) and "closed" in str(job.error):
                        self._session = None
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed
            job.loop.call_soon_threadsafe(_deliver, job)


def _deliver(job: ThreadJob) -> None:
    future, result, error = job.future, job.result, job.error
    del job.future, job.result, job.error
    if job.done is not None:
        job.done()
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _set_ended(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
