"""A pool's timeout does not count the time in which the loop itself is busy."""

from __future__ import annotations

import asyncio
import time

import pytest

from isthmus._core import wait_time

pytestmark = pytest.mark.asyncio


async def test_an_idle_wait_ends_at_its_timeout() -> None:
    """Waiting for the pool alone counts in full."""
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        async with wait_time.pool_timeout(0.1):
            await asyncio.Event().wait()

    assert 0.09 < time.monotonic() - start < 5


async def test_a_wait_is_extended_by_the_time_for_which_the_loop_worked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As long as that is a good part of the wait; then it ends."""
    worked = iter([0.0, 0.09, 0.13])
    monkeypatch.setattr(wait_time.time, "thread_time", lambda: next(worked))
    start = time.monotonic()

    with pytest.raises(TimeoutError):
        async with wait_time.pool_timeout(0.1):
            await asyncio.Event().wait()

    assert 0.18 < time.monotonic() - start < 5
    assert list(worked) == []


async def test_a_block_that_ends_in_time_is_left_alone() -> None:
    """Nothing fires afterwards, and a cancellation from outside passes."""
    async with wait_time.pool_timeout(0.02):
        pass
    await asyncio.sleep(0.05)

    async def wait() -> None:
        async with wait_time.pool_timeout(10):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
