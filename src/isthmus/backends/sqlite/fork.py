"""Closes connections before a fork, since SQLite forbids carrying them into the child.

SQLite keeps one list of its file locks per process, and POSIX locks are not inherited: a child
that opens a file of the inherited list relies on locks that it does not hold, and the parent may
delete the WAL under it (sqlite.org/howtocorrupt.html, section 2.6). So idle connections are closed
before a fork, and opened again by their next job.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING

from isthmus.errors import UsageError

if TYPE_CHECKING:
    from isthmus.backends.sqlite.connection_thread import ConnectionThread

# Seconds that a fork waits for running statements.
_MAX_WAIT = 5.0
_threads: weakref.WeakSet[ConnectionThread] = weakref.WeakSet()
_paused: list[ConnectionThread] = []
_inherited: set[str] = set()


def watch(thread: ConnectionThread) -> None:
    """Close a thread's connection before each fork of this process."""
    _threads.add(thread)


def check(label: str) -> None:
    """Raise `UsageError` in a child that inherited an open transaction on this file."""
    if label in _inherited:
        raise UsageError(
            f"{label}: this process was forked while a transaction or a consistent stream was open on the"
            " file, and SQLite cannot open it here safely; fork when none is open, or use spawn"
        )


def _before() -> None:
    end = time.monotonic() + _MAX_WAIT
    for thread in list(_threads):
        # The threads start no job until the fork is over.
        thread.pause(max(0.0, end - time.monotonic()))
        _paused.append(thread)


def _after_in_parent() -> None:
    while _paused:
        _paused.pop().resume()


def _after_in_child() -> None:
    # The threads exist in the parent only; the child opens pools of its own.
    _inherited.update(label for thread in _paused if (label := thread.open_label()) is not None)
    _orphans.extend(_paused)
    _paused.clear()
    _threads.clear()


# Connections that could not be closed: kept, so that no finalizer touches the parent's files.
_orphans: list[ConnectionThread] = []

os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
