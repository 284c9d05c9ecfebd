"""When calls are held back, and how the store is tried again."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from isthmus._core.op import Op
from isthmus._core.stack import Next
from isthmus.errors import CircuitOpenError, ConnectError, NotFoundError, PoolTimeoutError
from isthmus.layers.breaker import Breaker
from isthmus.testing.clock import VirtualClock
from tests.layers.stores import READ, Scripted, refused, stack


def breaker(clock: VirtualClock) -> Breaker:
    return Breaker(failures=3, open_seconds=1.0, clock=clock, random=Random(1))


async def opened(clock: VirtualClock, *then: Any) -> tuple[Any, Scripted, Breaker]:
    layer = breaker(clock)
    script = Scripted(refused, refused, refused, *then)
    stacked = stack(layer, script)
    for _ in range(3):
        with pytest.raises(ConnectError):
            await stacked.run(READ)
    return stacked, script, layer


@pytest.mark.asyncio
async def test_after_failures_in_a_row_calls_are_refused_without_being_sent() -> None:
    """The store is left in peace, the caller gets an answer at once."""
    stacked, script, layer = await opened(VirtualClock())

    with pytest.raises(CircuitOpenError) as caught:
        await stacked.run(READ)

    assert len(script.attempts) == 3
    assert caught.value.transient
    assert caught.value.retry_after is not None
    assert layer.counts() == {"opened": 1, "refused": 1, "open": 1.0}


@pytest.mark.asyncio
async def test_a_probe_that_succeeds_closes_it() -> None:
    """A store that is back serves within the open time."""
    clock = VirtualClock()
    stacked, _, layer = await opened(clock)

    await clock.advance(1.0)

    assert await stacked.run(READ) == [None]
    assert await stacked.run(READ) == [None]
    assert layer.counts()["open"] == 0.0


@pytest.mark.asyncio
async def test_one_probe_at_a_time() -> None:
    """A thousand callers do not fall on a store that has just come back."""
    clock = VirtualClock()
    go = asyncio.Event()

    async def slow(op: Op[Any], call_next: Next) -> Any:
        await go.wait()
        return await call_next(op)

    stacked, script, _ = await opened(clock, slow)
    await clock.advance(1.0)

    probe = asyncio.ensure_future(stacked.run(READ))
    await asyncio.sleep(0)
    with pytest.raises(CircuitOpenError):
        await stacked.run(READ)
    go.set()
    await probe

    assert len(script.attempts) == 4


@pytest.mark.asyncio
async def test_a_probe_that_fails_opens_it_again() -> None:
    """For the same time, so that recovery never takes longer."""
    clock = VirtualClock()
    stacked, _, _ = await opened(clock, refused)
    await clock.advance(1.0)

    with pytest.raises(ConnectError):
        await stacked.run(READ)
    with pytest.raises(CircuitOpenError):
        await stacked.run(READ)
    await clock.advance(1.0)

    assert await stacked.run(READ) == [None]


@pytest.mark.asyncio
async def test_a_cancelled_probe_leaves_room_for_the_next() -> None:
    """It told nothing about the store."""
    clock = VirtualClock()

    async def hangs(op: Op[Any], call_next: Next) -> Any:
        await asyncio.get_running_loop().create_future()

    stacked, _, _ = await opened(clock, hangs)
    await clock.advance(1.0)

    probe = asyncio.ensure_future(stacked.run(READ))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)

    assert await stacked.run(READ) == [None]


@pytest.mark.parametrize("error", [NotFoundError("x"), PoolTimeoutError("full")])
@pytest.mark.asyncio
async def test_answers_and_a_full_pool_do_not_count(error: Exception) -> None:
    """They say nothing about the store's health."""

    async def fails(op: Op[Any], call_next: Next) -> Any:
        raise error

    layer = breaker(VirtualClock())
    stacked = stack(layer, Scripted(*[fails] * 10))

    for _ in range(10):
        with pytest.raises(type(error)):
            await stacked.run(READ)

    assert layer.counts()["opened"] == 0
