"""Ends go on when their callers are cancelled, and a handle that closes waits for its own only."""

from __future__ import annotations

import asyncio
import gc

import anyio
import pytest

from isthmus import AsyncDatabase
from isthmus._core.uncancelled import Ends


class _Step:
    """Work of several awaits that notes whether it came to its end."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.ended = False

    async def run(self) -> str:
        await self.go_on.wait()
        await asyncio.sleep(0)
        self.ended = True
        return "opened"


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.asyncio
async def test_work_goes_on_however_often_its_caller_is_cancelled(times: int) -> None:
    """The caller leaves at once; `drain` waits for the work."""
    ends, step = Ends(), _Step()
    caller = asyncio.create_task(ends.run(step.run(), "end"))
    await asyncio.sleep(0)
    for _ in range(times):
        caller.cancel()
        await asyncio.sleep(0)

    assert (await asyncio.gather(caller, return_exceptions=True))[0].__class__ is asyncio.CancelledError
    assert not step.ended
    step.go_on.set()
    await ends.drain()
    assert step.ended


@pytest.mark.asyncio
async def test_work_goes_on_in_a_cancelled_scope_of_anyio() -> None:
    """It cancels its task again at every await."""
    ends, step = Ends(), _Step()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ends.run(step.run(), "end")

    step.go_on.set()
    await ends.drain()
    assert step.ended


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.asyncio
async def test_what_a_cancelled_caller_opened_is_closed(finished: bool) -> None:
    """Whether it is open already when the caller is cancelled, or later."""
    ends, step = Ends(), _Step()
    closed: list[str] = []

    async def close(opened: str) -> None:
        closed.append(opened)

    caller = asyncio.create_task(ends.open(step.run(), close, "open"))
    await asyncio.sleep(0)
    if finished:
        step.go_on.set()
        while not step.ended:
            await asyncio.sleep(0)
    caller.cancel()
    assert (await asyncio.gather(caller, return_exceptions=True))[0].__class__ is asyncio.CancelledError

    step.go_on.set()
    await ends.drain()
    assert closed == ["opened"]


@pytest.mark.asyncio
async def test_a_handle_that_closes_does_not_wait_for_another() -> None:
    """Nor, when it is closed within the end of another, for itself."""
    first, second = await AsyncDatabase.create("memory"), await AsyncDatabase.create("memory")
    never = asyncio.Event()
    waiting = first._ends.start(never.wait(), "end")

    async with asyncio.timeout(5):
        await first._ends.run(second.close(), "end")

    never.set()
    await waiting
    await first.close()


@pytest.mark.asyncio
async def test_a_stream_that_is_left_without_closing_is_released_when_it_is_collected() -> None:
    """Its snapshot goes with it."""
    db = await AsyncDatabase.create("memory")
    await db.create_batch([{"n": n} for n in range(20)])
    snapshots = db._backend._snapshots  # type: ignore[attr-defined]

    async for _ in db.stream(consistent=True, page_size=2):
        break

    assert gc.collect() >= 0
    async with asyncio.timeout(5):
        while snapshots:
            await asyncio.sleep(0)
    await db.close()
