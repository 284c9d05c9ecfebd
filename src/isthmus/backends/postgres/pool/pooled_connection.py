"""What a pool knows of each connection, and how it names those who hold them."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Iterable
from typing import Any, TypeAlias

Holder: TypeAlias = "asyncio.Task[Any] | None"

_STACK_LIMIT = 24
_NAMED = 5


class Slot:
    """One connection of a pool: its age, its use, and who has it."""

    __slots__ = (
        "checkouts",
        "connection",
        "dirty",
        "ended",
        "expires",
        "generation",
        "idle_since",
        "reading",
        "reported",
        "seen",
        "stack",
        "standby",
        "suspect",
        "taken",
        "task",
    )

    def __init__(self, connection: Any, generation: int, expires: float) -> None:
        self.connection = connection
        self.generation = generation
        self.expires = expires
        self.checkouts = 0
        self.idle_since = 0.0
        self.taken = 0.0
        self.task: Holder = None
        self.stack: list[tuple[Any, int]] | None = None
        self.dirty = False
        """Raw SQL was run: reset in full before anybody else gets it."""
        self.suspect = False
        """The server refused a write: ask whether it became a standby."""
        self.reported = False
        self.standby: bool | None = None
        self.ended = asyncio.Event()
        self.reading = False
        """The holder writes nothing."""
        self.seen = 0
        """On a replica: how many of the primary's writes it is known to have replayed."""

    def holder(self, now: float) -> str:
        """Return who holds the connection and for how long, with the stack if it was kept."""
        task = self.task
        name = "a task that is gone" if task is None else task.get_name()
        if task is not None and task.done():
            name += " (which has ended: the connection was never released)"
        text = f"{name} for {now - self.taken:.1f} s"
        if self.stack:
            text += ", taken at\n" + _formatted(self.stack)
        return text


def stack_here() -> list[tuple[Any, int]]:
    """Return the caller's frames as code and line, cheaply; nothing of the frames is kept alive."""
    frames: list[tuple[Any, int]] = []
    frame = sys._getframe(1)
    while frame is not None and len(frames) < _STACK_LIMIT:
        frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    return frames


def holders(slots: Iterable[Slot], now: float) -> str:
    """Return the oldest holders as one text; `slots` are in the order in which they were taken."""
    named: list[str] = []
    more = 0
    for slot in slots:
        if len(named) < _NAMED:
            named.append(slot.holder(now))
        else:
            more += 1
    if not named:
        return "held by nobody: they are being opened or mended"
    return "held by " + "; ".join(named) + (f"; and {more} more" if more else "")


def _formatted(stack: list[tuple[Any, int]]) -> str:
    entries = [(code.co_filename, line, code.co_name, None) for code, line in reversed(stack)]
    ours = ("/asyncio/", "/backends/postgres/pool.py", "/backends/postgres/checkout.py")
    outside = [entry for entry in entries if not any(part in entry[0] for part in ours)]
    return "".join(traceback.StackSummary.from_list(outside or entries).format()).rstrip()
