"""Forks: connections are closed before one, since SQLite forbids to carry them into the child.

SQLite keeps one list of its file locks per process, and POSIX locks are not inherited: a child
that opens a file which is on the list it inherited takes locks for granted that it does not have,
and the parent may delete the WAL under it (sqlite.org/howtocorrupt.html, section 2.6). So idle
connections are closed before a fork, and opened again by their next job.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING

from isthmus.errors import UsageError

if TYPE_CHECKING:
    from isthmus.backends.sqlite.lane import Lane

# How long a fork waits for the statements that run.
_PATIENCE = 5.0
_lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
_held: list[Lane] = []
_carried: set[str] = set()


def watch(lane: Lane) -> None:
    """Close a lane's connection before each fork of this process."""
    _lanes.add(lane)


def check(label: str) -> None:
    """Raise `UsageError` in a child that inherited an open transaction on this file."""
    if label in _carried:
        raise UsageError(
            f"{label}: this process was forked while a transaction or a consistent stream was open on the"
            " file, and SQLite cannot open it here safely; fork when none is open, or use spawn"
        )


def _before() -> None:
    end = time.monotonic() + _PATIENCE
    for lane in list(_lanes):
        # Until the fork is over the lanes take up no job.
        lane.pause(max(0.0, end - time.monotonic()))
        _held.append(lane)


def _after_in_parent() -> None:
    while _held:
        _held.pop().resume()


def _after_in_child() -> None:
    # The threads of the lanes are the parent's; pools are made anew here.
    _carried.update(label for lane in _held if (label := lane.open_label()) is not None)
    _orphans.extend(_held)
    _held.clear()
    _lanes.clear()


# Connections that could not be closed: kept, lest their finalizers touch the parent's files.
_orphans: list[Lane] = []

os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
